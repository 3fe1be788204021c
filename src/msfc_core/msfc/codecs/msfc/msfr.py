"""Multi-scale feature reconstruction (MSFR): the pyramid from one map."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from msfc.codecs.msfc.align import align
from msfc.codecs.msfc.layers import conv3x3
from msfc.types import Size


class MSFR(nn.Module):
    """Rebuild the levels from fine to coarse, each from the one before and from the fused map.

    With F' the fused map::

        p2' = align(F', p2)
        pk' = conv3x3(align(p(k-1)', pk)) + align(F', pk)    for each coarser level
        p6' = the last of these, every second row and column (as FPNs make p6)

    Args:
        channels: channels C of every level.
        num_levels: number L of levels, without ``p6``.
    """

    def __init__(self, channels: int, num_levels: int) -> None:
        super().__init__()
        self.num_levels = num_levels
        self.convs = nn.ModuleList(conv3x3(channels, channels) for _ in range(num_levels - 1))

    def forward(self, fused: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
        """Rebuild the pyramid.

        Args:
            fused: N x C x h x w.
            sizes: height and width of each of the L levels in cells, finest first.

        Returns:
            L maps N x C x h_k x w_k of these sizes, then ``p6'`` of half the last size, rounded
            up.

        Raises:
            ValueError: if the number of sizes is not L.
        """
        if len(sizes) != self.num_levels:
            raise ValueError(f'MSFR rebuilds {self.num_levels} levels, got {len(sizes)} sizes')
        levels = [align(fused, sizes[0])]
        for conv, size in zip(self.convs, sizes[1:], strict=True):
            levels.append(conv(align(levels[-1], size)) + align(fused, size))
        levels.append(F.max_pool2d(levels[-1], kernel_size=1, stride=2))
        return levels

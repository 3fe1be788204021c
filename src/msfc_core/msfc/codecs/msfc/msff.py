"""Multi-scale feature fusion (MSFF): the whole pyramid in one map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from msfc.codecs.msfc.align import align
from msfc.codecs.msfc.layers import conv3x3
from msfc.types import Size


class MSFF(nn.Module):
    """Align all levels to one size, concatenate, re-weight channels (SE), reduce by a convolution.

    Args:
        channels: channels C of every level and of the result.
        num_levels: number L of levels.
        reduction: the SE block squeezes C * L channels to C * L / reduction.
    """

    def __init__(self, channels: int, num_levels: int, reduction: int = 16) -> None:
        super().__init__()
        stacked = channels * num_levels
        self.num_levels = num_levels
        self.se = SqueezeExcitation(stacked, max(1, stacked // reduction))
        self.reduce = conv3x3(stacked, channels)

    def forward(self, maps: Sequence[Tensor], size: Size) -> Tensor:
        """Fuse feature maps.

        Args:
            maps: L tensors N x C x h_k x w_k, in the order of training.
            size: height and width of the result, in cells.

        Returns:
            N x C x height x width.

        Raises:
            ValueError: if the number of maps is not L.
        """
        if len(maps) != self.num_levels:
            raise ValueError(f'MSFF fuses {self.num_levels} levels, got {len(maps)}')
        stacked = torch.cat([align(level, size) for level in maps], dim=1)
        fused: Tensor = self.reduce(stacked * self._channel_weights(stacked))
        return fused

    def _channel_weights(self, stacked: Tensor) -> Tensor:
        """Return the SE block's weights, N x (C L) x 1 x 1.

        Matrix products in place of the 1 x 1 convolutions of its own ``forward``, whose set-up
        takes a multiple of the arithmetic.
        """
        squeezed = stacked.mean((2, 3))
        for layer, activation in (
            (self.se.fc1, self.se.activation),
            (self.se.fc2, self.se.scale_activation),
        ):
            squeezed = activation(F.linear(squeezed, layer.weight.flatten(1), layer.bias))
        return squeezed[:, :, None, None]

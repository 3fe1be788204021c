"""Resampling of feature maps: the ``align`` operator of the paper."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from msfc.types import Size


def align(x: Tensor, size: Size) -> Tensor:
    """Resample feature maps to a height and width.

    A dimension that shrinks is averaged over areas, so that every source cell counts; one that
    grows is interpolated linearly between cell centres. The two dimensions are independent.

    Args:
        x: N x C x h x w.
        size: the height and width wanted, in cells.

    Returns:
        N x C x height x width; ``x`` itself if it has that size already.
    """
    height, width = x.shape[-2:]
    shrunk = (min(height, size[0]), min(width, size[1]))
    if shrunk != (height, width):
        if height % shrunk[0] == 0 and width % shrunk[1] == 0:
            # The same areas; faster, and unlike the adaptive kind deterministic in CUDA training.
            x = F.avg_pool2d(x, (height // shrunk[0], width // shrunk[1]))
        else:
            x = F.adaptive_avg_pool2d(x, shrunk)
    if shrunk != tuple(size):
        x = F.interpolate(x, size=size, mode='bilinear', align_corners=False)
    return x

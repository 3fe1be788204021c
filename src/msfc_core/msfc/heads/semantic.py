"""Semantic segmentation: a class for each pixel of the image."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from msfc.heads.base import PyramidHead
from msfc.types import ImageSizes, Pyramid, Size

MOST_CLASSES = 255
"""Results are bytes, and 255 is no class."""


class SemanticHead(PyramidHead):
    """Gives a class to each pixel: results are H x W uint8, an index into ``class_names``."""

    output: ClassVar[str] = 'semantic'

    @abstractmethod
    def logits(self, pyramid: Pyramid) -> Tensor:
        """Return what speaks for each class, N x classes x h x w.

        h and w cover the padded network input, at whatever stride.

        Args:
            pyramid: ``p2`` .. ``p6``, of N images.
        """

    @torch.no_grad()
    def infer(self, pyramid: Pyramid, sizes: ImageSizes) -> list[Tensor]:
        """Return the likeliest class of each pixel, H x W uint8 for each image."""
        logits = resized(self.logits(pyramid).float(), sizes.padded)
        return [
            resized(one[None, :, :height, :width], source)[0].argmax(0).to(torch.uint8)
            for one, (height, width), source in zip(
                logits, sizes.valid, sizes.source, strict=True
            )
        ]


def resized(maps: Tensor, size: Size) -> Tensor:
    """Return N x C x h x w maps resized bilinearly."""
    if maps.shape[-2:] == size:
        return maps
    return functional.interpolate(maps, size=size, mode='bilinear', align_corners=False)


def check_class_count(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names of classes.

    Raises:
        ValueError: there are more than a byte can tell apart.
    """
    if len(names) > MOST_CLASSES:
        raise ValueError(f'{len(names)} classes; there can be {MOST_CLASSES}')
    return names

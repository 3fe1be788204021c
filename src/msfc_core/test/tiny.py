"""A split detector small enough for unit tests, with every part that the codec relies on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msfc.codecs.msfc.codec import MSFC, MSFCConfig
from msfc.detectors.base import SplitDetector
from msfc.model import SplitModel
from msfc.types import ImageBatch, ImageSizes, Instances, Pyramid, PyramidHook, Targets

CHANNELS = 8
CODE_CHANNELS = 3
SHORT_EDGE = 72


class TinyDetector(SplitDetector):
    """One patch convolution per level, and heads that read every level.

    Args:
        classes: names of the classes.
        levels: how many levels below ``p6`` there are, from ``p2`` on.
    """

    def __init__(self, classes: Sequence[str] = ('cup', 'ball'), levels: int = 4) -> None:
        super().__init__()
        self.class_names = tuple(classes)
        self.feature_channels = CHANNELS
        self.strides = {f'p{k}': 2**k for k in range(2, 2 + levels)}
        self.size_divisibility = 32
        self.backbone = nn.ModuleDict(
            {
                level: nn.Conv2d(3, CHANNELS, stride, stride)
                for level, stride in self.strides.items()
            }
        )
        self.head = nn.Linear(CHANNELS * (levels + 1), 5 * len(classes))
        self.mask = nn.Conv2d(CHANNELS, len(classes), 1)

    def config(self) -> dict[str, Any]:
        """Return what :func:`build_tiny` needs."""
        return {'type': 'tiny', 'classes': list(self.class_names), 'levels': len(self.strides)}

    def preprocess(self, images: Sequence[Tensor]) -> ImageBatch:
        """Resize the short edge to 72 pixels and pad."""
        resized = []
        for image in images:
            scale = SHORT_EDGE / min(image.shape[1:])
            size = (round(image.shape[1] * scale), round(image.shape[2] * scale))
            resized.append(F.interpolate(image[None].float() / 255, size, mode='bilinear')[0])
        step = self.size_divisibility
        padded = (
            -(-max(x.shape[1] for x in resized) // step) * step,
            -(-max(x.shape[2] for x in resized) // step) * step,
        )
        tensor = torch.zeros(len(images), 3, *padded)
        for row, x in zip(tensor, resized, strict=True):
            row[:, : x.shape[1], : x.shape[2]] = x
        sizes = ImageSizes(
            source=tuple((x.shape[1], x.shape[2]) for x in images),
            valid=tuple((x.shape[1], x.shape[2]) for x in resized),
            padded=padded,
        )
        return ImageBatch(tensor, sizes)

    def extract(self, batch: ImageBatch) -> Pyramid:
        """Compute ``p2`` and so on, then ``p6``."""
        pyramid = {level: patch(batch.tensor) for level, patch in self.backbone.items()}
        coarsest = pyramid[max(self.strides, key=lambda level: self.strides[level])]
        pyramid['p6'] = F.max_pool2d(coarsest, 1, 2)
        return pyramid

    def infer(
        self, pyramid: Pyramid, sizes: ImageSizes, max_instances: int | None = None
    ) -> list[Instances]:
        """Find one instance of each class."""
        pooled = torch.cat([level.mean((2, 3)) for level in pyramid.values()], dim=1)
        numbers = self.head(pooled).reshape(len(pooled), len(self.class_names), 5)
        maps = self.mask(pyramid['p2'])
        found = []
        for row, mask, size in zip(numbers, maps, sizes.source, strict=True):
            scores, order = row[:, 4].sigmoid().sort(descending=True)
            scores, order = scores[:max_instances], order[:max_instances]
            masks = F.interpolate(mask[None], size, mode='bilinear')[0] > 0
            found.append(Instances(row[order, :4], scores, order, masks[order]))
        return found

    def losses(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Targets],
        hook: PyramidHook | None = None,
    ) -> dict[str, Tensor]:
        """Return a number that depends on all parts."""
        pyramid = self.extract(self.preprocess(images))
        pyramid = hook(pyramid) if hook else pyramid
        pooled = torch.cat([level.mean((2, 3)) for level in pyramid.values()], dim=1)
        return {'loss': self.head(pooled).square().mean() + self.mask(pyramid['p2']).mean()}


def build_tiny(config: dict[str, Any]) -> TinyDetector:
    """Build a detector from its ``config()``."""
    if config.get('type') != 'tiny':
        raise ValueError(f'unknown detector type {config.get("type")!r}')
    return TinyDetector(config['classes'], config['levels'])


def tiny_model(seed: int = 0, rate: int | None = None, codec: bool = True) -> SplitModel:
    """Return a model with random weights and norm statistics, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        detector = TinyDetector()
        msfc = MSFC(MSFCConfig(CHANNELS, CODE_CHANNELS, se_reduction=4)) if codec else None
        if msfc is not None:
            randomize_norm(msfc)
        return SplitModel(detector, msfc, rate).eval()


def randomize_norm(msfc: MSFC) -> None:
    """Give the batch norm statistics and factors that a wrong formula would not survive."""
    norm = msfc.analysis.encoder.norm
    for tensor, low, high in (
        (norm.running_mean, -0.3, 0.3),
        (norm.running_var, 0.2, 2.0),
        (norm.weight.data, 0.5, 1.5),
        (norm.bias.data, -0.3, 0.3),
    ):
        assert tensor is not None
        tensor.uniform_(low, high)

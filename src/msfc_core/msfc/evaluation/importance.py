"""How much each level of the pyramid matters: noise on one level at a time (the paper's Fig. 3).

Also the sizes of the pyramid against those of the image and of the code (the paper's Table 1).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from msfc.data import CocoDataset
from msfc.detectors.base import SplitDetector
from msfc.evaluation.variants import Outcome, SourceImage, Uncompressed, Variant
from msfc.model import SplitModel
from msfc.types import Pyramid, Size
from msfc.wire.accounting import pyramid_elements
from msfc.wire.quantizer import FLOAT_BITS

NO_NOISE = 'no noise'
"""Name of the variant that the others are compared with."""


def noisy(
    pyramid: Pyramid, level: str, variance: float, key: str = '', seed: int = 0
) -> Pyramid:
    """Return a pyramid with Gaussian noise of zero mean added to one level.

    The other levels stay as they are, p6 too where the noise is on p5.

    Args:
        pyramid: levels by name.
        level: which one gets the noise.
        variance: of the noise.
        key: of the image; the same key, level and seed give the same noise everywhere.
        seed: of the noise.

    Raises:
        ValueError: there is no such level, or the variance is negative.
    """
    if level not in pyramid:
        raise ValueError(f'the pyramid has levels {", ".join(pyramid)}, not {level}')
    if not variance >= 0:
        raise ValueError(f'a variance cannot be {variance}')
    digest = hashlib.sha256(f'{seed}/{key}/{level}'.encode()).digest()
    # Drawn on the CPU, so that it is the same whatever device the features are on.
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], 'big') % 2**63)
    features = pyramid[level]
    noise = torch.randn(features.shape, generator=generator) * variance**0.5
    return {**pyramid, level: features + noise.to(features)}


class NoisyLevel(Variant):
    """The features with noise on one level.

    Args:
        detector: the detector.
        level: such as ``p2``.
        variance: of the noise.
        seed: of the noise.
    """

    def __init__(
        self, detector: SplitDetector, level: str, variance: float, seed: int = 0
    ) -> None:
        self.name = f'noise on {level}'
        self.detector = detector
        self.depends = {'variance': variance, 'seed': seed}
        self._level, self._variance, self._seed = level, variance, seed

    def run(self, source: SourceImage) -> Outcome:
        """Detect what is in an image."""
        pyramid, sizes = source.pyramid(self.detector)
        key = str(source.image_id)
        changed = noisy(pyramid, self._level, self._variance, key, self._seed)
        return Outcome(self.detector.infer(changed, sizes)[0])


class LevelVariances:
    """Collects the variance of each level's features over images."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def add(self, pyramid: Pyramid) -> None:
        """Count the features of one image or a batch."""
        for level, features in pyramid.items():
            values = features.detach().double()
            sums = self._sums.setdefault(level, [0.0, 0.0, 0.0])
            sums[0] += values.numel()
            sums[1] += float(values.sum())
            sums[2] += float(values.square().sum())

    def variances(self) -> dict[str, float]:
        """Return the variance by level.

        Raises:
            ValueError: nothing was counted.
        """
        if not self._sums:
            raise ValueError('no features were counted')
        return {
            level: squares / count - (total / count) ** 2
            for level, (count, total, squares) in self._sums.items()
        }

    def pooled(self) -> float:
        """Return the mean of the levels' variances, each level counted alike.

        Noise of a fixed multiple of it is comparable between detectors whose features have
        another scale.
        """
        values = self.variances().values()
        return sum(values) / len(values)


@torch.inference_mode()
def level_variances(
    detector: SplitDetector, dataset: CocoDataset, image_ids: Sequence[int]
) -> LevelVariances:
    """Return the variances of a detector's features over some images of a data set."""
    detector.eval()
    places = {image_id: index for index, image_id in enumerate(dataset.image_ids)}
    collected = LevelVariances()
    for image_id in image_ids:
        source = SourceImage(image_id, dataset.read_image(places[image_id]))
        collected.add(source.pyramid(detector)[0])
    return collected


def importance_variants(
    detector: SplitDetector, variance: float, seed: int = 0
) -> list[Variant]:
    """Return what the figure compares: no noise, then noise on each of p2 .. p6 in turn."""
    return [
        Uncompressed(detector, NO_NOISE),
        *(NoisyLevel(detector, k, variance, seed) for k in (*sorted(detector.strides), 'p6')),
    ]


@dataclass(frozen=True)
class SizeRow:
    """One row of the table of sizes.

    Attributes:
        name: what it is.
        shape: channels, height, width.
        elements: their product, or the sum of the levels'.
        bits: as it is kept in memory, or sent.
        elements_ratio: elements over those of the network input.
        bits_ratio: bits over those of the network input.
    """

    name: str
    shape: tuple[int, int, int] | None
    elements: int
    bits: int
    elements_ratio: float
    bits_ratio: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-serialisable values."""
        return asdict(self)


def size_table(
    detector: SplitDetector, valid: Size, model: SplitModel | None = None
) -> list[SizeRow]:
    """Return the sizes of image, levels, pyramid and code (the paper's Table 1).

    The image is the network's input without padding, 3 channels of 8 bits; features are float32.
    The pyramid's sizes are those of the padded input.

    Args:
        detector: whose pyramid it is.
        valid: height and width of the resized image in pixels, such as 800 x 1200.
        model: if given, its code at its own rate is the last row.
    """
    step = detector.size_divisibility or 1
    padded = (-(-valid[0] // step) * step, -(-valid[1] // step) * step)
    sizes = detector.pyramid_sizes(padded)
    channels = detector.feature_channels
    image = 3 * valid[0] * valid[1]

    def row(name: str, shape: tuple[int, int, int] | None, elements: int, bits: int) -> SizeRow:
        return SizeRow(name, shape, elements, bits, elements / image, bits / (8 * image))

    rows = [row('image', (3, *valid), image, 8 * image)]
    for level, size in sizes.items():
        elements = pyramid_elements({level: size}, channels)
        rows.append(row(level, (channels, *size), elements, FLOAT_BITS * elements))
    elements = pyramid_elements(sizes, channels)
    rows.append(row('p2 .. p6', None, elements, FLOAT_BITS * elements))
    if model is not None and model.codec is not None:
        shape = model.code_shape(padded)
        bits = round(8 * model.payload_bytes(padded))
        rows.append(row(f'code, n={model.rate}', shape, math.prod(shape), bits))
    return rows

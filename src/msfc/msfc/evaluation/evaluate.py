"""Measures a model on a data set: average precision and bits, beside the uncompressed model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from msfc.codec import bits_per_pixel
from msfc.data import CocoDataset
from msfc.detectors.base import ImageSizes
from msfc.evaluation.coco_map import average_precision, to_coco_results
from msfc.model import SplitModel

UNCOMPRESSED = 'uncompressed'


@dataclass(frozen=True)
class Figures:
    """What one variant of a model reached.

    Attributes:
        variant: ``uncompressed`` or the bit depth, such as ``n=4``.
        box_map: box average precision over IoU 0.50:0.95, 0 to 1.
        mask_map: the same for masks.
        box_map50: box average precision at IoU 0.50.
        mask_map50: the same for masks.
        payload_bytes: mean payload per image; 0 if nothing is compressed.
        payload_bpfe: mean payload bits per element of the uncompressed pyramid.
        bits_per_pixel: mean payload bits per pixel of the source image.
        images: number of images measured.
    """

    variant: str
    box_map: float
    mask_map: float
    box_map50: float
    mask_map50: float
    payload_bytes: float
    payload_bpfe: float
    bits_per_pixel: float
    images: int

    def to_dict(self) -> dict[str, object]:
        """Return the figures as JSON values; what is not a number becomes null."""
        return {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in asdict(self).items()
        }


class _Tally:
    """Results and bits of one variant while the images go by."""

    def __init__(self) -> None:
        self.results: list[dict[str, Any]] = []
        self.bytes: list[float] = []
        self.bpfe: list[float] = []
        self.bpp: list[float] = []

    def count_bits(self, model: SplitModel, sizes: ImageSizes, bits: int) -> None:
        payload = model.payload_bytes(sizes.padded, bits)
        self.bytes.append(payload)
        self.bpfe.append(model.bpfe(sizes.padded, bits))
        self.bpp.append(bits_per_pixel(payload, sizes.source[0]))

    def figures(self, variant: str, dataset: CocoDataset, image_ids: Sequence[int]) -> Figures:
        def mean(values: list[float]) -> float:
            return sum(values) / len(values) if values else 0.0

        precision = average_precision(dataset.coco, self.results, image_ids)
        return Figures(
            variant, precision['box_map'], precision['mask_map'], precision['box_map50'],
            precision['mask_map50'], mean(self.bytes), mean(self.bpfe), mean(self.bpp),
            len(image_ids),
        )


@torch.inference_mode()
def evaluate_model(
    model: SplitModel,
    dataset: CocoDataset,
    bit_depths: Sequence[int] = (),
    reference: SplitModel | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Figures]:
    """Measure a model at several bit depths, and a reference detector on the same images.

    Args:
        model: with a codec; without one, it is measured as a plain detector.
        dataset: what to measure on; classes must be the model's.
        bit_depths: to measure; the model's own by default.
        reference: detector measured without compression, such as the one before the codec was
            trained.
        limit: measure the first images only.
        progress: called with (images done, images in all).

    Returns:
        The figures of the reference, if there is one, then those of each bit depth.

    Raises:
        ValueError: the data set has other classes than a model.
    """
    for checked in (model, *([reference] if reference else [])):
        if checked.class_names != dataset.class_names:
            raise ValueError(
                f'the model knows {", ".join(checked.class_names)}; the data set has '
                f'{", ".join(dataset.class_names)}'
            )
        checked.eval().to(memory_format=torch.channels_last)
    if model.msfc is None:
        reference, depths = reference or model, []
    else:
        depths = list(dict.fromkeys(bit_depths)) or [model.bit_depth]
    count = min(limit or len(dataset), len(dataset))
    tallies = {UNCOMPRESSED: _Tally(), **{f'n={bits}': _Tally() for bits in depths}}
    image_ids = dataset.image_ids[:count]
    for index, image_id in enumerate(image_ids):
        image = dataset[index].image
        if reference is not None:
            batch = reference.detector.preprocess([image])
            pyramid = reference.detector.extract(batch)
            (found,) = reference.detector.infer(pyramid, batch.sizes)
            tallies[UNCOMPRESSED].results += to_coco_results(
                image_id, found, dataset.category_ids
            )
        if depths:
            batch = model.detector.preprocess([image])
            pyramid = model.detector.extract(batch)
        for bits in depths:
            (found,) = model.detector.infer(model.hook(bits)(pyramid), batch.sizes)
            tally = tallies[f'n={bits}']
            tally.results += to_coco_results(image_id, found, dataset.category_ids)
            tally.count_bits(model, batch.sizes, bits)
        if progress:
            progress(index + 1, count)
    if reference is None:
        del tallies[UNCOMPRESSED]
    return [
        tally.figures(variant, dataset, image_ids) for variant, tally in tallies.items()
    ]

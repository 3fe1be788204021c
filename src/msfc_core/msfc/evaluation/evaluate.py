"""A quick look at a model: average precision and bits, without intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

from msfc.data import CocoDataset
from msfc.evaluation.measurement import measure
from msfc.evaluation.variants import Coded, Uncompressed
from msfc.model import SplitModel


@dataclass(frozen=True)
class ModelMetrics:
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


def evaluate_model(
    model: SplitModel,
    dataset: CocoDataset,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[ModelMetrics]:
    """Measure a model at its own rate, or as a plain detector if it has no codec.

    Without intervals, for a look at a training step; ``msfc evaluate`` says more.

    Args:
        model: the model.
        dataset: what to measure on; classes must be the model's.
        limit: measure the first images only.
        progress: called with (images done, images in all).

    Raises:
        ValueError: the data set has other classes than the model.
    """
    variant = Uncompressed(model.detector) if model.codec is None else Coded(model)
    image_ids = dataset.image_ids[:limit]
    (row,) = measure(dataset, [variant], image_ids, replicates=0, progress=progress)
    values = row.precision.values
    return [
        ModelMetrics(
            row.variant, values['box_map'], values['mask_map'], values['box_map50'],
            values['mask_map50'], row.payload_bytes or 0.0, row.payload_bpfe or 0.0,
            row.bits_per_pixel or 0.0, row.images,
        )
    ]

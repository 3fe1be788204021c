"""Mean intersection over union of a semantic head, through the codec and without it.

Over all pixels of all images, a class has the intersection over union of what is of it and what
was taken for it; their mean over the classes is the figure. Classes that are neither there nor
found do not count. Intervals are of a bootstrap over images, the same draws for all variants.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from msfc.codecs.base import transmit
from msfc.data.semantic import IGNORED, SemanticDataset
from msfc.evaluation.bootstrap import CONFIDENCE, Interval
from msfc.evaluation.variants import SourceImage
from msfc.evaluation.versions import library_versions
from msfc.files import write_atomically
from msfc.heads.head_file import load_heads
from msfc.heads.semantic import SemanticHead
from msfc.model import SplitModel
from msfc.model_file import describe_model, load_model
from msfc.progress import Progress

UNCOMPRESSED = 'uncompressed'


@dataclass(frozen=True)
class SemanticMeasurement:
    """One variant on all images.

    Attributes:
        variant: its name: ``uncompressed``, or that of a rate.
        class_names: names of the C classes.
        confusions: N x C x C, pixels of each image by true class and by the class found.
        payload_bytes: mean over the images; None where nothing is sent.
    """

    variant: str
    class_names: tuple[str, ...]
    confusions: NDArray[np.int64]
    payload_bytes: float | None = None

    @property
    def ious(self) -> dict[str, float]:
        """Intersection over union of each class; NaN where it is neither there nor found."""
        values = class_ious(self.confusions.sum(0))
        return dict(zip(self.class_names, values.tolist(), strict=True))

    @property
    def mean_iou(self) -> float:
        """Mean over the classes."""
        return float(mean_ious(self.confusions.sum(0)))

    @property
    def accuracy(self) -> float:
        """Share of the pixels whose class was found."""
        total = self.confusions.sum(0)
        return float(np.trace(total) / total.sum())


def class_ious(confusions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the intersection over union of each class, ... x C of ... x C x C counts."""
    hits = np.diagonal(confusions, axis1=-2, axis2=-1).astype(float)
    union = confusions.sum(-1) + confusions.sum(-2) - hits
    with np.errstate(invalid='ignore', divide='ignore'):
        return np.asarray(hits / union)


def mean_ious(confusions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean over the classes that are there or found, ... of ... x C x C counts."""
    values = class_ious(confusions)
    known = ~np.isnan(values)
    return np.asarray(np.where(known, values, 0.0).sum(-1) / np.maximum(known.sum(-1), 1))


def confusion(
    labels: NDArray[np.uint8], found: NDArray[np.uint8], classes: int
) -> NDArray[np.int64]:
    """Return the pixels of each true class that were taken for each class, C x C."""
    known = labels != IGNORED
    pairs = labels[known].astype(np.int64) * classes + found[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def semantic_head(model: SplitModel, name: str) -> SemanticHead:
    """Return the semantic head of a model.

    Args:
        model: the model.
        name: what it was loaded from.

    Raises:
        ValueError: it has none.
    """
    head = load_heads(model, name).get(SemanticHead.output)
    if not isinstance(head, SemanticHead):
        raise ValueError(f'{name} has no semantic head: msfc train-head trains one')
    return head


@torch.inference_mode()
def measure_semantic(
    model: SplitModel,
    head: SemanticHead,
    dataset: SemanticDataset,
    rates: Sequence[int] = (),
    progress: Progress | None = None,
) -> list[SemanticMeasurement]:
    """Measure a head on the detector's own pyramid, and on what each rate leaves of it.

    Args:
        model: the model; it is put into evaluation mode.
        head: of its detector.
        dataset: images with the class of each pixel; the classes are the head's.
        rates: of its codec.
        progress: called with (images done, images in all).

    Returns:
        ``uncompressed``, then each rate.

    Raises:
        ValueError: the classes differ, or a rate is unknown.
    """
    if dataset.class_names != head.class_names:
        raise ValueError(
            f'the head knows {", ".join(head.class_names)}; the data set has '
            f'{", ".join(dataset.class_names)}'
        )
    model.eval()
    head.eval()
    codec = model.require_codec() if rates else None
    coder = None if codec is None else codec.coder()
    names = [UNCOMPRESSED] + [coder.rate_name(coder.check_rate(r)) for r in rates if coder]
    counts: list[list[NDArray[np.int64]]] = [[] for _ in names]
    sent: list[list[int]] = [[] for _ in names]
    for index in range(len(dataset)):
        example = dataset[index]
        source = SourceImage(example.image_id, example.image)
        pyramid, sizes = source.pyramid(model.detector)
        pyramids = [pyramid]
        for place, rate in enumerate(rates, 1):
            assert codec is not None
            assert coder is not None
            received, (data,) = transmit(coder, source.code(model.detector, codec), rate)
            level_sizes = model.detector.pyramid_sizes(sizes.padded)
            pyramids.append(codec.synthesise(received, level_sizes))
            sent[place].append(len(data))
        for seen, rebuilt in zip(counts, pyramids, strict=True):
            (found,) = head.infer(rebuilt, sizes)
            seen.append(confusion(example.labels, found.cpu().numpy(), len(head.class_names)))
        if progress:
            progress(index + 1, len(dataset))
    return [
        SemanticMeasurement(
            name, head.class_names, np.stack(seen), float(np.mean(used)) if used else None
        )
        for name, seen, used in zip(names, counts, sent, strict=True)
    ]


def intervals(
    measured: Sequence[SemanticMeasurement], replicates: int = 1000, seed: int = 0
) -> list[tuple[Interval, Interval]]:
    """Return each variant's mean IoU, and its change against the first, with their intervals.

    Args:
        measured: on the same images.
        replicates: bootstrap samples.
        seed: of the bootstrap.
    """
    count = len(measured[0].confusions)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=max(replicates, 1))
    values = np.stack([
        mean_ious(np.tensordot(drawn, entry.confusions, axes=1)) for entry in measured
    ])
    tails = [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)]

    def interval(value: float, samples: NDArray[np.float64]) -> Interval:
        low, high = np.percentile(samples, tails) if replicates else (value, value)
        return Interval(value, float(low), float(high))

    first = measured[0].mean_iou
    return [
        (interval(entry.mean_iou, row), interval(entry.mean_iou - first, row - values[0]))
        for entry, row in zip(measured, values, strict=True)
    ]


@dataclass(frozen=True)
class SemanticStudy:
    """What :func:`compare_semantic` found.

    Attributes:
        measured: ``uncompressed``, then each rate.
        intervals: of each, mean IoU and its change.
        images: measured on.
    """

    measured: tuple[SemanticMeasurement, ...]
    intervals: tuple[tuple[Interval, Interval], ...]
    images: int

    def rows(self) -> list[dict[str, Any]]:
        """Return a JSON-serialisable row for each variant."""
        return [
            {
                'variant': entry.variant,
                'payload_bytes': entry.payload_bytes,
                'mean_iou': value.to_dict(),
                'change': change.to_dict(),
                'accuracy': entry.accuracy,
                'iou': {k: None if np.isnan(v) else v for k, v in entry.ious.items()},
            }
            for entry, (value, change) in zip(self.measured, self.intervals, strict=True)
        ]


def compare_semantic(
    name: str,
    data: Path,
    split: str,
    rates: Sequence[int] = (),
    limit: int | None = None,
    replicates: int = 1000,
    device: str = 'cpu',
    output: Path | None = None,
    progress: Progress | None = None,
) -> SemanticStudy:
    """Measure a model's semantic head at several rates beside the uncompressed detector.

    Args:
        name: model folder, or name of a shipped model.
        data: folder of a data set with the class of each pixel.
        split: which of its splits.
        rates: of the codec; all by default.
        limit: measure the first images only.
        replicates: bootstrap samples for the intervals.
        device: ``cpu`` or ``cuda``.
        output: JSON file to write.
        progress: called with (images done, images in all).

    Raises:
        OSError: a file is missing, or the output cannot be written.
        ValueError: something given is not what it should be.
    """
    model = load_model(name, device)
    head = semantic_head(model, name)
    dataset = SemanticDataset(data, split, limit)
    chosen = rates or (() if model.codec is None else model.codec.coder().rates)
    measured = measure_semantic(model, head, dataset, chosen, progress)
    study = SemanticStudy(
        tuple(measured), tuple(intervals(measured, replicates)), len(dataset)
    )
    if output:
        about = {
            'model': name, 'fingerprint': describe_model(name)['fingerprint'], 'split': split,
            'images': study.images, 'replicates': replicates, 'versions': library_versions(),
            'variants': study.rows(),
        }
        write_atomically(output, json.dumps(about, indent=2) + '\n')
    return study

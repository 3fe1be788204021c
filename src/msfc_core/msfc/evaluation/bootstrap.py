"""Bootstrap confidence intervals of COCO average precision, over images.

pycocotools matches each image once. What it accumulates, detections in order of score, is then
accumulated again for each resampled set of images, by numpy and without matching anything again.
The point values are those of pycocotools; a resampled value is the one that pycocotools gives for
a data set in which each image occurs as often as it was drawn. The only liberty: detections of
one class and image whose scores are equal to the last bit keep their order.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from msfc.evaluation.coco_map import KINDS

MAX_DETECTIONS = 100
"""Detections of a class per image that count, the surest: COCO's rule."""

MEASURES = ('box_map', 'mask_map', 'box_map50', 'mask_map50')
"""Average precision over IoU 0.50:0.95, and at 0.50."""

CONFIDENCE = 0.95
"""Share of the resampled values within an interval, where nothing else is said."""

_CHUNK_ELEMENTS = 4_000_000  # of one temporary array: 32 MB


@dataclass(frozen=True)
class Interval:
    """A figure and its percentile bootstrap interval.

    Attributes:
        value: the figure on the images as they are.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Return JSON-serialisable values."""
        return asdict(self)


@dataclass(frozen=True)
class _ClassRecord:
    """One class: its objects per image, and its detections, best score first.

    Attributes:
        objects: I, objects per image that are to be found.
        image: D, index of the image of each detection.
        hit: T x D, whether it matches an object, per IoU threshold.
        counted: T x D, whether it counts at all; what matches a crowd region does not.
    """

    objects: NDArray[np.int64]
    image: NDArray[np.int64]
    hit: NDArray[np.bool_]
    counted: NDArray[np.bool_]


class ImageMatches:
    """The matches of detections and objects, image by image, of one kind (box or mask).

    Args:
        truth: the annotations.
        results: detections in COCO's result format.
        kind: ``box`` or ``mask``.
        image_ids: the images to measure on; all by default.

    Raises:
        ValueError: an unknown kind, or no images.
    """

    def __init__(
        self,
        truth: COCO,
        results: Sequence[dict[str, Any]],
        kind: str,
        image_ids: Sequence[int] | None = None,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f'unknown kind {kind!r}: choose from {", ".join(KINDS)}')
        self.image_ids = sorted(truth.imgs if image_ids is None else set(image_ids))
        if not self.image_ids:
            raise ValueError('no images to measure on')
        evaluation = _evaluate(truth, results, KINDS[kind], self.image_ids)
        self._recalls: NDArray[np.float64] = np.asarray(evaluation.params.recThrs)
        self._thresholds = len(evaluation.params.iouThrs)
        per_class = len(self.image_ids)
        entries = evaluation.evalImgs
        self._classes = [
            _class_record(entries[start : start + per_class], self._thresholds)
            for start in range(0, len(entries), per_class)
        ]

    def average_precision(
        self, weights: NDArray[np.integer] | None = None
    ) -> NDArray[np.float64]:
        """Return average precision for each resampled set of images.

        Args:
            weights: B x I, how often each image was drawn, in the order of ``image_ids``; each
                image once by default.

        Returns:
            B x 2: over IoU 0.50:0.95, and at 0.50; NaN where no image that was drawn has an
            object.

        Raises:
            ValueError: the weights are for another number of images, or negative.
        """
        if weights is None:
            weights = np.ones((1, len(self.image_ids)), np.int64)
        drawn: NDArray[np.int64] = np.asarray(weights, np.int64)
        if drawn.ndim != 2 or drawn.shape[1] != len(self.image_ids):
            raise ValueError(
                f'weights of shape {drawn.shape} for {len(self.image_ids)} images: '
                'give one row per resampling'
            )
        if drawn.size and drawn.min() < 0:
            raise ValueError('an image cannot be drawn a negative number of times')
        total: NDArray[np.float64] = np.zeros((len(drawn), 2))
        count: NDArray[np.int64] = np.zeros(len(drawn), np.int64)
        for record in self._classes:
            step = max(1, _CHUNK_ELEMENTS // max(1, len(record.image)))
            for start in range(0, len(drawn), step):
                rows = slice(start, start + step)
                precision, present = self._class_precision(record, drawn[rows])
                total[rows] += np.where(present[:, None], precision, 0)
                count[rows] += present
        with np.errstate(invalid='ignore'):
            return total / count[:, None]

    def _class_precision(
        self, record: _ClassRecord, weights: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return average precision of one class, B x 2, and whether it has objects, B."""
        objects = weights @ record.objects
        needed = hits_needed(objects, self._recalls)
        drawn = weights[:, record.image]
        everything = bool(record.counted.all())
        seen_all = np.cumsum(drawn, axis=1) if everything else None
        per_threshold = np.zeros((len(weights), self._thresholds))
        for index in range(self._thresholds):
            # The interpolated precision is decided at hits; misses only lower it in between.
            places = np.flatnonzero(record.hit[index])
            if not len(places):
                continue
            seen = (
                seen_all
                if seen_all is not None
                else np.cumsum(drawn * record.counted[index], axis=1)
            )[:, places]
            hits = np.cumsum(drawn[:, places], axis=1)
            precision = hits / np.maximum(seen, 1)
            envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            place = first_at_least(hits, needed)
            reached = place < len(places)
            found = np.take_along_axis(envelope, np.minimum(place, len(places) - 1), axis=1)
            per_threshold[:, index] = np.where(reached, found, 0.0).mean(axis=1)
        both = np.stack([per_threshold.mean(axis=1), per_threshold[:, 0]], axis=1)
        return both, objects > 0


def draw_weights(images: int, replicates: int, seed: int = 0) -> NDArray[np.int64]:
    """Draw bootstrap samples: ``images`` images with replacement, ``replicates`` times.

    The same numbers give the same samples, so that figures of several variants on the same images
    are resampled alike and can be compared pairwise.

    Returns:
        ``replicates`` x ``images``: how often each image was drawn.

    Raises:
        ValueError: no images, or a negative number of replicates.
    """
    if images < 1 or replicates < 0:
        raise ValueError(f'{replicates} bootstrap samples of {images} images cannot be drawn')
    generator = np.random.default_rng(seed)
    return np.stack(
        [
            np.bincount(generator.integers(0, images, images), minlength=images)
            for _ in range(replicates)
        ]
        or [np.zeros(images, np.int64)]
    )[:replicates].astype(np.int64)


def percentile_interval(
    value: float, replicates: NDArray[np.float64], confidence: float = CONFIDENCE
) -> Interval:
    """Return the percentile interval; replicates that are not finite are left out.

    Args:
        value: the figure itself.
        replicates: B, the figure on each resampled set.
        confidence: share of the replicates within the interval, between 0 and 1.

    Raises:
        ValueError: the confidence is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f'the confidence is between 0 and 1, not {confidence}')
    finite = replicates[np.isfinite(replicates)]
    if not len(finite):
        return Interval(float(value), float('nan'), float('nan'))
    tail = (1 - confidence) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))


@dataclass(frozen=True)
class BootstrapResult:
    """Average precision of one variant with its resampled values.

    Attributes:
        values: each of ``MEASURES`` on the images as they are; NaN if there are no objects.
        replicates: each of ``MEASURES`` on the resampled sets, B values.
    """

    values: dict[str, float]
    replicates: dict[str, NDArray[np.float64]]

    def interval(self, measure: str, confidence: float = CONFIDENCE) -> Interval:
        """Return a measure and its interval."""
        return percentile_interval(
            self.values[measure], self.replicates[measure], confidence
        )

    def difference(
        self, other: BootstrapResult, measure: str, confidence: float = CONFIDENCE
    ) -> Interval:
        """Return how much more this one has than another, and the interval of the difference.

        Both must come from the same images and weights: then what the images have in common
        cancels, and the interval is as narrow as it may honestly be.

        Raises:
            ValueError: the two have different numbers of replicates.
        """
        mine, others = self.replicates[measure], other.replicates[measure]
        if len(mine) != len(others):
            raise ValueError(f'{len(mine)} and {len(others)} replicates cannot be paired')
        value = self.values[measure] - other.values[measure]
        return percentile_interval(value, mine - others, confidence)


def bootstrap_precision(
    truth: COCO,
    results: Sequence[dict[str, Any]],
    image_ids: Sequence[int] | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> BootstrapResult:
    """Measure average precision of boxes and masks, with bootstrap replicates over images.

    Args:
        truth: the annotations.
        results: detections in COCO's result format, with ``bbox`` and ``segmentation``.
        image_ids: the images to measure on; all by default.
        replicates: number of resampled sets.
        seed: of the resampling; use the same for what is to be compared.
    """
    values: dict[str, float] = {}
    resampled: dict[str, NDArray[np.float64]] = {}
    weights = None
    for kind in KINDS:
        matches = ImageMatches(truth, results, kind, image_ids)
        if weights is None:
            weights = draw_weights(len(matches.image_ids), replicates, seed)
        (point,) = matches.average_precision()
        many = matches.average_precision(weights)
        for column, measure in enumerate((f'{kind}_map', f'{kind}_map50')):
            values[measure] = float(point[column])
            resampled[measure] = many[:, column]
    return BootstrapResult(values, resampled)


def _evaluate(
    truth: COCO, results: Sequence[Mapping[str, Any]], iou_type: str, image_ids: Sequence[int]
) -> COCOeval:
    """Match detections and objects of every image and class, all sizes of objects together."""
    with contextlib.redirect_stdout(io.StringIO()):
        if results:
            # loadRes writes into what it is given.
            found = truth.loadRes([dict(result) for result in results])
        else:
            found = COCO()
            found.dataset = {
                'images': truth.dataset['images'],
                'categories': truth.dataset['categories'],
                'annotations': [],
            }
            found.createIndex()
        evaluation = COCOeval(truth, found, iou_type)
        evaluation.params.imgIds = list(image_ids)
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ['all']
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
    return evaluation


def _class_record(entries: Sequence[dict[str, Any] | None], thresholds: int) -> _ClassRecord:
    objects = np.zeros(len(entries), np.int64)
    scores: list[NDArray[np.float64]] = [np.zeros(0)]
    images: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    matched: list[NDArray[np.bool_]] = [np.zeros((thresholds, 0), bool)]
    ignored: list[NDArray[np.bool_]] = [np.zeros((thresholds, 0), bool)]
    for index, entry in enumerate(entries):
        if entry is None:
            continue
        objects[index] = np.count_nonzero(np.asarray(entry['gtIgnore']) == 0)
        count = len(entry['dtScores'])
        scores.append(np.asarray(entry['dtScores'], float))
        images.append(np.full(count, index, np.int64))
        matched.append(np.asarray(entry['dtMatches']).reshape(thresholds, count) != 0)
        ignored.append(np.asarray(entry['dtIgnore']).reshape(thresholds, count).astype(bool))
    # pycocotools sorts the same way: stable, images in order of their ids.
    order = np.argsort(-np.concatenate(scores), kind='mergesort')
    counted = ~np.concatenate(ignored, axis=1)[:, order]
    return _ClassRecord(
        objects=objects,
        image=np.concatenate(images)[order],
        hit=np.concatenate(matched, axis=1)[:, order] & counted,
        counted=counted,
    )


def hits_needed(
    objects: NDArray[np.int64], recalls: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the least number of hits whose share of the objects is at least each recall.

    The comparison is the one of pycocotools, of two rounded quotients.

    Args:
        objects: B, numbers of objects.
        recalls: R, increasing from 0 to 1.

    Returns:
        B x R; without objects the numbers mean nothing.
    """
    number = np.maximum(objects, 1)[:, None]
    needed = np.ceil(recalls[None] * number).astype(np.int64)
    # The product is rounded as well, so the true number may be one less or one more.
    needed -= (needed > 0) & ((needed - 1) / number >= recalls)
    needed += needed / number < recalls
    return needed


def first_at_least(
    rising: NDArray[np.int64], wanted: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the first index in each row whose value is at least each wanted one.

    Args:
        rising: B x K, rows that never fall.
        wanted: B x R.

    Returns:
        B x R, K where there is none.
    """
    rows, length = rising.shape
    # Rows are moved apart, so that one sorted search serves all.
    apart = int(max(rising.max(initial=0), wanted.max(initial=0))) + 1
    offset = apart * np.arange(rows, dtype=np.int64)[:, None]
    place = np.searchsorted((rising + offset).ravel(), (wanted + offset).ravel(), side='left')
    return place.reshape(wanted.shape) - length * np.arange(rows)[:, None]

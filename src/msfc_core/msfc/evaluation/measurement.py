"""Runs variants over the same images, and what each reached.

A run takes over what an earlier one has in its journals, and adds bootstrap intervals from the
same resampled sets of images for all variants.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from msfc.data import CocoDataset
from msfc.data.digests import picture_digests
from msfc.evaluation.bootstrap import (
    CONFIDENCE,
    MEASURES,
    BootstrapResult,
    Interval,
    bootstrap_precision,
)
from msfc.evaluation.coco_map import to_coco_results
from msfc.evaluation.variants import SourceImage, Variant
from msfc.evaluation.versions import library_versions
from msfc.journal import Journal, journal_path
from msfc.progress import Progress
from msfc.wire.accounting import bits_per_pixel, payload_bpfe


@dataclass(frozen=True)
class Measurement:
    """What a variant reached.

    Attributes:
        variant: its name.
        images: number of images.
        precision: box and mask average precision with bootstrap replicates.
        payload_bytes: mean per image; None if nothing is sent.
        message_bytes: mean bytes of the whole message.
        payload_bpfe: mean payload bits per element of the uncompressed pyramid.
        bits_per_pixel: mean payload bits per pixel of the source image.
        encode_seconds: mean of what an image's encoder took, by the clock of the machine that
            measured; None if it is no image that is sent.
    """

    variant: str
    images: int
    precision: BootstrapResult
    payload_bytes: float | None
    message_bytes: float | None
    payload_bpfe: float | None
    bits_per_pixel: float | None
    encode_seconds: float | None = None

    def interval(self, measure: str, confidence: float = CONFIDENCE) -> Interval:
        """Return one of ``MEASURES`` with its interval."""
        return self.precision.interval(measure, confidence)

    def to_dict(self, reference: Measurement | None = None) -> dict[str, Any]:
        """Return JSON-serialisable values; NaN becomes None.

        Args:
            reference: if given, the differences to it are there too, with paired intervals.
        """
        row: dict[str, Any] = {
            'variant': self.variant,
            'images': self.images,
            'payload_bytes': self.payload_bytes,
            'message_bytes': self.message_bytes,
            'payload_bpfe': self.payload_bpfe,
            'bits_per_pixel': self.bits_per_pixel,
            'encode_seconds': self.encode_seconds,
        }
        for measure in MEASURES:
            row[measure] = json_interval(self.interval(measure))
            if reference is not None:
                row[f'{measure}_change'] = json_interval(
                    self.precision.difference(reference.precision, measure)
                )
        return row


def json_interval(interval: Interval) -> dict[str, float | None]:
    """Return an interval as JSON has it: what is no finite number becomes None."""
    return {
        name: value if abs(value) < float('inf') else None
        for name, value in interval.to_dict().items()
    }


@torch.inference_mode()
def measure(
    dataset: CocoDataset,
    variants: Sequence[Variant],
    image_ids: Sequence[int] | None = None,
    journals: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    replicates: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
    computed: Progress | None = None,
) -> list[Measurement]:
    """Measure variants on the same images.

    Args:
        dataset: what to measure on; its classes must be the detectors'.
        variants: what to measure.
        image_ids: images to measure on; all by default.
        journals: folder of what is finished, to resume an interrupted run; none is kept by
            default.
        settings: all that results depend on besides a variant's name, such as models and noise.
            With other settings, other categories or other versions of what computes, nothing is
            taken over from the journals; of an image nothing if its file has other contents.
        replicates: bootstrap replicates.
        seed: of the bootstrap.
        progress: called with (pairs of image and variant done, pairs in all).
        computed: called with (variants whose precision and intervals are computed, variants).

    Returns:
        A measurement per variant, in their order.

    Raises:
        ValueError: two variants have one name or are the same, the classes differ, or an image is
            unknown.
    """
    files = _journal_files(variants, {**(settings or {}), **_surroundings(dataset)})
    _check_classes(variants, dataset)
    chosen = _choose_images(dataset, image_ids)
    for variant in variants:
        _prepare_detector(variant)
    with ExitStack() as stack:
        folder = journals or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        books = [stack.enter_context(Journal(folder / path)) for path in files]
        keys = _journal_keys(dataset, chosen)
        _run_variants(dataset, variants, books, keys, progress)
        measured = []
        for variant, book in zip(variants, books, strict=True):
            measured.append(
                _summarize(variant.name, book, dataset, keys, replicates, seed)
            )
            if computed:
                computed(len(measured), len(books))
        return measured


def _journal_files(variants: Sequence[Variant], settings: Mapping[str, Any]) -> list[Path]:
    """Return the variants' journals, relative to their folder.

    Raises:
        ValueError: two variants have one name, or are the same.
    """
    names = [variant.name for variant in variants]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f'two variants are named {", ".join(twice)}')
    files = [
        journal_path(
            Path(), variant.key or variant.name,
            {**settings, **variant.depends, 'device': variant.detector.device.type},
        )
        for variant in variants
    ]
    for index, path in enumerate(files):
        first = files.index(path)
        if first < index:
            raise ValueError(f'{names[first]} and {names[index]} are the same: leave one out')
    return files


def _surroundings(dataset: CocoDataset) -> dict[str, Any]:
    """Return what else than variants and images decides results."""
    return {'categories': dataset.category_ids, 'versions': library_versions()}


def _journal_keys(dataset: CocoDataset, image_ids: Sequence[int]) -> dict[int, str]:
    """Return by what a journal knows each image: its id, and what is in its file."""
    places = {image_id: index for index, image_id in enumerate(dataset.image_ids)}
    paths = [dataset.image_path(places[image_id]) for image_id in image_ids]
    return {
        image_id: f'{image_id} {digest}'
        for image_id, digest in zip(image_ids, picture_digests(paths), strict=True)
    }


def _check_classes(variants: Sequence[Variant], dataset: CocoDataset) -> None:
    for variant in variants:
        if tuple(variant.detector.class_names) != dataset.class_names:
            raise ValueError(
                f'{variant.name}: the detector knows {", ".join(variant.detector.class_names)}; '
                f'the data set has {", ".join(dataset.class_names)}'
            )


def _choose_images(dataset: CocoDataset, image_ids: Sequence[int] | None) -> list[int]:
    """Return the ids in order, each once.

    Raises:
        ValueError: the data set lacks one.
    """
    known = set(dataset.image_ids)
    chosen = sorted(known if image_ids is None else set(image_ids))
    unknown = [image_id for image_id in chosen if image_id not in known]
    if unknown:
        raise ValueError(f'the data set has no image {unknown[0]}')
    return chosen


def _prepare_detector(variant: Variant) -> None:
    variant.detector.eval()
    if variant.detector.device.type == 'cpu':
        variant.detector.to(memory_format=torch.channels_last)  # faster there


def _run_variants(
    dataset: CocoDataset,
    variants: Sequence[Variant],
    books: Sequence[Journal],
    keys: Mapping[int, str],
    progress: Progress | None,
) -> None:
    """Write what each journal lacks of each image."""
    places = {image_id: index for index, image_id in enumerate(dataset.image_ids)}
    total = len(keys) * len(books)
    done = sum(key in book for key in keys.values() for book in books)
    if progress:
        progress(done, total)
    # Encoders keep one core busy each; the detector works on what they have finished.
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for image_id, key in keys.items():
            todo = [
                (variant, book)
                for variant, book in zip(variants, books, strict=True)
                if key not in book
            ]
            if not todo:
                continue
            source = SourceImage(image_id, dataset.read_image(places[image_id]))
            prepared = [pool.submit(variant.prepare, source) for variant, _ in todo]
            for (variant, book), ready in zip(todo, prepared, strict=True):
                ready.result()
                book.write(key, _record(variant, source, dataset.category_ids))
                done += 1
                if progress:
                    progress(done, total)
    finally:
        pool.shutdown(cancel_futures=True)


def replicates_of(
    measurements: Sequence[Measurement], measure_name: str
) -> NDArray[np.float64]:
    """Return the bootstrap replicates of several measurements, S x B."""
    return np.stack([entry.precision.replicates[measure_name] for entry in measurements])


def _record(variant: Variant, source: SourceImage, category_ids: Sequence[int]) -> dict[str, Any]:
    """Return what the journal has of an image."""
    outcome = variant.run(source)
    record: dict[str, Any] = {
        'results': to_coco_results(source.image_id, outcome.instances, category_ids),
        'payload_bytes': outcome.payload_bytes,
        'message_bytes': outcome.message_bytes,
        'encode_seconds': outcome.encode_seconds,
    }
    if outcome.payload_bytes is not None:
        # Against the pyramid of the camera's image, whatever size was sent.
        padded = source.batch(variant.detector).sizes.padded
        record['payload_bpfe'] = payload_bpfe(
            outcome.payload_bytes,
            variant.detector.pyramid_sizes(padded),
            variant.detector.feature_channels,
        )
        record['bits_per_pixel'] = bits_per_pixel(outcome.payload_bytes, source.size)
    return record


def _summarize(
    name: str,
    book: Journal,
    dataset: CocoDataset,
    keys: Mapping[int, str],
    replicates: int,
    seed: int,
) -> Measurement:
    """Return the means and the precision over what a journal has of the images."""
    records = [book[key] for key in keys.values()]

    def mean(key: str) -> float | None:
        values = [record[key] for record in records if record.get(key) is not None]
        return sum(values) / len(values) if values else None

    results = [result for record in records for result in record['results']]
    return Measurement(
        variant=name,
        images=len(keys),
        precision=bootstrap_precision(dataset.coco, results, list(keys), replicates, seed),
        payload_bytes=mean('payload_bytes'),
        message_bytes=mean('message_bytes'),
        payload_bpfe=mean('payload_bpfe'),
        bits_per_pixel=mean('bits_per_pixel'),
        encode_seconds=mean('encode_seconds'),
    )

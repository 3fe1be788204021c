"""Ways of getting an image's content to the detector's heads, measured side by side.

A *variant* takes one image and gives the instances found and the bytes that were sent for it:
nothing compressed, the features coded at some bit depth, the features as JPEG, the image by some
codec. :func:`measure` runs any number of them over the same images, goes on where a broken run
ended, and adds bootstrap intervals from the same resampled sets of images for all.
"""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msfc.codecs.msfc.codec import MSFC
from msfc.data import CocoDataset
from msfc.detectors.base import SplitDetector
from msfc.evaluation.bootstrap import (
    CONFIDENCE,
    MEASURES,
    BootstrapResult,
    Interval,
    bootstrap_precision,
)
from msfc.evaluation.coco_map import to_coco_results
from msfc.evaluation.feature_jpeg import FeatureJpeg
from msfc.evaluation.image_codecs import ImageCodec, Picture
from msfc.journal import Journal, journal_path
from msfc.model import SplitModel
from msfc.pipeline import image_to_tensor
from msfc.types import ImageBatch, ImageSizes, Instances, Pyramid, Size
from msfc.wire.accounting import bits_per_pixel, payload_bpfe
from msfc.wire.message_size import compressed_feature_bytes, compressed_image_bytes
from msfc.wire.packing import pack, unpack
from msfc.wire.quantizer import FLOAT_BITS, check_bit_depth, dequantize, quantize

Progress = Callable[[int, int], None]


class Frame:
    """One image on its way; what several variants need is computed once.

    Args:
        image_id: its id in the data set.
        image: H x W x 3 uint8 BGR.
    """

    def __init__(self, image_id: int, image: Picture) -> None:
        self.image_id = image_id
        self.image = image
        self.size: Size = (image.shape[0], image.shape[1])
        self._batches: dict[int, ImageBatch] = {}
        self._pyramids: dict[int, Pyramid] = {}
        self._codes: dict[tuple[int, int], Tensor] = {}
        self._sent: dict[tuple[int, int], tuple[int, Picture]] = {}

    def batch(self, detector: SplitDetector) -> ImageBatch:
        """Return a detector's input."""
        if id(detector) not in self._batches:
            self._batches[id(detector)] = detector.preprocess([image_to_tensor(self.image)])
        return self._batches[id(detector)]

    def pyramid(self, detector: SplitDetector) -> tuple[Pyramid, ImageSizes]:
        """Return a detector's pyramid of the image, not to be changed, and the sizes."""
        batch = self.batch(detector)
        if id(detector) not in self._pyramids:
            self._pyramids[id(detector)] = detector.extract(batch)
        return self._pyramids[id(detector)], batch.sizes

    def code(self, detector: SplitDetector, codec: MSFC) -> Tensor:
        """Return a codec's code of a detector's pyramid, not quantised and not to be changed."""
        key = (id(detector), id(codec))
        if key not in self._codes:
            self._codes[key] = codec.encode(self.pyramid(detector)[0])
        return self._codes[key]

    def sent(self, codec: ImageCodec, quality: int) -> tuple[int, Picture]:
        """Return how many bytes an image codec sends, and the image that comes out."""
        key = (id(codec), quality)
        if key not in self._sent:
            data = codec.encode(self.image, quality)
            self._sent[key] = len(data), codec.decode(data, self.size)
        return self._sent[key]


@dataclass(frozen=True)
class Outcome:
    """What a variant made of an image.

    Attributes:
        instances: in the image's own pixels.
        payload_bytes: bytes that say what is in the image; None if nothing is sent.
        message_bytes: bytes of the whole ROS message; None if there is none of that kind.
    """

    instances: Instances
    payload_bytes: int | None = None
    message_bytes: int | None = None


class Variant(ABC):
    """A way of getting an image's content to a detector's heads.

    Attributes:
        name: unique among the variants of a run.
        detector: whose heads they are; bits per feature element are of its pyramid.
        key: what journals know it by; its name if empty.
        depends: what its results depend on besides that and a run's settings, such as a model's
            weights; JSON-serialisable.
    """

    name: str
    detector: SplitDetector
    key: str = ''
    depends: Mapping[str, Any] = MappingProxyType({})

    def prepare(self, frame: Frame) -> None:  # noqa: B027
        """Do what needs no detector; another thread may call this before ``run``."""

    @abstractmethod
    def run(self, frame: Frame) -> Outcome:
        """Detect what is in an image; call it in ``torch.inference_mode``."""


class Uncompressed(Variant):
    """The detector as it is.

    Args:
        detector: the detector.
        name: of the variant.
        identity: of the detector's weights, where a run's settings do not say: then a journal
            knows the variant by it, whatever its name.
    """

    def __init__(
        self, detector: SplitDetector, name: str = 'uncompressed', identity: str = ''
    ) -> None:
        self.name, self.detector = name, detector
        if identity:
            self.key, self.depends = 'uncompressed', {'weights': identity}

    def run(self, frame: Frame) -> Outcome:
        """Detect what is in an image."""
        pyramid, sizes = frame.pyramid(self.detector)
        return Outcome(self.detector.infer(pyramid, sizes)[0])


class Coded(Variant):
    """The features coded by the model's codec, packed to bytes and unpacked again.

    Args:
        model: with a codec.
        bit_depth: bits per code element; the model's own by default.
        name: of the variant, such as ``n=4`` by default.
        identity: of the model's weights, where a run's settings do not say: then a journal knows
            the variant by it, whatever its name.

    Raises:
        ValueError: the model has no codec, or the bit depth is unknown.
    """

    def __init__(
        self,
        model: SplitModel,
        bit_depth: int | None = None,
        name: str | None = None,
        identity: str = '',
    ) -> None:
        # Layers such as batch norm are to be as the receiver's.
        self._codec = model.eval().codec
        self._bits = check_bit_depth(model.bit_depth if bit_depth is None else bit_depth)
        self.name = name or f'n={self._bits}'
        self.detector = model.detector
        if identity:
            self.key, self.depends = f'n={self._bits}', {'weights': identity}

    def run(self, frame: Frame) -> Outcome:
        """Detect what is in an image."""
        sizes = frame.batch(self.detector).sizes
        code = frame.code(self.detector, self._codec)
        data = pack(quantize(code, self._bits).cpu().numpy(), self._bits)
        symbols = unpack(data, code.numel(), self._bits)
        if self._bits != FLOAT_BITS:
            symbols = symbols.astype('int32')
        values = dequantize(torch.from_numpy(symbols), self._bits)
        rebuilt = self._codec.decode(
            values.reshape(code.shape).to(code.device), self.detector.pyramid_sizes(sizes.padded)
        )
        (found,) = self.detector.infer(rebuilt, sizes)
        return Outcome(found, len(data), compressed_feature_bytes(len(data)))


class FeaturesAsJpeg(Variant):
    """The paper's baseline: the features as one JPEG.

    Args:
        detector: the detector.
        codec: quality and what else there is to choose.
    """

    def __init__(self, detector: SplitDetector, codec: FeatureJpeg) -> None:
        aligned = ', aligned' if codec.block_aligned else ''
        self.name = f'feature JPEG per {codec.scope}{aligned} q={codec.quality}'
        self.detector, self._codec = detector, codec

    def run(self, frame: Frame) -> Outcome:
        """Detect what is in an image."""
        pyramid, sizes = frame.pyramid(self.detector)
        rebuilt, sent = self._codec.compress(pyramid)
        (found,) = self.detector.infer(rebuilt, sizes)
        return Outcome(found, sent, compressed_feature_bytes(sent))


class ImageSent(Variant):
    """The image sent by an image codec, and the whole detector behind the link.

    Args:
        detector: the detector.
        codec: the image codec.
        quality: in the codec's own measure.
    """

    def __init__(self, detector: SplitDetector, codec: ImageCodec, quality: int) -> None:
        self.name = f'{codec.name} q={quality}'
        self.detector, self._codec, self._quality = detector, codec, quality

    def prepare(self, frame: Frame) -> None:
        """Encode and decode the image."""
        frame.sent(self._codec, self._quality)

    def run(self, frame: Frame) -> Outcome:
        """Detect what is in an image."""
        sent, decoded = frame.sent(self._codec, self._quality)
        batch = self.detector.preprocess([image_to_tensor(decoded)])
        # Results in the camera's pixels, also where a smaller image was sent.
        sizes = ImageSizes((frame.size,), batch.sizes.valid, batch.sizes.padded)
        (found,) = self.detector.infer(self.detector.extract(batch), sizes)
        encoding = self._codec.name.split()[0].lower()
        return Outcome(found, sent, compressed_image_bytes(sent, encoding))


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
    """

    variant: str
    images: int
    precision: BootstrapResult
    payload_bytes: float | None
    message_bytes: float | None
    payload_bpfe: float | None
    bits_per_pixel: float | None

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
        journals: folder of what is finished, for going on after a break; none is kept by default.
        settings: all that results depend on besides a variant's name: data set, models, noise.
            With other settings nothing is taken over from the journals.
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
    names = [variant.name for variant in variants]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f'two variants are named {", ".join(twice)}')
    files = [
        journal_path(Path(), variant.key or variant.name, {**(settings or {}), **variant.depends})
        for variant in variants
    ]
    for index, path in enumerate(files):
        first = files.index(path)
        if first < index:
            raise ValueError(f'{names[first]} and {names[index]} are the same: leave one out')
    for variant in variants:
        if tuple(variant.detector.class_names) != dataset.class_names:
            raise ValueError(
                f'{variant.name}: the detector knows {", ".join(variant.detector.class_names)}; '
                f'the data set has {", ".join(dataset.class_names)}'
            )
        variant.detector.eval()
        if variant.detector.device.type == 'cpu':
            variant.detector.to(memory_format=torch.channels_last)  # faster there
    places = {image_id: index for index, image_id in enumerate(dataset.image_ids)}
    chosen = sorted(places if image_ids is None else set(image_ids))
    unknown = [image_id for image_id in chosen if image_id not in places]
    if unknown:
        raise ValueError(f'the data set has no image {unknown[0]}')

    with ExitStack() as stack:
        folder = journals or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        books = [
            stack.enter_context(Journal(folder / path)) for path in files
        ]
        # Encoders keep one core busy each; the detector works on what they have finished.
        pool = ThreadPoolExecutor(os.cpu_count())
        stack.callback(pool.shutdown, cancel_futures=True)
        done = sum(str(k) in book for k in chosen for book in books)
        if progress:
            progress(done, len(chosen) * len(books))
        for image_id in chosen:
            todo = [
                (variant, book)
                for variant, book in zip(variants, books, strict=True)
                if str(image_id) not in book
            ]
            if not todo:
                continue
            frame = Frame(image_id, dataset.read_image(places[image_id]))
            prepared = [pool.submit(variant.prepare, frame) for variant, _ in todo]
            for (variant, book), ready in zip(todo, prepared, strict=True):
                ready.result()
                book.write(str(image_id), _record(variant, frame, dataset.category_ids))
                done += 1
                if progress:
                    progress(done, len(chosen) * len(books))
        measured = []
        for name, book in zip(names, books, strict=True):
            measured.append(_measurement(name, book, dataset, chosen, replicates, seed))
            if computed:
                computed(len(measured), len(books))
        return measured


def network_size(detector: SplitDetector) -> Callable[[Size], Size]:
    """Return a function from an image's size to that of the network's input without padding."""
    known: dict[Size, Size] = {}

    def of(size: Size) -> Size:
        if size not in known:
            blank = torch.zeros(3, *size, dtype=torch.uint8)
            known[size] = detector.preprocess([blank]).sizes.valid[0]
        return known[size]

    return of


def replicates_of(
    measurements: Sequence[Measurement], measure_name: str
) -> NDArray[np.float64]:
    """Return the bootstrap replicates of several measurements, S x B."""
    return np.stack([entry.precision.replicates[measure_name] for entry in measurements])


def _record(variant: Variant, frame: Frame, category_ids: Sequence[int]) -> dict[str, Any]:
    """Return what the journal has of an image."""
    outcome = variant.run(frame)
    record: dict[str, Any] = {
        'results': to_coco_results(frame.image_id, outcome.instances, category_ids),
        'payload_bytes': outcome.payload_bytes,
        'message_bytes': outcome.message_bytes,
    }
    if outcome.payload_bytes is not None:
        # Against the pyramid of the camera's image, whatever size was sent.
        padded = frame.batch(variant.detector).sizes.padded
        record['payload_bpfe'] = payload_bpfe(
            outcome.payload_bytes,
            variant.detector.pyramid_sizes(padded),
            variant.detector.feature_channels,
        )
        record['bits_per_pixel'] = bits_per_pixel(outcome.payload_bytes, frame.size)
    return record


def _measurement(
    name: str,
    book: Journal,
    dataset: CocoDataset,
    image_ids: Sequence[int],
    replicates: int,
    seed: int,
) -> Measurement:
    records = [book[str(image_id)] for image_id in image_ids]

    def mean(key: str) -> float | None:
        values = [record[key] for record in records if record.get(key) is not None]
        return sum(values) / len(values) if values else None

    results = [result for record in records for result in record['results']]
    return Measurement(
        variant=name,
        images=len(image_ids),
        precision=bootstrap_precision(dataset.coco, results, image_ids, replicates, seed),
        payload_bytes=mean('payload_bytes'),
        message_bytes=mean('message_bytes'),
        payload_bpfe=mean('payload_bpfe'),
        bits_per_pixel=mean('bits_per_pixel'),
    )

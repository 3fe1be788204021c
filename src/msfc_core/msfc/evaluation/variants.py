"""Ways of getting an image's content to the detector's heads, measured side by side.

A *variant* takes one image and gives the instances found and the bytes that were sent for it:
nothing compressed, the features coded at some bit depth, the features as JPEG, the image by some
codec. :func:`msfc.evaluation.measurement.measure` runs any number of them over the same images.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from msfc.codecs.base import FeatureCodec, transmit
from msfc.detectors.base import SplitDetector
from msfc.evaluation.feature_jpeg import FeatureJpeg
from msfc.evaluation.image_codecs import ImageCodec, Picture
from msfc.model import SplitModel
from msfc.pipeline.torch_network import image_to_tensor
from msfc.types import ImageBatch, ImageSizes, Instances, Pyramid, Size
from msfc.wire.message_size import compressed_feature_bytes, compressed_image_bytes


@dataclass(frozen=True)
class SentImage:
    """What an image codec made of an image.

    Attributes:
        sent: bytes.
        encode_seconds: what the encoder took, by the clock: longer on a busy machine.
        picture: what comes out.
    """

    sent: int
    encode_seconds: float
    picture: Picture


class SourceImage:
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
        self._sent: dict[tuple[int, int], SentImage] = {}

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

    def code(self, detector: SplitDetector, codec: FeatureCodec) -> Tensor:
        """Return a codec's code of a detector's pyramid, not quantised and not to be changed."""
        key = (id(detector), id(codec))
        if key not in self._codes:
            self._codes[key] = codec.analyse(self.pyramid(detector)[0])
        return self._codes[key]

    def sent(self, codec: ImageCodec, quality: int) -> SentImage:
        """Return what an image codec makes of the image."""
        key = (id(codec), quality)
        if key not in self._sent:
            start = time.perf_counter()
            data = codec.encode(self.image, quality)
            seconds = time.perf_counter() - start
            picture = codec.decode(data, self.size, quality)
            self._sent[key] = SentImage(len(data), seconds, picture)
        return self._sent[key]


@dataclass(frozen=True)
class Outcome:
    """What a variant made of an image.

    Attributes:
        instances: in the image's own pixels.
        payload_bytes: bytes that say what is in the image; None if nothing is sent.
        message_bytes: bytes of the whole ROS message; None if there is none of that kind.
        encode_seconds: what an image's encoder took; None if it is no image that is sent.
    """

    instances: Instances
    payload_bytes: int | None = None
    message_bytes: int | None = None
    encode_seconds: float | None = None


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

    def prepare(self, source: SourceImage) -> None:  # noqa: B027
        """Do what needs no detector; another thread may call this before ``run``."""

    @abstractmethod
    def run(self, source: SourceImage) -> Outcome:
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

    def run(self, source: SourceImage) -> Outcome:
        """Detect what is in an image."""
        pyramid, sizes = source.pyramid(self.detector)
        return Outcome(self.detector.infer(pyramid, sizes)[0])


class Coded(Variant):
    """The features coded by the model's codec, made bytes and read again.

    Args:
        model: with a codec.
        rate: one that the codec's coder knows; the model's own by default.
        name: of the variant; that of the rate, such as ``n=4``, by default.
        identity: of the model's weights, where a run's settings do not say: then a journal knows
            the variant by it, whatever its name.

    Raises:
        ValueError: the model has no codec, or the rate is unknown.
    """

    def __init__(
        self,
        model: SplitModel,
        rate: int | None = None,
        name: str | None = None,
        identity: str = '',
    ) -> None:
        # Layers such as batch norm are to be as the receiver's.
        self._codec = model.eval().require_codec()
        self._coder = self._codec.coder()
        self._rate = self._coder.check_rate(model.rate if rate is None else rate)
        self.name = name or self._coder.rate_name(self._rate)
        self.detector = model.detector
        if identity:
            self.key = self._coder.rate_name(self._rate)
            self.depends = {'weights': identity}

    def run(self, source: SourceImage) -> Outcome:
        """Detect what is in an image."""
        sizes = source.batch(self.detector).sizes
        code = source.code(self.detector, self._codec)
        received, (data,) = transmit(self._coder, code, self._rate)
        rebuilt = self._codec.synthesise(received, self.detector.pyramid_sizes(sizes.padded))
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

    def run(self, source: SourceImage) -> Outcome:
        """Detect what is in an image."""
        pyramid, sizes = source.pyramid(self.detector)
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
        self.depends = {'encoder': dict(codec.effort)}
        self.detector, self._codec, self._quality = detector, codec, quality

    def prepare(self, source: SourceImage) -> None:
        """Encode and decode the image."""
        source.sent(self._codec, self._quality)

    def run(self, source: SourceImage) -> Outcome:
        """Detect what is in an image."""
        image = source.sent(self._codec, self._quality)
        batch = self.detector.preprocess([image_to_tensor(image.picture)])
        # Results in the camera's pixels, also where a smaller image was sent.
        sizes = ImageSizes((source.size,), batch.sizes.valid, batch.sizes.padded)
        (found,) = self.detector.infer(self.detector.extract(batch), sizes)
        encoding = self._codec.name.split()[0].lower()
        return Outcome(
            found, image.sent, compressed_image_bytes(image.sent, encoding), image.encode_seconds
        )


def network_size(detector: SplitDetector) -> Callable[[Size], Size]:
    """Return a function from an image's size to that of the network's input without padding."""
    known: dict[Size, Size] = {}

    def of(size: Size) -> Size:
        if size not in known:
            blank = torch.zeros(3, *size, dtype=torch.uint8)
            known[size] = detector.preprocess([blank]).sizes.valid[0]
        return known[size]

    return of

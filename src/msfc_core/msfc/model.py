"""A split detector together with its codec, and the fingerprint that names the pair."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from msfc.codecs.base import FeatureCodec, transmit
from msfc.detectors.base import SplitDetector
from msfc.types import Instances, Pyramid, PyramidHook, Size
from msfc.wire.accounting import payload_bpfe
from msfc.wire.coder import CodeShape
from msfc.wire.packet import FINGERPRINT_DIGITS, PacketSpec

EDGE_CODEC_MODULE = 'analysis'
"""Name of the codec's module that only the sender uses."""

EDGE_DETECTOR_MODULE = 'backbone'
"""Name of the detector's module that only the sender uses: backbone and FPN."""


class SplitModel(nn.Module):
    """A split detector with a codec between its halves.

    Args:
        detector: the detector.
        codec: the codec; without one the model can be trained and measured, but not sent.
        rate: the default rate, one that the codec's coder knows; the codec's own if not given.
            It means nothing, and is 0, without a codec.

    Raises:
        ValueError: if the codec does not fit the detector's pyramid, or does not know the rate.
    """

    def __init__(
        self,
        detector: SplitDetector,
        codec: FeatureCodec | None = None,
        rate: int | None = None,
    ) -> None:
        super().__init__()
        if codec is not None:
            _check_fit(detector, codec)
        self.detector = detector
        self.codec = codec
        self.rate = 0 if codec is None else _known_rate(codec, rate)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; a label is an index into them."""
        return tuple(self.detector.class_names)

    def require_codec(self) -> FeatureCodec:
        """Return the codec.

        Raises:
            ValueError: if the model has none.
        """
        if self.codec is None:
            raise ValueError('the model has no codec: it was trained as a plain detector')
        return self.codec

    @property
    def fingerprint(self) -> str:
        """The model's name on the wire, as :func:`compute_fingerprint`.

        Hashes all decoder weights at each use (tenths of a second for a large model), since they
        may have been trained in between: keep it where it is needed often.
        """
        return compute_fingerprint(self.config(), self.state_dict())

    def config(self) -> dict[str, Any]:
        """Return the architecture as JSON-serialisable values."""
        return {
            'detector': self.detector.config(),
            'codec': None if self.codec is None else self.codec.config(),
            'class_names': list(self.class_names),
        }

    def code_shape(self, padded: Size) -> CodeShape:
        """Return channels, height and width of the code for a padded network input size."""
        return self.require_codec().code_shape(self.detector.pyramid_sizes(padded))

    def packet_spec(self) -> PacketSpec:
        """Return what this model's decoder accepts, as its weights are now."""
        codec = self.require_codec()
        return PacketSpec(
            model=self.fingerprint,
            channels=codec.code_channels,
            size_divisibility=self.detector.size_divisibility,
            feature_size=lambda padded: self.code_shape(padded)[1:],
            coder=codec.coder(),
        )

    def payload_bytes(self, padded: Size, rate: int | None = None) -> float:
        """Return the payload length in bytes to expect of one image of this padded size.

        It is exact where the coding gives all payloads one length, as the packed one does.
        """
        coder = self.require_codec().coder()
        return coder.expected_bytes(
            self.code_shape(padded), self.rate if rate is None else rate
        )

    def bpfe(self, padded: Size, rate: int | None = None) -> float:
        """Return the payload's bits per feature element of one image of this padded size."""
        sizes = self.detector.pyramid_sizes(padded)
        return payload_bpfe(
            self.payload_bytes(padded, rate), sizes, self.detector.feature_channels
        )

    def hook(self, rate: int | None = None) -> PyramidHook:
        """Return a function from the extracted pyramid to the one that the receiver rebuilds.

        The code goes through payloads, as between the two pipelines; no gradient does.

        Args:
            rate: one that the codec's coder knows; the model's default if not given.

        Raises:
            ValueError: if the model has no codec or the rate is unknown.
        """
        codec = self.require_codec()
        coder = codec.coder()
        chosen = coder.check_rate(self.rate if rate is None else rate)

        def compress(pyramid: Pyramid) -> Pyramid:
            sizes = {
                level: (features.shape[-2], features.shape[-1])
                for level, features in pyramid.items()
            }
            received, _ = transmit(coder, codec.analyse(pyramid), chosen)
            return codec.synthesise(received, sizes)

        return compress

    @torch.inference_mode()
    def forward(self, images: Sequence[Tensor], rate: int | None = None) -> list[Instances]:
        """Detect instances, through the codec's payloads if the model has a codec.

        The results are those of the two pipelines in :mod:`msfc.pipeline`, for a batch.

        Args:
            images: N tensors 3 x H x W, uint8, RGB; sizes may differ.
            rate: one that the codec's coder knows; the model's default if not given.

        Returns:
            The instances of each image, at its own resolution.
        """
        batch = self.detector.preprocess(images)
        pyramid = self.detector.extract(batch)
        if self.codec is not None:
            pyramid = self.hook(rate)(pyramid)
        return self.detector.infer(pyramid, batch.sizes)


def is_decoder_tensor(name: str) -> bool:
    """Return whether a tensor of a model's state is needed behind the link.

    All are, but those of the codec's analysis and of the detector's backbone. In a detector
    that names its backbone otherwise, the backbone counts as well.

    Args:
        name: dotted name, as in ``SplitModel.state_dict()``.
    """
    parts = name.split('.')
    if parts[0] == 'codec':
        return parts[1] != EDGE_CODEC_MODULE
    return EDGE_DETECTOR_MODULE not in parts


def compute_fingerprint(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the first 16 hexadecimal digits of a SHA-256 over architecture and decoder weights.

    Two models with one fingerprint decode each other's packets to the same result; encoders may
    differ. Floating-point tensors are hashed as float32, into which half precision goes exactly,
    so that a model has one fingerprint whatever precision its file has.

    Args:
        config: the architecture, JSON-serialisable.
        tensors: the model's state by dotted name; others than the decoder's are passed over.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(config, sort_keys=True, separators=(',', ':')).encode())
    for name in sorted(filter(is_decoder_tensor, tensors)):
        tensor = tensors[name].detach().cpu()
        if tensor.is_floating_point():
            values = tensor.float().contiguous().numpy().astype('<f4', copy=False)
        else:
            values = tensor.long().contiguous().numpy().astype('<i8', copy=False)
        shape = ','.join(map(str, tensor.shape))
        digest.update(f'\n{name} {values.dtype.str[1:]} {shape}\n'.encode())
        digest.update(values.tobytes())
    return digest.hexdigest()[:FINGERPRINT_DIGITS]


def _known_rate(codec: FeatureCodec, rate: int | None) -> int:
    return codec.coder().check_rate(codec.default_rate if rate is None else rate)


def _check_fit(detector: SplitDetector, codec: FeatureCodec) -> None:
    if codec.channels != detector.feature_channels:
        raise ValueError(
            f'the codec takes {codec.channels} channels, the pyramid has '
            f'{detector.feature_channels}'
        )
    levels = tuple(sorted(detector.strides, key=lambda level: detector.strides[level]))
    if codec.levels != levels:
        raise ValueError(
            f'the codec takes levels {", ".join(codec.levels)}, the pyramid has '
            f'{", ".join(levels)}'
        )

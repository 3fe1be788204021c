"""A split detector together with its codec, and the fingerprint that names the pair."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from msfc.codecs.msfc.codec import MSFC
from msfc.detectors.base import SplitDetector
from msfc.types import Instances, Pyramid, PyramidHook, Size
from msfc.wire.accounting import payload_bpfe
from msfc.wire.packet import FINGERPRINT_DIGITS, PacketSpec
from msfc.wire.packing import packed_size
from msfc.wire.quantizer import check_bit_depth, quantize_dequantize

EDGE_CODEC_MODULES = ('msff', 'encoder')
"""The modules of :class:`~msfc.codecs.msfc.codec.MSFC` that only the sender uses."""

EDGE_DETECTOR_MODULE = 'backbone'
"""Name of the detector's module that only the sender uses: backbone and FPN."""

DEFAULT_BIT_DEPTH = 4
"""The paper's operating point, with C' a quarter of the FPN's channels."""


class SplitModel(nn.Module):
    """A split detector with the codec between its halves.

    Args:
        detector: the detector.
        msfc: the codec; without one the model can be trained and measured, but not sent.
        bit_depth: the default bits per code element, one of ``BIT_DEPTHS``.

    Raises:
        ValueError: if the codec does not fit the detector's pyramid.
    """

    def __init__(
        self,
        detector: SplitDetector,
        msfc: MSFC | None = None,
        bit_depth: int = DEFAULT_BIT_DEPTH,
    ) -> None:
        super().__init__()
        if msfc is not None:
            _check_fit(detector, msfc)
        self.detector = detector
        self.msfc = msfc
        self.bit_depth = check_bit_depth(bit_depth)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; a label is an index into them."""
        return tuple(self.detector.class_names)

    @property
    def codec(self) -> MSFC:
        """The codec.

        Raises:
            ValueError: if the model has none.
        """
        if self.msfc is None:
            raise ValueError('the model has no codec: it was trained as a plain detector')
        return self.msfc

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
            'msfc': None if self.msfc is None else self.msfc.config.to_dict(),
            'class_names': list(self.class_names),
        }

    def code_size(self, padded: Size) -> Size:
        """Return height and width of the code in cells for a padded network input size."""
        return self.detector.pyramid_sizes(padded)[self.codec.config.fused_level]

    def packet_spec(self) -> PacketSpec:
        """Return what this model's decoder accepts."""
        return PacketSpec(
            model=self.fingerprint,
            channels=self.codec.config.code_channels,
            size_divisibility=self.detector.size_divisibility,
            feature_size=self.code_size,
        )

    def payload_bytes(self, padded: Size, bit_depth: int | None = None) -> int:
        """Return the payload length in bytes of one image of this padded size."""
        height, width = self.code_size(padded)
        return packed_size(
            self.codec.config.code_channels * height * width,
            self.bit_depth if bit_depth is None else bit_depth,
        )

    def bpfe(self, padded: Size, bit_depth: int | None = None) -> float:
        """Return the payload's bits per feature element of one image of this padded size."""
        sizes = self.detector.pyramid_sizes(padded)
        return payload_bpfe(
            self.payload_bytes(padded, bit_depth), sizes, self.detector.feature_channels
        )

    def hook(self, bit_depth: int | None = None) -> PyramidHook:
        """Return a function from the extracted pyramid to the one that the receiver rebuilds.

        Args:
            bit_depth: bits per code element, 32 for none lost; the model's default if not given.

        Raises:
            ValueError: if the model has no codec or the bit depth is unknown.
        """
        codec = self.codec
        bits = check_bit_depth(self.bit_depth if bit_depth is None else bit_depth)

        def compress(pyramid: Pyramid) -> Pyramid:
            sizes = {
                level: (features.shape[-2], features.shape[-1])
                for level, features in pyramid.items()
            }
            return codec.decode(quantize_dequantize(codec.encode(pyramid), bits), sizes)

        return compress

    @torch.inference_mode()
    def forward(self, images: Sequence[Tensor], bit_depth: int | None = None) -> list[Instances]:
        """Detect instances, through quantised codes if the model has a codec.

        The results are those of the two pipelines in :mod:`msfc.pipeline`, for a batch.

        Args:
            images: N tensors 3 x H x W, uint8, RGB; sizes may differ.
            bit_depth: bits per code element; the model's default if not given.

        Returns:
            The instances of each image, at its own resolution.
        """
        batch = self.detector.preprocess(images)
        pyramid = self.detector.extract(batch)
        if self.msfc is not None:
            pyramid = self.hook(bit_depth)(pyramid)
        return self.detector.infer(pyramid, batch.sizes)


def is_decoder_tensor(name: str) -> bool:
    """Return whether a tensor of a model's state is needed behind the link.

    All are, but those of the codec's encoder modules and of the detector's backbone. In a detector
    that names its backbone otherwise, the backbone counts as well.

    Args:
        name: dotted name, as in ``SplitModel.state_dict()``.
    """
    parts = name.split('.')
    if parts[0] == 'msfc':
        return parts[1] not in EDGE_CODEC_MODULES
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


def _check_fit(detector: SplitDetector, msfc: MSFC) -> None:
    config = msfc.config
    if config.channels != detector.feature_channels:
        raise ValueError(
            f'the codec takes {config.channels} channels, the pyramid has '
            f'{detector.feature_channels}'
        )
    levels = tuple(sorted(detector.strides, key=lambda level: detector.strides[level]))
    if config.levels != levels:
        raise ValueError(
            f'the codec takes levels {", ".join(config.levels)}, the pyramid has '
            f'{", ".join(levels)}'
        )

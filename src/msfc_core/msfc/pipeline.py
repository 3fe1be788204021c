"""The two halves at work: image to packet on the robot, packet to instances behind the link.

A :class:`CloudPipeline` makes of an :class:`EdgePipeline`'s packets exactly what the model makes
of the images, :meth:`msfc.model.SplitModel.forward`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msfc.model import SplitModel
from msfc.types import ImageSizes, Instances, Size
from msfc.wire.packet import (
    CODING_PACKED,
    DecodeLimits,
    FeaturePacket,
    PacketError,
    RefusalReason,
    validate,
)
from msfc.wire.packing import pack, unpack
from msfc.wire.quantizer import FLOAT_BITS, check_bit_depth, dequantize, quantize


class Stopwatch:
    """Measures stages one after the other, work queued on the device included.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last = self._now()

    def lap(self) -> float:
        """Return the seconds since the last lap or the start."""
        now = self._now()
        seconds, self._last = now - self._last, now
        return seconds

    def _now(self) -> float:
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


class EdgePipeline:
    """Camera image to packet.

    Args:
        model: a model with a codec; it is put into evaluation mode, and on a CPU into the memory
            layout that is fastest there. Its weights must not change while the pipeline is in
            use, as the fingerprint is taken once.
        bit_depth: bits per code element; the model's default if not given.

    Raises:
        ValueError: if the model has no codec or the bit depth is unknown.
    """

    def __init__(self, model: SplitModel, bit_depth: int | None = None) -> None:
        self._model = _prepare(model)
        self._codec = model.codec
        self._fingerprint = model.fingerprint
        self.bit_depth = model.bit_depth if bit_depth is None else bit_depth

    @property
    def model(self) -> SplitModel:
        """The model."""
        return self._model

    @property
    def fingerprint(self) -> str:
        """The model's fingerprint, as in every packet."""
        return self._fingerprint

    @property
    def bit_depth(self) -> int:
        """Bits per code element of the next packets; may be set, to one of ``BIT_DEPTHS``."""
        return self._bit_depth

    @bit_depth.setter
    def bit_depth(self, bits: int) -> None:
        self._bit_depth = check_bit_depth(bits)

    @torch.inference_mode()
    def encode(self, image: NDArray[np.uint8], sequence: int = 0) -> FeaturePacket:
        """Compress one image.

        Args:
            image: H x W x 3, uint8, BGR; any strides, may be read-only.
            sequence: number of the frame, taken modulo 2**32.

        Raises:
            ValueError: if the image is of another kind or empty.
            PacketError: if the network gives values that are not numbers.
        """
        bits = self._bit_depth
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(f'an image is H x W x 3 uint8, got {image.shape} {image.dtype}')
        watch = Stopwatch(self._model.detector.device)
        batch = self._model.detector.preprocess([image_to_tensor(image)])
        preprocess_time = watch.lap()
        pyramid = self._model.detector.extract(batch)
        backbone_time = watch.lap()
        code = self._codec.encode(pyramid)
        encode_time = watch.lap()
        try:
            symbols = quantize(code[0], bits)
        except ValueError as error:
            raise PacketError(RefusalReason.NOT_FINITE, str(error)) from error
        data = pack(symbols.cpu().numpy(), bits)
        pack_time = watch.lap()

        valid, padded = batch.sizes.valid[0], batch.sizes.padded
        return FeaturePacket(
            sequence=sequence % 2**32,
            image_height=image.shape[0],
            image_width=image.shape[1],
            valid_height=valid[0],
            valid_width=valid[1],
            padded_height=padded[0],
            padded_width=padded[1],
            channels=code.shape[1],
            feature_height=code.shape[2],
            feature_width=code.shape[3],
            bit_depth=bits,
            coding=CODING_PACKED,
            model=self._fingerprint,
            preprocess_time=_float32(preprocess_time),
            backbone_time=_float32(backbone_time),
            encode_time=_float32(encode_time),
            pack_time=_float32(pack_time),
            data=data,
        )


@dataclass(frozen=True)
class CloudResult:
    """What became of a packet.

    Attributes:
        instances: the instances at source resolution, on the CPU.
        durations: the receiver's stage times in seconds: ``unpack`` (checks, unpacking,
            dequantising), ``decode`` (SSFC decoder and MSFR), ``infer`` (RPN and heads).
    """

    instances: Instances
    durations: dict[str, float]


class CloudPipeline:
    """Packet to instances.

    Args:
        model: a model with a codec; it is put into evaluation mode, and on a CPU into the memory
            layout that is fastest there. Its weights must not change while the pipeline is in
            use, as the fingerprint is taken once.
        limits: what it is willing to decode.

    Raises:
        ValueError: if the model has no codec.
    """

    def __init__(self, model: SplitModel, limits: DecodeLimits | None = None) -> None:
        self._model = _prepare(model)
        self._codec = model.codec
        self._spec = model.packet_spec()
        self.limits = limits or DecodeLimits()

    @property
    def model(self) -> SplitModel:
        """The model."""
        return self._model

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the packets that can be decoded."""
        return self._spec.model

    def validate(self, packet: FeaturePacket) -> None:
        """Check that a packet can be decoded, see :func:`msfc.wire.packet.validate`.

        Raises:
            PacketError: if it cannot.
        """
        validate(packet, self._spec, self.limits)

    def decode(self, packet: FeaturePacket) -> CloudResult:
        """Detect the instances in the image that a packet was made of.

        Args:
            packet: a packet from anywhere.

        Raises:
            PacketError: if it cannot be decoded; nothing has been allocated then.
        """
        (result,) = self.decode_batch([packet])
        return result

    def decode_batch(self, packets: Sequence[FeaturePacket]) -> list[CloudResult]:
        """Detect the instances in several images; those of one network input size at once.

        Args:
            packets: packets from anywhere, at most as many as there is memory for: the limits
                are those of one.

        Returns:
            One result per packet, in their order; of what was done at once each has its share of
            the durations.

        Raises:
            PacketError: if one cannot be decoded; nothing has been allocated then.
        """
        for packet in packets:
            self.validate(packet)
        groups: defaultdict[tuple[Size, int], list[int]] = defaultdict(list)
        for index, packet in enumerate(packets):
            most = self.limits.max_instances(packet.image_size)
            groups[packet.padded_size, most].append(index)
        results: dict[int, CloudResult] = {}
        for (_, most), indices in groups.items():
            together = self._decode([packets[index] for index in indices], most)
            results.update(zip(indices, together, strict=True))
        return [results[index] for index in range(len(packets))]

    @torch.inference_mode()
    def _decode(self, packets: Sequence[FeaturePacket], most: int) -> list[CloudResult]:
        """Decode checked packets of one network input size."""
        detector = self._model.detector
        watch = Stopwatch(detector.device)
        codes = [_read_code(packet) for packet in packets]
        code = (codes[0] if len(codes) == 1 else torch.cat(codes)).to(detector.device)
        durations = {'unpack': watch.lap()}
        padded = packets[0].padded_size
        pyramid = self._codec.decode(code, detector.pyramid_sizes(padded))
        durations['decode'] = watch.lap()
        sizes = ImageSizes(
            source=tuple(packet.image_size for packet in packets),
            valid=tuple(packet.valid_size for packet in packets),
            padded=padded,
        )
        found = [
            Instances(one.boxes.cpu(), one.scores.cpu(), one.labels.cpu(), one.masks.cpu())
            for one in detector.infer(pyramid, sizes, most)
        ]
        durations['infer'] = watch.lap()
        share = {stage: seconds / len(packets) for stage, seconds in durations.items()}
        return [CloudResult(instances, share) for instances in found]


def image_to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """Convert a camera image to the detectors' convention.

    Args:
        image: H x W x 3, uint8, BGR.

    Returns:
        3 x H x W, uint8, RGB, in memory of its own.
    """
    return torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)


def _prepare(model: SplitModel) -> SplitModel:
    """Put a model into evaluation mode and, on a CPU, its kernels into channels-last layout."""
    model.eval()
    if model.detector.device.type == 'cpu':
        # A sixth off every stage with convolutions (ResNet-18-FPN at 640 x 480, x86).
        model.to(memory_format=torch.channels_last)
    return model


def _read_code(packet: FeaturePacket) -> Tensor:
    """Return the code of a checked packet, 1 x C' x h x w float32."""
    symbols = unpack(packet.data, packet.elements, packet.bit_depth)
    if packet.bit_depth != FLOAT_BITS:
        symbols = symbols.astype(np.int32)  # torch has few operators for uint16
    values = dequantize(torch.from_numpy(symbols), packet.bit_depth)
    return values.reshape(1, packet.channels, *packet.feature_size)


def _float32(seconds: float) -> float:
    """Return a duration as the message carries it."""
    return float(np.float32(seconds))

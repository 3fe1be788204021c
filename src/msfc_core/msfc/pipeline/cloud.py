"""Packet to instances: a coder reads the code, the model finds the instances."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from msfc.model import SplitModel
from msfc.pipeline.torch_network import device_stopwatch, prepare_model
from msfc.types import ImageSizes, Instances, Size
from msfc.wire.packet import (
    DecodeLimits,
    FeaturePacket,
    PacketError,
    RefusalReason,
    ValidPacket,
    validate,
)


@dataclass(frozen=True)
class CloudResult:
    """What became of a packet.

    Attributes:
        instances: the instances at source resolution, on the CPU.
        durations: the receiver's stage times in seconds: ``unpack`` (reading the payload),
            ``decode`` (the codec's synthesis), ``infer`` (RPN and heads).
    """

    instances: Instances
    durations: dict[str, float]


class CloudPipeline:
    """Packet to instances.

    A packet is checked once: by :meth:`decode` and :meth:`decode_batch`, or by :meth:`validate`
    for :meth:`decode_valid` to take later.

    Args:
        model: a model with a codec; it is put into evaluation mode, and on a CPU into the memory
            layout that is fastest there. Its weights must not change while the pipeline is in
            use, as fingerprint and coder are taken once.
        limits: what it is willing to decode.

    Raises:
        ValueError: if the model has no codec.
    """

    def __init__(self, model: SplitModel, limits: DecodeLimits | None = None) -> None:
        self._codec = model.require_codec()
        self._model = prepare_model(model)
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

    def validate(self, packet: FeaturePacket) -> ValidPacket:
        """Check that a packet can be decoded, see :func:`msfc.wire.packet.validate`.

        Raises:
            PacketError: if it cannot.
        """
        valid = validate(packet, self._spec, self.limits)
        if packet.reference:
            raise PacketError(
                RefusalReason.MISSING_REFERENCE,
                f'coded against frame {packet.reference}, which is not known here',
            )
        return valid

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
        """Detect the instances in several images, as :meth:`decode_valid` does.

        Args:
            packets: packets from anywhere.

        Raises:
            PacketError: if one cannot be decoded; nothing has been allocated then.
        """
        return self.decode_valid([self.validate(packet) for packet in packets])

    def decode_valid(self, packets: Sequence[ValidPacket]) -> list[CloudResult]:
        """Detect the instances in several images; those of one network input size at once.

        Args:
            packets: what :meth:`validate` returned, at most as many as there is memory for: the
                limits are those of one.

        Returns:
            One result per packet, in their order; of what was done at once each has its share of
            the durations.

        Raises:
            ValueError: if one was checked by another pipeline.
            PacketError: if reading a payload shows that it cannot be decoded.
        """
        if any(valid.spec is not self._spec for valid in packets):
            raise ValueError('a packet that was checked for another pipeline')
        groups: defaultdict[tuple[Size, int], list[int]] = defaultdict(list)
        for index, valid in enumerate(packets):
            groups[valid.packet.padded_size, valid.max_instances].append(index)
        results: dict[int, CloudResult] = {}
        for (_, most), indices in groups.items():
            together = self._decode([packets[index].packet for index in indices], most)
            results.update(zip(indices, together, strict=True))
        return [results[index] for index in range(len(packets))]

    @torch.inference_mode()
    def _decode(self, packets: Sequence[FeaturePacket], most: int) -> list[CloudResult]:
        """Decode checked packets of one network input size."""
        detector, coder = self._model.detector, self._spec.coder
        watch = device_stopwatch(detector.device)
        codes = [coder.read(one.data, one.code_shape, one.rate) for one in packets]
        code = torch.from_numpy(np.stack(codes)).to(detector.device)
        durations = {'unpack': watch.lap()}
        padded = packets[0].padded_size
        pyramid = self._codec.synthesise(code, detector.pyramid_sizes(padded))
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

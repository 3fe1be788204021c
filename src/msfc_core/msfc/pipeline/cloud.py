"""Packet to instances: a coder reads the code, the model finds the instances."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from msfc.heads.base import PyramidHead
from msfc.model import SplitModel
from msfc.pipeline.references import KeyStore
from msfc.pipeline.torch_network import device_stopwatch, prepare_model
from msfc.types import ImageSizes, Instances, Pyramid, Size
from msfc.wire.coder import Code, Key
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
            ``decode`` (the codec's synthesis), ``infer`` (RPN and heads), and ``heads`` where
            further ones were asked for.
        outputs: what further heads made of the image, by their ``output``, on the CPU.
    """

    instances: Instances
    durations: dict[str, float]
    outputs: dict[str, Tensor] = field(default_factory=dict)


class CloudPipeline:
    """Packet to instances.

    A packet is checked once: by :meth:`decode` and :meth:`decode_batch`, or by :meth:`validate`
    for :meth:`decode_valid` to take later.

    Args:
        model: a model with a codec; it is put into evaluation mode, and on a CPU into the memory
            layout that is fastest there. Its weights must not change while the pipeline is in
            use, as fingerprint and coder are taken once.
        limits: what it is willing to decode.

    Attributes:
        limits: what it is willing to decode.
        heads: further heads of the model by their ``output``, see
            :func:`msfc.heads.head_file.load_heads`; none at first.

    Raises:
        ValueError: if the model has no codec.
    """

    def __init__(self, model: SplitModel, limits: DecodeLimits | None = None) -> None:
        self._codec = model.require_codec()
        self._model = prepare_model(model)
        self._spec = model.packet_spec()
        self.limits = limits or DecodeLimits()
        self.heads: dict[str, PyramidHead] = {}

    @property
    def model(self) -> SplitModel:
        """The model."""
        return self._model

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the packets that can be decoded."""
        return self._spec.model

    def validate(self, packet: FeaturePacket, keys: KeyStore | None = None) -> ValidPacket:
        """Check that a packet can be decoded: :meth:`check` and :meth:`resolve` in one.

        Args:
            packet: a packet from anywhere.
            keys: the key frames of its sender; without any, packets that refer are refused.

        Raises:
            PacketError: if it cannot.
        """
        return self.resolve(self.check(packet), keys)

    def check(self, packet: FeaturePacket) -> ValidPacket:
        """Check all of a packet but its reference, see :func:`msfc.wire.packet.validate`.

        Args:
            packet: a packet from anywhere.

        Raises:
            PacketError: if it cannot be decoded.
        """
        return validate(packet, self._spec, self.limits)

    def check_read(self, packet: FeaturePacket) -> ValidPacket:
        """Check a packet whose payload was read elsewhere: all but payload and reference.

        Args:
            packet: a packet from anywhere.

        Raises:
            PacketError: if it cannot be decoded.
        """
        return validate(packet, self._spec, self.limits, payload=False)

    def resolve(self, valid: ValidPacket, keys: KeyStore | None = None) -> ValidPacket:
        """Return a packet with the key frame that it refers to.

        A key frame is read at once, if there is a store, and kept there: what refers to it can be
        decoded, whatever becomes of the key frame itself. Of a packet that refers to one, the
        key frame is looked up; where it is missing the store takes note.

        Args:
            valid: what :meth:`check` returned.
            keys: the key frames of its sender; without any, packets that refer are refused.

        Raises:
            PacketError: if it cannot be decoded.
        """
        packet = valid.packet
        if packet.refers:
            return replace(valid, key=self._find_key(packet, keys))
        if keys is None or not packet.is_key:
            return valid
        code, key = self._spec.coder.read_key(packet.data, packet.code_shape, packet.rate)
        keys.add(packet.sequence, key)
        return replace(valid, code=code)

    def _find_key(self, packet: FeaturePacket, keys: KeyStore | None) -> Key:
        """Return the key frame that a packet is coded against.

        Raises:
            PacketError: if it is not here, or another one than the sender had.
        """
        key = None if keys is None else keys.find(packet.reference)
        problem = 'which is not known here'
        if key is not None:
            if key.shape != packet.code_shape:
                problem = 'but the one known here is of another size'
            elif not self._spec.coder.refers_to(packet.data, key):
                problem = 'but the one known here is another'
            else:
                return key
        if keys is not None:
            keys.miss()
        raise PacketError(
            RefusalReason.MISSING_REFERENCE,
            f'coded against frame {packet.reference}, {problem}',
        )

    def decode(self, packet: FeaturePacket, keys: KeyStore | None = None) -> CloudResult:
        """Detect the instances in the image that a packet was made of.

        Args:
            packet: a packet from anywhere.
            keys: the key frames of its sender, see :meth:`validate`.

        Raises:
            PacketError: if it cannot be decoded; nothing has been allocated then.
        """
        (result,) = self.decode_valid([self.validate(packet, keys)])
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
        return self.decode_with(packets, [()] * len(packets))

    def decode_with(
        self, packets: Sequence[ValidPacket], wanted: Sequence[Collection[str]]
    ) -> list[CloudResult]:
        """Do what :meth:`decode_valid` does, and ask further heads as well.

        Args:
            packets: what :meth:`validate` returned.
            wanted: for each, names of :attr:`heads`.

        Returns:
            One result per packet, in their order.

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
            together = self._decode(
                [packets[index] for index in indices], most, [wanted[index] for index in indices]
            )
            results.update(zip(indices, together, strict=True))
        return [results[index] for index in range(len(packets))]

    @torch.inference_mode()
    def _decode(
        self, valid: Sequence[ValidPacket], most: int, wanted: Sequence[Collection[str]]
    ) -> list[CloudResult]:
        """Decode checked packets of one network input size."""
        detector = self._model.detector
        watch = device_stopwatch(detector.device)
        codes = [self.read(one) for one in valid]
        packets = [one.packet for one in valid]
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
        found = [one.cpu() for one in detector.infer(pyramid, sizes, most)]
        durations['infer'] = watch.lap()
        outputs = self._ask_heads(pyramid, sizes, wanted)
        if any(outputs):
            durations['heads'] = watch.lap()
        share = {stage: seconds / len(packets) for stage, seconds in durations.items()}
        return [
            CloudResult(instances, share, made)
            for instances, made in zip(found, outputs, strict=True)
        ]

    def _ask_heads(
        self, pyramid: Pyramid, sizes: ImageSizes, wanted: Sequence[Collection[str]]
    ) -> list[dict[str, Tensor]]:
        """Return what the wanted heads make of each image; one looks at its images at once."""
        outputs: list[dict[str, Tensor]] = [{} for _ in wanted]
        for name, head in self.heads.items():
            places = [index for index, names in enumerate(wanted) if name in names]
            if not places:
                continue
            every = len(places) == len(wanted)
            part = pyramid if every else {k: maps[places] for k, maps in pyramid.items()}
            made = head.infer(part, sizes if every else sizes.select(places))
            for index, result in zip(places, made, strict=True):
                outputs[index][name] = result.cpu()
        return outputs

    def read(self, valid: ValidPacket) -> Code:
        """Return the code of a checked packet."""
        if valid.code is not None:
            return valid.code
        packet = valid.packet
        return self._spec.coder.read(packet.data, packet.code_shape, packet.rate, valid.key)

"""The compressed feature packet and everything that a receiver checks before it decodes one.

A :class:`FeaturePacket` has the fields of ``msfc_msgs/CompressedFeature`` but the header. It comes
from the network: :func:`validate` checks it against the model and against limits without
allocating anything that depends on what it says, and refuses it with a :class:`PacketError`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING

from msfc.types import Size
from msfc.wire.packing import Bytes, byte_length

if TYPE_CHECKING:
    from msfc.wire.coder import Code, CodeShape, Key, PayloadCoder

FINGERPRINT_DIGITS = 16
"""Hexadecimal digits of a model fingerprint."""

RESIZE_TOLERANCE = 2
"""Pixels that rounding in a resize may move a side; floor and round move it by less than one."""


class RefusalReason(str, Enum):
    """Why a packet is refused, in one word; what diagnostics count by."""

    FOREIGN_MODEL = 'foreign_model'
    BAD_CODING = 'bad_coding'
    BAD_RATE = 'bad_rate'
    BAD_REFERENCE = 'bad_reference'
    MISSING_REFERENCE = 'missing_reference'
    BAD_CHANNELS = 'bad_channels'
    BAD_IMAGE_SIZE = 'bad_image_size'
    BAD_PADDED_SIZE = 'bad_padded_size'
    BAD_VALID_SIZE = 'bad_valid_size'
    BAD_FEATURE_SIZE = 'bad_feature_size'
    BAD_PAYLOAD_LENGTH = 'bad_payload_length'
    BAD_SPARE_BITS = 'bad_spare_bits'
    BAD_PAYLOAD = 'bad_payload'
    NOT_FINITE = 'not_finite'
    OUT_OF_RANGE = 'out_of_range'
    BAD_TIME = 'bad_time'

    def __str__(self) -> str:
        return self.value


class PacketError(ValueError):
    """A packet that cannot be made or decoded.

    Attributes:
        reason: why, in one word. The message says it in one sentence.
    """

    def __init__(self, reason: RefusalReason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason

    def __reduce__(self) -> tuple[type[PacketError], tuple[RefusalReason, str]]:
        return type(self), (self.reason, str(self))


def _wire(kind: str, unit: str = '') -> dict[str, str]:
    """Return what a field is in the message: its type there, and the unit of its values."""
    return {'type': kind, 'unit': unit}


@dataclass(frozen=True)
class FeaturePacket:
    """One compressed feature map with all that is needed to decode it.

    These are the fields of ``msfc_msgs/CompressedFeature`` without its header: their names, order,
    types and units are defined here, and conversions and sizes follow from it
    (:func:`packet_fields`).

    Attributes:
        sequence: number of the frame, modulo 2**32.
        reference: number of the key frame that this one is coded against; its own if it is a key
            frame itself, which decodes alone; 0 if it is neither.
        image_height: height of the source image in pixels.
        image_width: width of the source image in pixels.
        valid_height: height of the resized image before padding, in pixels.
        valid_width: width of the resized image before padding, in pixels.
        padded_height: height of the network input in pixels.
        padded_width: width of the network input in pixels.
        channels: channels C' of the code.
        feature_height: height of the code in cells.
        feature_width: width of the code in cells.
        rate: what it means is the coding's: for packed payloads n, bits per element.
        coding: payload coding, that of a :class:`~msfc.wire.coder.PayloadCoder`.
        model: fingerprint of the model whose decoder is needed, 16 hexadecimal digits.
        preprocess_time: time that the sender took to resize and pad, in seconds.
        backbone_time: time that the sender took for backbone and FPN, in seconds.
        encode_time: time that the sender took for the codec's network, in seconds.
        pack_time: time that the sender took to make bytes of the code, in seconds.
        data: the payload: bytes, or anything contiguous that exports them without a copy.
    """

    sequence: int = field(metadata=_wire('uint32'))
    reference: int = field(metadata=_wire('uint32'))
    image_height: int = field(metadata=_wire('uint32', 'pixels'))
    image_width: int = field(metadata=_wire('uint32', 'pixels'))
    valid_height: int = field(metadata=_wire('uint32', 'pixels'))
    valid_width: int = field(metadata=_wire('uint32', 'pixels'))
    padded_height: int = field(metadata=_wire('uint32', 'pixels'))
    padded_width: int = field(metadata=_wire('uint32', 'pixels'))
    channels: int = field(metadata=_wire('uint16'))
    feature_height: int = field(metadata=_wire('uint16', 'cells'))
    feature_width: int = field(metadata=_wire('uint16', 'cells'))
    rate: int = field(metadata=_wire('uint8'))
    coding: int = field(metadata=_wire('uint8'))
    model: str = field(metadata=_wire('string'))
    preprocess_time: float = field(metadata=_wire('float32', 'seconds'))
    backbone_time: float = field(metadata=_wire('float32', 'seconds'))
    encode_time: float = field(metadata=_wire('float32', 'seconds'))
    pack_time: float = field(metadata=_wire('float32', 'seconds'))
    data: Bytes = field(repr=False, metadata=_wire('uint8[]'))

    @property
    def is_key(self) -> bool:
        """Whether other frames may be coded against this one."""
        return self.reference == self.sequence != 0

    @property
    def refers(self) -> bool:
        """Whether it is coded against another frame."""
        return self.reference not in (0, self.sequence)

    @property
    def image_size(self) -> Size:
        """Height and width of the source image in pixels."""
        return self.image_height, self.image_width

    @property
    def valid_size(self) -> Size:
        """Height and width of the resized image before padding, in pixels."""
        return self.valid_height, self.valid_width

    @property
    def padded_size(self) -> Size:
        """Height and width of the network input in pixels."""
        return self.padded_height, self.padded_width

    @property
    def feature_size(self) -> Size:
        """Height and width of the code in cells."""
        return self.feature_height, self.feature_width

    @property
    def code_shape(self) -> CodeShape:
        """Channels, height and width in cells of the code."""
        return self.channels, self.feature_height, self.feature_width

    @property
    def elements(self) -> int:
        """Number of elements of the code."""
        return math.prod(self.code_shape)

    @property
    def payload_bytes(self) -> int:
        """Length of the payload in bytes."""
        return byte_length(self.data)

    @property
    def durations(self) -> dict[str, float]:
        """The sender's stage times in seconds, by stage."""
        return {
            entry.name.removesuffix('_time'): getattr(self, entry.name)
            for entry in packet_fields()
            if entry.unit == 'seconds'
        }


@dataclass(frozen=True)
class PacketField:
    """One field of the message.

    Attributes:
        name: in the packet and in the message.
        type: in the message, as ROS names it.
        unit: of its values; empty where they have none.
    """

    name: str
    type: str
    unit: str


@cache
def packet_fields() -> tuple[PacketField, ...]:
    """Return the fields of ``msfc_msgs/CompressedFeature`` behind its header, in their order."""
    return tuple(PacketField(entry.name, **entry.metadata) for entry in fields(FeaturePacket))


@dataclass(frozen=True)
class DecodeLimits:
    """What a receiver is willing to decode; guards its memory against absurd packets.

    Attributes:
        max_image_side: longest side of a source image in pixels.
        max_image_pixels: pixels of a source image; every instance's mask has that many.
        max_padded_side: longest side of the network input in pixels.
        max_payload_bytes: length of the payload in bytes.
        max_mask_pixels: pixels of the masks of all instances of one image, a byte each: most of
            the memory that a packet can ask for. Of more instances the surest are kept.
    """

    max_image_side: int = 4096
    max_image_pixels: int = 4096 * 2304
    max_padded_side: int = 2048
    max_payload_bytes: int = 8 * 2**20
    max_mask_pixels: int = 256 * 2**20

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f'{name} must be at least 1, got {value}')
        if self.max_mask_pixels < self.max_image_pixels:
            raise ValueError(
                f'max_mask_pixels, {self.max_mask_pixels}, leaves no room for a single instance '
                f'in an image of max_image_pixels, {self.max_image_pixels}'
            )

    def max_instances(self, image_size: Size) -> int:
        """Return how many instances of an image may have a mask.

        Args:
            image_size: height and width in pixels, within the limits.
        """
        return self.max_mask_pixels // (image_size[0] * image_size[1])


@dataclass(frozen=True)
class PacketSpec:
    """What a model's decoder accepts.

    Attributes:
        model: fingerprint of the model.
        channels: channels C' of its code.
        size_divisibility: the network input is padded to a multiple of this.
        feature_size: gives the code's size in cells for a padded network input size.
        coder: reads its payloads.
    """

    model: str
    channels: int
    size_divisibility: int
    feature_size: Callable[[Size], Size]
    coder: PayloadCoder


@dataclass(frozen=True)
class ValidPacket:
    """A packet that has passed all checks; :func:`validate` makes these, nobody else.

    Attributes:
        packet: the packet.
        spec: what it was checked against.
        max_instances: how many instances of its image may have a mask.
        key: the key frame that it is coded against; None if it decodes alone.
        code: its code, if it was read already, as key frames are.
    """

    packet: FeaturePacket
    spec: PacketSpec
    max_instances: int
    key: Key | None = field(default=None, repr=False)
    code: Code | None = field(default=None, repr=False)


def validate(
    packet: FeaturePacket,
    spec: PacketSpec,
    limits: DecodeLimits | None = None,
    payload: bool = True,
) -> ValidPacket:
    """Check that a packet can be decoded; takes no memory that depends on what it says.

    Args:
        packet: a packet, as received.
        spec: what the model accepts.
        limits: what the receiver is willing to decode.
        payload: look at the payload too; without, where it was read elsewhere.

    Returns:
        The packet, to be decoded without another check.

    Raises:
        PacketError: if it cannot, with the first reason found.
    """
    limits = limits or DecodeLimits()
    _check_model(packet, spec)
    _check_coding(packet, spec)
    _check_image(packet, limits)
    _check_network_input(packet, spec, limits)
    _check_feature(packet, spec)
    if payload:
        _check_payload(packet, spec.coder, limits)
    _check_times(packet)
    return ValidPacket(packet, spec, limits.max_instances(packet.image_size))


def _check_model(packet: FeaturePacket, spec: PacketSpec) -> None:
    if packet.model != spec.model:
        if not is_fingerprint(packet.model):
            raise PacketError(
                RefusalReason.FOREIGN_MODEL,
                f'the model fingerprint {packet.model[:FINGERPRINT_DIGITS]!r} is not '
                f'{FINGERPRINT_DIGITS} hexadecimal digits',
            )
        raise PacketError(
            RefusalReason.FOREIGN_MODEL,
            f'encoded for model {packet.model}, but the decoder here is of model {spec.model}',
        )


def _check_coding(packet: FeaturePacket, spec: PacketSpec) -> None:
    coder = spec.coder
    if packet.coding != coder.coding:
        raise PacketError(
            RefusalReason.BAD_CODING,
            f'payload coding {packet.coding} is not known here: the model has {coder.coding}',
        )
    if packet.rate not in coder.rates:
        raise PacketError(
            RefusalReason.BAD_RATE,
            f'rate {packet.rate} is not one of {", ".join(map(str, coder.rates))}',
        )
    if packet.reference and not coder.uses_references:
        raise PacketError(
            RefusalReason.BAD_REFERENCE,
            f'refers to frame {packet.reference}, but coding {coder.coding} has no references',
        )
    if packet.channels != spec.channels:
        raise PacketError(
            RefusalReason.BAD_CHANNELS,
            f'the code has {packet.channels} channels, but the model has {spec.channels}',
        )


def _check_image(packet: FeaturePacket, limits: DecodeLimits) -> None:
    height, width = packet.image_size
    if min(height, width) < 1:
        raise PacketError(
            RefusalReason.BAD_IMAGE_SIZE, f'the source image is empty: {_format(height, width)}'
        )
    if max(height, width) > limits.max_image_side or height * width > limits.max_image_pixels:
        raise PacketError(
            RefusalReason.BAD_IMAGE_SIZE,
            f'a source image of {_format(height, width)} pixels is beyond the limits of '
            f'{limits.max_image_side} a side and {limits.max_image_pixels} in all',
        )


def _check_network_input(packet: FeaturePacket, spec: PacketSpec, limits: DecodeLimits) -> None:
    height, width = packet.padded_size
    if min(height, width) < 1 or height % spec.size_divisibility or width % spec.size_divisibility:
        raise PacketError(
            RefusalReason.BAD_PADDED_SIZE,
            f'the network input, {_format(height, width)} pixels, is not a positive multiple of '
            f'{spec.size_divisibility}',
        )
    if max(height, width) > limits.max_padded_side:
        raise PacketError(
            RefusalReason.BAD_PADDED_SIZE,
            f'a network input of {_format(height, width)} pixels is beyond the limit of '
            f'{limits.max_padded_side} a side',
        )
    valid_height, valid_width = packet.valid_size
    if not (1 <= valid_height <= height and 1 <= valid_width <= width):
        raise PacketError(
            RefusalReason.BAD_VALID_SIZE,
            f'the valid part, {_format(valid_height, valid_width)} pixels, does not lie in the '
            f'network input of {_format(height, width)}',
        )
    if not _same_shape(packet.image_size, packet.valid_size):
        raise PacketError(
            RefusalReason.BAD_VALID_SIZE,
            f'the valid part, {_format(valid_height, valid_width)} pixels, is no resized image '
            f'of {_format(*packet.image_size)}',
        )


def _check_feature(packet: FeaturePacket, spec: PacketSpec) -> None:
    expected = spec.feature_size(packet.padded_size)
    if packet.feature_size != tuple(expected):
        raise PacketError(
            RefusalReason.BAD_FEATURE_SIZE,
            f'the code has {_format(*packet.feature_size)} cells, but a network input of '
            f'{_format(*packet.padded_size)} pixels gives {_format(*expected)}',
        )


def _check_payload(packet: FeaturePacket, coder: PayloadCoder, limits: DecodeLimits) -> None:
    length = packet.payload_bytes
    if length > limits.max_payload_bytes:
        raise PacketError(
            RefusalReason.BAD_PAYLOAD_LENGTH,
            f'a payload of {length} bytes is beyond the limit of {limits.max_payload_bytes}',
        )
    coder.check(packet.data, packet.code_shape, packet.rate)


def _check_times(packet: FeaturePacket) -> None:
    for stage, seconds in packet.durations.items():
        if not (math.isfinite(seconds) and seconds >= 0):
            raise PacketError(
                RefusalReason.BAD_TIME, f'the {stage} stage cannot have taken {seconds} s'
            )


def is_fingerprint(text: str) -> bool:
    """Return whether a text is a model fingerprint: 16 lower-case hexadecimal digits."""
    return len(text) == FINGERPRINT_DIGITS and set(text) <= set('0123456789abcdef')


def _same_shape(source: Size, valid: Size) -> bool:
    """Return whether one scale takes ``source`` to ``valid``, but for rounding."""
    slack = RESIZE_TOLERANCE
    return (valid[0] - slack) * source[1] <= (valid[1] + slack) * source[0] and (
        valid[1] - slack
    ) * source[0] <= (valid[0] + slack) * source[1]


def _format(height: int, width: int) -> str:
    """Write a size as rows x columns."""
    return f'{height} x {width}'

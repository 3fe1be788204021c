"""Packets that a receiver must survive, by the million, and meters for what they make it take.

:class:`PacketForge` draws them from a seed, :func:`hostile_packets` is a hypothesis strategy. Both
stay within what the message's field types can carry. ``benchmarks/hostile_packets.py`` uses the
same forge.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any, cast

import numpy as np
import torch
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from detector_models import MODELS
from msfc.codecs.learned import LearnedCodec, LearnedConfig
from msfc.codecs.msfc.codec import MSFC, MSFCConfig
from msfc.model import SplitModel
from msfc.types import Instances, Size
from msfc.wire.coder import Code, Key
from msfc.wire.packet import (
    DecodeLimits,
    FeaturePacket,
    PacketSpec,
    RefusalReason,
    packet_fields,
)
from msfc.wire.packing import packed_size
from msfc.wire.quantizer import BIT_DEPTHS

_STRUCT = {'uint32': 'I', 'uint16': 'H', 'uint8': 'B', 'float32': 'f'}
WIRE_TYPES = {
    field.name: _STRUCT[field.type] for field in packet_fields() if field.type in _STRUCT
}
"""The numbers of CompressedFeature.msg as :mod:`struct` writes them."""

_WIRE = struct.Struct('<' + ''.join(WIRE_TYPES.values()))
_LARGEST = {'I': 2**32 - 1, 'H': 2**16 - 1, 'B': 2**8 - 1}
INTEGERS = tuple(name for name, kind in WIRE_TYPES.items() if kind != 'f')
SIZES = tuple(name for name in INTEGERS if name.endswith(('_height', '_width')))
TIMES = tuple(name for name, kind in WIRE_TYPES.items() if kind == 'f')

INTERESTING = (
    *(0, 1, 2, 3, 4, 8, 16, 31, 32, 33, 63, 64, 255, 256, 2048, 4096, 4097, 32767, 65535, 65536),
    *(2**16 * 32, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 32, 2**32 - 1),
)
"""Values at which integers of some width turn over."""

NOT_NUMBERS = (math.nan, math.inf, -math.inf)
BAD_TIMES = (*NOT_NUMBERS, -1.0, -1e-30, -3.4e38)
FOREIGN_MODELS = (
    '', '0', 'f' * 15, 'f' * 17, 'F' * 16, 'g' * 16, ' ' * 16, '\0' * 16, '\n' * 16, '%s{0}' * 4,
    '\u202e' * 16, '\ud800' * 16, '\U0001f916' * 16, '..' * 8, '٣' * 16, 'x' * 10**5,
)  # fmt: skip

LIMITS = DecodeLimits(
    max_image_side=512, max_image_pixels=256 * 128, max_padded_side=256, max_payload_bytes=4096
)
"""Small, so that what is accepted decodes fast."""

_LONGEST_FORGED = 2**20
"""Bytes; a forged packet never claims so much that the forge itself would take the memory."""

Outcome = RefusalReason | None
"""What becomes of a packet; None is decoded."""

Change = Callable[['PacketForge', FeaturePacket], FeaturePacket]


@dataclass(frozen=True)
class Attack:
    """One way to spoil a packet.

    Attributes:
        change: takes a packet, good or spoiled already, and spoils it.
        outcomes: what may become of a good packet after this attack alone.
    """

    change: Change
    outcomes: frozenset[Outcome]


@dataclass(frozen=True)
class Forged:
    """A packet with what was done to it.

    Attributes:
        packet: the packet.
        attacks: names of the attacks, in their order.
        outcomes: what may become of it.
    """

    packet: FeaturePacket
    attacks: tuple[str, ...]
    outcomes: frozenset[Outcome]


ANYTHING: frozenset[Outcome] = frozenset({None, *RefusalReason})
DECODED: frozenset[Outcome] = frozenset({None})
ATTACKS: dict[str, Attack] = {}
"""All attacks by name."""


CODED_OUTCOMES: dict[str, frozenset[Outcome]] = {
    'payload_bits': frozenset({None, RefusalReason.BAD_PAYLOAD}),
    'swapped_sides': frozenset(
        {None, RefusalReason.BAD_VALID_SIZE, RefusalReason.BAD_FEATURE_SIZE}
    ),
    'truncated': frozenset({None, RefusalReason.BAD_PAYLOAD}),
    'lengthened': frozenset({RefusalReason.BAD_PAYLOAD, RefusalReason.BAD_PAYLOAD_LENGTH}),
    'spare_bits_set': frozenset({None, RefusalReason.BAD_PAYLOAD}),
    'not_finite': frozenset({RefusalReason.BAD_RATE}),
    'out_of_range': frozenset({RefusalReason.BAD_RATE}),
    'wrong_rate': frozenset({None, RefusalReason.BAD_RATE, RefusalReason.BAD_PAYLOAD}),
    'reordered': frozenset({None, RefusalReason.BAD_PAYLOAD}),
    'unknown_reference': frozenset({None, RefusalReason.BAD_PAYLOAD}),
    'other_reference': frozenset({None, RefusalReason.BAD_PAYLOAD}),
    'false_digest': frozenset(
        {None, RefusalReason.BAD_PAYLOAD, RefusalReason.BAD_PAYLOAD_LENGTH}
    ),
}
"""Of coding 1, where they are others than those of coding 0: a payload has any length, and may
refer to a key frame, which may not have come: then anything may be a missing reference."""


def side_fields(**sizes: Size) -> dict[str, Any]:
    """Return the fields of a packet that have heights and widths, by what they are of."""
    return {
        f'{name}_{side}': length
        for name, size in sizes.items()
        for side, length in zip(('height', 'width'), size, strict=True)
    }


def attack(outcomes: frozenset[Outcome]) -> Callable[[Change], Change]:
    """Add a function to :data:`ATTACKS` under its own name."""

    def add(change: Change) -> Change:
        ATTACKS[change.__name__] = Attack(change, outcomes)
        return change

    return add


def refused(*reasons: RefusalReason) -> frozenset[Outcome]:
    """Return the outcomes of a packet that is never decoded."""
    return frozenset(reasons)


@dataclass(frozen=True)
class ForgedKey:
    """A key frame: its number, the three sizes of its image, and what can be referred to."""

    sequence: int
    sizes: tuple[Size, Size, Size]
    key: Key


class PacketForge:
    """Draws packets from a seed, always the same ones.

    Args:
        spec: what the model under attack accepts.
        limits: what its receiver accepts.
        seed: of all that is drawn.
    """

    def __init__(self, spec: PacketSpec, limits: DecodeLimits = LIMITS, seed: int = 0) -> None:
        self.spec = spec
        self.limits = limits
        self.random = Random(seed)
        self.seen: deque[FeaturePacket] = deque(maxlen=16)
        self.keys: deque[ForgedKey] = deque(maxlen=4)
        self._untold: list[FeaturePacket] = []
        self._names = tuple(ATTACKS)
        self._sequence = 0

    def draw(self) -> Forged:
        """Return a packet that has suffered one to three attacks, mostly one."""
        packet = self.honest()
        count = self.random.choices((1, 2, 3), (6, 1, 1))[0]
        names = tuple(self.random.choices(self._names, k=count))
        for name in names:
            packet = ATTACKS[name].change(self, packet)
        outcomes = self.outcomes(names[0]) if count == 1 else ANYTHING
        return Forged(packet, names, outcomes)

    def outcomes(self, name: str) -> frozenset[Outcome]:
        """Return what may become of a good packet of this coding after one attack."""
        known = ATTACKS[name].outcomes
        if self.spec.coder.coding == 0:
            return known
        known = CODED_OUTCOMES.get(name, known)
        return known | {RefusalReason.MISSING_REFERENCE} if None in known else known

    def honest(self) -> FeaturePacket:
        """Return a packet that is right in every field; its payload is random."""
        self._sequence = (self._sequence + 1) % 2**32
        refer = bool(self.keys) and self.random.random() < 0.3
        key = self.random.choice(self.keys) if refer else None
        sizes = self._sizes() if key is None else key.sizes
        source, valid, padded = sizes
        feature, reference = self.spec.feature_size(padded), 0
        if self.spec.coder.coding == 0:
            rate, data = self._packed(self.spec.channels * feature[0] * feature[1])
        else:
            rate = self.random.choice(self.spec.coder.rates)
            code = self.code((self.spec.channels, *feature))
            reference, data = self._coded(code, rate, sizes, key)
        packet = FeaturePacket(
            sequence=self._sequence,
            reference=reference,
            **side_fields(image=source, valid=valid, padded=padded, feature=feature),
            channels=self.spec.channels,
            rate=rate,
            coding=self.spec.coder.coding,
            model=self.spec.model,
            preprocess_time=0.001,
            backbone_time=0.03,
            encode_time=0.002,
            pack_time=0.0,
            data=data,
        )
        self.seen.append(packet)
        if packet.is_key:
            self._untold.append(packet)
        return packet

    def new_keys(self) -> list[FeaturePacket]:
        """Return the key frames since the last call as an honest sender's, beside the spoiled."""
        untold, self._untold = self._untold, []
        return untold

    def _packed(self, count: int) -> tuple[int, bytes | array[int]]:
        fitting = [
            bits
            for bits in BIT_DEPTHS
            if packed_size(count, bits) <= self.limits.max_payload_bytes
        ]
        bits = self.random.choice(fitting)
        return bits, self.payload(count, bits)

    def code(self, shape: tuple[int, int, int]) -> Code:
        """Return a random code, quiet or wild."""
        spread = self.random.choice((0.0, 0.1, 1.0, 30.0))
        words = np.frombuffer(self.random.randbytes(4 * math.prod(shape)), '<i4')
        return (words / 2.0**31 * spread).astype(np.float32).reshape(shape)

    def _coded(
        self, code: Code, rate: int, sizes: tuple[Size, Size, Size], key: ForgedKey | None
    ) -> tuple[int, bytes | array[int]]:
        """Return reference and payload of a code: against a key frame, of one, or of neither."""
        coder, reference = self.spec.coder, 0
        if key is not None:
            reference, data = key.sequence, coder.write(code, rate, key.key)
        elif coder.uses_references and self.random.random() < 0.3:
            reference, (data, made) = self._sequence, coder.write_key(code, rate)
            self.keys.append(ForgedKey(reference, sizes, made))
        else:
            data = coder.write(code, rate)
        return reference, array('B', data) if self.random.random() < 0.5 else data

    def payload(self, count: int, bits: int) -> bytes | array[int]:
        """Return random symbols, or random floats of [-1, 1], its ends among them."""
        if bits == 32:
            words = np.frombuffer(self.random.randbytes(4 * count), '<i4')
            values = np.clip(words / 2.0**30, -1, 1).astype('<f4')
            data = values.tobytes()
        else:
            data = self.random.randbytes(packed_size(count, bits))
            used = count * bits % 8
            if used:
                data = data[:-1] + bytes([data[-1] & (1 << used) - 1])
        # A message's payload is an array.
        return array('B', data) if self.random.random() < 0.5 else data

    def integer(self, name: str) -> int:
        """Return an awkward value that a field can carry."""
        largest = _LARGEST[WIRE_TYPES[name]]
        if self.random.random() < 0.2:
            return self.random.randint(0, largest)
        return min(self.random.choice(INTERESTING), largest)

    def _sizes(self) -> tuple[Size, Size, Size]:
        """Return source, valid and padded size of an honest sender, slivers among them."""
        limits, step = self.limits, self.spec.size_divisibility
        height, width = (self._length(limits.max_image_side) for _ in range(2))
        if height * width > limits.max_image_pixels:
            width = max(1, limits.max_image_pixels // height)
        longest = limits.max_padded_side // step * step
        scale = self._length(longest) / min(height, width)
        scale = min(scale, longest / max(height, width))
        valid = max(1, round(height * scale)), max(1, round(width * scale))
        padded = -(-valid[0] // step) * step, -(-valid[1] // step) * step
        if self.random.random() < 0.1:
            padded = min(padded[0] + step, longest), padded[1]
        return (height, width), valid, padded

    def _length(self, longest: int) -> int:
        return round(longest ** self.random.random())


def spoil(packet: FeaturePacket, **changes: Any) -> FeaturePacket:
    """Return a packet with other values in some fields."""
    return replace(packet, **changes)


def edit(data: Any, change: Callable[[bytearray], None]) -> bytes:
    """Return a payload with changes."""
    copy = bytearray(data)
    change(copy)
    return bytes(copy)


@attack(DECODED)
def nothing(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    return packet


@attack(DECODED)
def replayed(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    return forge.random.choice(forge.seen)


@attack(DECODED)
def reordered(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    return spoil(packet, sequence=forge.integer('sequence'))


@attack(
    frozenset(
        {
            None,
            RefusalReason.BAD_SPARE_BITS,
            RefusalReason.NOT_FINITE,
            RefusalReason.OUT_OF_RANGE,
        }
    )
)
def payload_bits(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    def flip(data: bytearray) -> None:
        for _ in range(forge.random.randint(1, 8) if data else 0):
            data[forge.random.randrange(len(data))] ^= 1 << forge.random.randrange(8)

    return spoil(packet, data=edit(packet.data, flip))


@attack(ANYTHING)
def field_bits(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    fields = bytearray(_WIRE.pack(*(getattr(packet, name) for name in WIRE_TYPES)))
    name = bytearray(packet.model[:64].encode('utf-8', 'replace'))
    for _ in range(forge.random.randint(1, 4)):
        place = forge.random.randrange(len(fields) + len(name))
        target, place = (fields, place) if place < len(fields) else (name, place - len(fields))
        target[place] ^= 1 << forge.random.randrange(8)
    values = dict(zip(WIRE_TYPES, _WIRE.unpack(fields), strict=True))
    return spoil(packet, **values, model=name.decode('utf-8', 'replace'))


@attack(ANYTHING)
def random_fields(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    values = _WIRE.unpack(forge.random.randbytes(_WIRE.size))
    return spoil(packet, **dict(zip(WIRE_TYPES, values, strict=True)))


@attack(ANYTHING)
def swapped_fields(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    a, b = forge.random.sample(INTEGERS, 2)
    values = {a: getattr(packet, b), b: getattr(packet, a)}
    return spoil(
        packet, **{name: value & _LARGEST[WIRE_TYPES[name]] for name, value in values.items()}
    )


@attack(
    frozenset(
        {
            None,
            RefusalReason.BAD_VALID_SIZE,
            RefusalReason.BAD_FEATURE_SIZE,
            RefusalReason.BAD_PAYLOAD_LENGTH,
        }
    )
)
def swapped_sides(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    name = forge.random.choice(('image', 'valid', 'padded', 'feature'))
    height, width = f'{name}_height', f'{name}_width'
    return spoil(packet, **{height: getattr(packet, width), width: getattr(packet, height)})


@attack(
    frozenset(
        {
            None,
            RefusalReason.BAD_IMAGE_SIZE,
            RefusalReason.BAD_VALID_SIZE,
            RefusalReason.BAD_PADDED_SIZE,
            RefusalReason.BAD_FEATURE_SIZE,
        }
    )
)
def absurd_size(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    name = forge.random.choice(SIZES)
    return spoil(packet, **{name: forge.integer(name)})


@attack(refused(RefusalReason.BAD_IMAGE_SIZE))
def absurd_image(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    side = forge.random.choice((0, forge.limits.max_image_side + 1, 2**16, 2**31, 2**32 - 1))
    return spoil(packet, image_height=side, image_width=side)


@attack(refused(RefusalReason.BAD_PADDED_SIZE))
def absurd_network_input(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    """All sizes agree, and the code would take gigabytes."""
    step = forge.spec.size_divisibility
    side = forge.random.choice((2**16 - 1, 2**15, 2**20, 2**26)) * step
    cells = min(side // step, 2**16 - 1)
    return spoil(
        packet, padded_height=side, padded_width=side, feature_height=cells, feature_width=cells
    )


@attack(refused(RefusalReason.BAD_PAYLOAD_LENGTH))
def truncated(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    length = len(packet.data)
    return spoil(packet, data=packet.data[: forge.random.randrange(length) if length else 0])


@attack(refused(RefusalReason.BAD_PAYLOAD_LENGTH))
def lengthened(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    more = forge.random.choice((1, 2, 3, 4, 64, forge.limits.max_payload_bytes, 2**16))
    return spoil(packet, data=bytes(packet.data) + bytes(more))


@attack(frozenset({None, RefusalReason.BAD_SPARE_BITS}))
def spare_bits_set(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    """Codes that fill their last byte have none."""
    used = packet.elements * packet.rate % 8
    if not used or not packet.data:
        return packet
    bit = 1 << forge.random.randrange(used, 8)
    return spoil(packet, data=edit(packet.data, lambda data: data.append(data.pop() | bit)))


@attack(refused(RefusalReason.NOT_FINITE))
def not_finite(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    return _with_float(forge, packet, forge.random.choice(NOT_NUMBERS))


@attack(refused(RefusalReason.OUT_OF_RANGE))
def out_of_range(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    value = forge.random.choice((1.0001, 2.0, 3.4e38))
    return _with_float(forge, packet, forge.random.choice((value, -value)))


def _with_float(forge: PacketForge, packet: FeaturePacket, value: float) -> FeaturePacket:
    """Return the packet of a smallest image in raw float mode, with one such value."""
    if packet.elements * 4 > forge.limits.max_payload_bytes:
        step = forge.spec.size_divisibility
        cells = forge.spec.feature_size((step, step))
        names = ('image', 'valid', 'padded')
        square = {f'{name}_{side}': step for name in names for side in ('height', 'width')}
        packet = spoil(packet, **square, feature_height=cells[0], feature_width=cells[1])
        if packet.elements * 4 > _LONGEST_FORGED:  # the channels were spoiled before
            return packet
    values = np.frombuffer(forge.payload(packet.elements, 32), '<f4').copy()
    if values.size:
        values[forge.random.randrange(values.size)] = value
    return spoil(packet, rate=32, data=values.tobytes())


@attack(refused(RefusalReason.FOREIGN_MODEL))
def foreign_model(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    name = f'{forge.random.getrandbits(64):016x}'
    return spoil(packet, model=forge.random.choice((*FOREIGN_MODELS, *([name] * 16))))


@attack(refused(RefusalReason.BAD_CHANNELS))
def wrong_channels(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    """Mostly with the payload that they need."""
    right = forge.spec.channels
    choices = {0, right - 1, right + 1, 2 * right, 64, 2**16 - 1} - {right}
    packet = spoil(packet, channels=forge.random.choice(sorted(choices)))
    if (
        packet.rate not in BIT_DEPTHS
        or packet.elements * packet.rate > 8 * _LONGEST_FORGED
    ):
        return packet
    return spoil(packet, data=bytes(packed_size(packet.elements, packet.rate)))


@attack(refused(RefusalReason.BAD_RATE, RefusalReason.BAD_PAYLOAD_LENGTH))
def wrong_rate(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    choices = {0, 1, 2, 3, 4, 8, 16, 24, 32, 64, 255} - {packet.rate}
    return spoil(packet, rate=forge.random.choice(sorted(choices)))


@attack(refused(RefusalReason.BAD_CODING))
def unknown_coding(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    return spoil(packet, coding=(packet.coding + forge.random.randint(1, 255)) % 256)


@attack(refused(RefusalReason.BAD_REFERENCE))
def unknown_reference(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    """Of a coding that has none, or to a key frame that never was, or to itself."""
    return spoil(packet, reference=forge.random.choice((1, packet.sequence or 1, 2**32 - 1)))


@attack(DECODED)
def other_reference(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    """To a key frame that it was not coded against, or to none."""
    numbers = [key.sequence for key in forge.keys]
    return spoil(packet, reference=forge.random.choice((0, *numbers)))


@attack(DECODED)
def false_digest(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    """Coded against a key frame that the receiver knows as another, and says nothing of it."""
    if not forge.keys:
        return packet
    claimed, real = forge.random.choice(forge.keys), forge.random.choice(forge.keys)
    rate = forge.random.choice(forge.spec.coder.rates)
    key = replace(real.key, digest=claimed.key.digest)
    data = forge.spec.coder.write(forge.code(key.shape), rate, key)
    source, valid, padded = claimed.sizes
    feature = forge.spec.feature_size(padded)
    sizes = side_fields(image=source, valid=valid, padded=padded, feature=feature)
    return spoil(packet, reference=claimed.sequence, rate=rate, data=data, **sizes)


@attack(refused(RefusalReason.BAD_TIME))
def bad_time(forge: PacketForge, packet: FeaturePacket) -> FeaturePacket:
    return spoil(packet, **{forge.random.choice(TIMES): forge.random.choice(BAD_TIMES)})


@st.composite
def hostile_packets(
    draw: st.DrawFn, spec: PacketSpec, limits: DecodeLimits = LIMITS
) -> FeaturePacket:
    """Return good packets with any fields overwritten and any payload."""
    packet = PacketForge(spec, limits, draw(st.integers(0, 99))).honest()
    integers = {
        name: st.one_of(
            st.sampled_from([x for x in INTERESTING if x <= _LARGEST[WIRE_TYPES[name]]]),
            st.integers(0, _LARGEST[WIRE_TYPES[name]]),
        )
        for name in INTEGERS
    }
    overwritten = draw(st.lists(st.sampled_from((*INTEGERS, *TIMES, 'model', 'data')), max_size=3))
    changes: dict[str, Any] = {}
    for name in overwritten:
        if name in integers:
            changes[name] = draw(integers[name])
        elif name in TIMES:
            changes[name] = draw(st.floats(width=32))
        elif name == 'model':
            changes[name] = draw(st.text(max_size=20))
        else:
            size = packet.payload_bytes
            exact = st.binary(min_size=min(size, 64), max_size=min(size, 64))
            changes[name] = draw(st.one_of(exact, st.binary(max_size=80)))
    return spoil(packet, **changes)


class AllocationMeter(TorchDispatchMode):
    """Sees every torch operator that runs while it is entered.

    Attributes:
        operators: how many ran.
        largest: bytes of the largest tensor that one of them returned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        """Start anew."""
        self.operators = self.largest = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operators += 1
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.largest = max(self.largest, leaf.nbytes)
        return result


def largest_allocation(limits: DecodeLimits, detections: int) -> int:
    """Return the bytes of the largest tensor within limits: all masks in single precision."""
    return 4 * detections * limits.max_image_pixels


def small_model(seed: int = 0, codec: str = 'msfc') -> SplitModel:
    """Return a small Mask R-CNN with random weights and a codec of few channels.

    Args:
        seed: of the weights.
        codec: ``msfc`` or ``learned``.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        detector = cast(Any, MODELS['torchvision']).make()
        if codec == 'msfc':
            return SplitModel(detector, MSFC(MSFCConfig(32, 3, se_reduction=4))).eval()
        return SplitModel(detector, small_learned_codec(32)).eval()


def small_learned_codec(channels: int) -> LearnedCodec:
    """Return a learned codec of four channels and three rates, with random weights."""
    return LearnedCodec(
        LearnedConfig(
            channels=channels, code_channels=4, slices=(2, 2), hyper_channels=2, rates=3,
            analysis_widths=(8, 8), synthesis_widths=(8, 8, 8, 8), synthesis_blocks=(1, 1, 1, 1),
            context_width=8, hidden_width=8, hyper_width=8,
        )
    )


def check_instances(instances: Instances, size: Size, classes: int) -> None:
    """Assert that instances are what messages can say: finite, of known classes, in the image.

    Args:
        instances: a result.
        size: height and width of the image in pixels.
        classes: how many classes the model knows.
    """
    count = len(instances)
    boxes, scores, labels = instances.boxes, instances.scores, instances.labels
    assert boxes.shape == (count, 4)
    assert labels.shape == (count,)
    assert instances.masks.shape == (count, *size)
    assert instances.masks.dtype == torch.bool
    assert bool(torch.isfinite(boxes).all())
    assert bool(((scores >= 0) & (scores <= 1)).all())
    assert bool(((labels >= 0) & (labels < classes)).all())
    edges = torch.tensor([size[1], size[0]]) * (1 + 1e-6)  # boxes are scaled in single precision
    assert bool((boxes[:, :2] >= 0).all())
    assert bool((boxes[:, 2:] <= edges).all())
    assert bool((boxes[:, :2] <= boxes[:, 2:]).all())

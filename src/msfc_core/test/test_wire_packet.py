"""Packets: what a receiver refuses, for which reason, and that it takes no memory for it."""

from __future__ import annotations

import array
import math
import pickle
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostile import side_fields
from msfc.types import Size
from msfc.wire.packed import PackedCoder
from msfc.wire.packet import (
    DecodeLimits,
    FeaturePacket,
    PacketError,
    PacketSpec,
    RefusalReason,
    packet_fields,
    validate,
)
from msfc.wire.packing import packed_size
from msfc.wire.quantizer import BIT_DEPTHS

MODEL = '0123456789abcdef'
HUGE = 2**32 - 1
NOT_OF_THIS_CODING = {RefusalReason.MISSING_REFERENCE, RefusalReason.BAD_PAYLOAD}
"""Packed payloads have no references that could be missing, and all their bytes mean something."""
SPEC = PacketSpec(
    model=MODEL,
    channels=3,
    size_divisibility=32,
    feature_size=lambda padded: (-(-padded[0] // 32), -(-padded[1] // 32)),
    coder=PackedCoder(),
)


def make_packet(**changes: Any) -> FeaturePacket:
    """Return a good packet (3 x 5 x 7 elements), with changes."""
    packet = FeaturePacket(
        sequence=1,
        reference=0,
        image_height=240,
        image_width=320,
        valid_height=150,
        valid_width=200,
        padded_height=160,
        padded_width=224,
        channels=3,
        feature_height=5,
        feature_width=7,
        rate=4,
        coding=0,
        model=MODEL,
        preprocess_time=0.001,
        backbone_time=0.5,
        encode_time=0.02,
        pack_time=0.0,
        data=b'',
    )
    bits = changes.get('rate', 4)
    if 'data' not in changes and bits in BIT_DEPTHS:
        changes['data'] = bytes(packed_size(packet.elements, bits))
    return replace(packet, **changes)


def floats(*values: float) -> bytes:
    """Return 105 little-endian floats, the last ones given."""
    array = np.zeros(105, '<f4')
    array[105 - len(values) :] = values
    return array.tobytes()


def refusal(packet: FeaturePacket, limits: DecodeLimits | None = None) -> PacketError:
    """Return the error that a packet is refused with."""
    with pytest.raises(PacketError) as caught:
        validate(packet, SPEC, limits)
    return caught.value


@pytest.mark.parametrize('bits', BIT_DEPTHS)
def test_good_packets_pass(bits: int) -> None:
    validate(make_packet(rate=bits), SPEC)


@pytest.mark.parametrize(
    'wrap', [bytearray, memoryview, lambda x: array.array('B', x), lambda x: np.frombuffer(x, 'B')]
)
@pytest.mark.parametrize('bits', BIT_DEPTHS)
def test_any_buffer_passes(bits: int, wrap: Callable[[bytes], Any]) -> None:
    size = packed_size(105, bits)
    validate(make_packet(rate=bits, data=wrap(bytes(size))), SPEC)
    error = refusal(make_packet(rate=bits, data=wrap(bytes(size + 1))))
    assert error.reason is RefusalReason.BAD_PAYLOAD_LENGTH


def test_properties() -> None:
    packet = make_packet()
    assert packet.image_size == (240, 320)
    assert packet.valid_size == (150, 200)
    assert packet.padded_size == (160, 224)
    assert packet.feature_size == (5, 7)
    assert packet.elements == 105
    assert packet.payload_bytes == 53
    assert list(packet.durations) == ['preprocess', 'backbone', 'encode', 'pack']
    assert packet.durations['backbone'] == 0.5
    assert 'data' not in repr(packet)


CASES: list[tuple[RefusalReason, dict[str, Any], str]] = [
    (RefusalReason.FOREIGN_MODEL, {'model': 'fedcba9876543210'}, 'model fedcba9876543210, but'),
    (RefusalReason.FOREIGN_MODEL, {'model': ''}, "fingerprint '' is not 16 hexadecimal"),
    (RefusalReason.FOREIGN_MODEL, {'model': 'x' * 10**6}, "'xxxxxxxxxxxxxxxx' is not 16"),
    (RefusalReason.FOREIGN_MODEL, {'model': MODEL.upper()}, 'is not 16 hexadecimal'),
    (RefusalReason.BAD_CODING, {'coding': 1}, 'coding 1 is not known'),
    (RefusalReason.BAD_RATE, {'rate': 0}, 'rate 0'),
    (RefusalReason.BAD_RATE, {'rate': 3}, 'one of 2, 4, 8, 16, 32'),
    (RefusalReason.BAD_RATE, {'rate': 255}, 'rate 255'),
    (RefusalReason.BAD_REFERENCE, {'reference': 1}, 'frame 1, but coding 0 has no references'),
    (RefusalReason.BAD_CHANNELS, {'channels': 0}, '0 channels, but the model has 3'),
    (RefusalReason.BAD_CHANNELS, {'channels': 65535}, '65535 channels'),
    (RefusalReason.BAD_IMAGE_SIZE, {'image_height': 0}, 'image is empty: 0 x 320'),
    (RefusalReason.BAD_IMAGE_SIZE, {'image_width': 0}, 'image is empty: 240 x 0'),
    (RefusalReason.BAD_IMAGE_SIZE, {'image_width': -320}, 'image is empty: 240 x -320'),
    (RefusalReason.BAD_IMAGE_SIZE, {'image_width': HUGE}, '240 x 4294967295 pixels is beyond'),
    (RefusalReason.BAD_IMAGE_SIZE, {'image_height': HUGE, 'image_width': HUGE}, 'beyond'),
    (RefusalReason.BAD_IMAGE_SIZE, {'image_height': 4000, 'image_width': 4000}, '9437184 in all'),
    (RefusalReason.BAD_PADDED_SIZE, {'padded_height': 0}, '0 x 224 pixels, is not a positive'),
    (RefusalReason.BAD_PADDED_SIZE, {'padded_width': 225}, 'multiple of 32'),
    (RefusalReason.BAD_PADDED_SIZE, {'padded_width': -224}, 'positive multiple'),
    (RefusalReason.BAD_PADDED_SIZE, {'padded_width': HUGE - 31}, 'beyond the limit of 2048'),
    (RefusalReason.BAD_PADDED_SIZE, {'padded_height': HUGE, 'padded_width': HUGE}, 'multiple'),
    (RefusalReason.BAD_VALID_SIZE, {'valid_height': 0}, '0 x 200 pixels, does not lie in'),
    (RefusalReason.BAD_VALID_SIZE, {'valid_width': 225}, 'does not lie in'),
    (RefusalReason.BAD_VALID_SIZE, {'valid_height': HUGE}, 'does not lie in'),
    (RefusalReason.BAD_VALID_SIZE, {'valid_width': 150}, '150 x 150 pixels, is no resized image'),
    (RefusalReason.BAD_VALID_SIZE, {'valid_height': 100}, 'is no resized image of 240 x 320'),
    (RefusalReason.BAD_FEATURE_SIZE, {'feature_height': 0}, '0 x 7 cells'),
    (RefusalReason.BAD_FEATURE_SIZE, {'feature_height': 7, 'feature_width': 5}, 'gives 5 x 7'),
    (RefusalReason.BAD_FEATURE_SIZE, {'feature_width': 65535}, '5 x 65535 cells'),
    (RefusalReason.BAD_PAYLOAD_LENGTH, {'data': b''}, '53 bytes, but the payload has 0'),
    (RefusalReason.BAD_PAYLOAD_LENGTH, {'data': bytes(52)}, 'the payload has 52'),
    (RefusalReason.BAD_PAYLOAD_LENGTH, {'data': bytes(54)}, 'the payload has 54'),
    (RefusalReason.BAD_SPARE_BITS, {'data': bytes(52) + b'\x10'}, 'unused bits'),
    (RefusalReason.BAD_SPARE_BITS, {'data': bytes(52) + b'\x80'}, 'unused bits'),
    (RefusalReason.NOT_FINITE, {'rate': 32, 'data': floats(math.nan)}, 'not finite'),
    (RefusalReason.NOT_FINITE, {'rate': 32, 'data': floats(math.inf, 0)}, 'not finite'),
    (RefusalReason.NOT_FINITE, {'rate': 32, 'data': floats(-math.inf)}, 'not finite'),
    (RefusalReason.NOT_FINITE, {'rate': 32, 'data': floats(math.nan, 5)}, 'not finite'),
    (RefusalReason.OUT_OF_RANGE, {'rate': 32, 'data': floats(1.001)}, 'outside -1 .. 1'),
    (RefusalReason.OUT_OF_RANGE, {'rate': 32, 'data': floats(-3e38)}, 'values -3e'),
    (RefusalReason.BAD_TIME, {'preprocess_time': -1e-9}, 'preprocess stage cannot have'),
    (RefusalReason.BAD_TIME, {'backbone_time': math.nan}, 'backbone stage .* nan s'),
    (RefusalReason.BAD_TIME, {'encode_time': math.inf}, 'encode stage .* inf s'),
    (RefusalReason.BAD_TIME, {'pack_time': -math.inf}, 'pack stage'),
]


@pytest.mark.parametrize(('reason', 'changes', 'words'), CASES)
def test_refusals(reason: RefusalReason, changes: dict[str, Any], words: str) -> None:
    packet = make_packet(**changes)
    with pytest.raises(PacketError, match=words) as caught:
        validate(packet, SPEC)
    assert caught.value.reason is reason
    assert '\n' not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_every_reason_is_tried() -> None:
    assert {reason for reason, _, _ in CASES} == set(RefusalReason) - NOT_OF_THIS_CODING


HUGE_FIELDS: list[dict[str, Any]] = [
    {field.name: HUGE}
    for field in fields(FeaturePacket)
    if field.name.endswith(('_height', '_width')) or field.name in ('channels', 'rate')
]


def test_checks_take_no_memory() -> None:
    """Refusing the most absurd packets takes some strings, whatever sizes they claim."""
    packets = [make_packet(**changes) for _, changes, _ in CASES]
    packets += [replace(packet, **huge) for packet in packets for huge in HUGE_FIELDS]
    tracemalloc.start()
    for packet in packets:
        with pytest.raises(PacketError):
            validate(packet, SPEC)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_sizes_are_checked_before_the_model_computes_with_them() -> None:
    def fail(padded: Size) -> Size:
        raise AssertionError('asked about an unchecked size')

    spec = replace(SPEC, feature_size=fail)
    with pytest.raises(PacketError):
        validate(make_packet(padded_height=2**31), spec)


@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            field.name: st.one_of(
                st.integers(0, HUGE), st.sampled_from([0, 1, 2, 3, 4, 5, 7, 32, 160, 224])
            )
            for field in fields(FeaturePacket)
            if field.type == 'int' and field.name != 'data'
        },
    ),
    data=st.binary(max_size=60),
)
def test_anything_is_accepted_or_refused(changes: dict[str, int], data: bytes) -> None:
    packet = make_packet(**{**changes, 'data': data})
    try:
        validate(packet, SPEC)
    except PacketError:
        pass
    else:
        assert packet.feature_size == SPEC.feature_size(packet.padded_size)
        assert len(data) == packed_size(packet.elements, packet.rate)


@given(
    source=st.tuples(st.integers(1, 2304), st.integers(1, 4096)),
    short=st.integers(32, 900),
    longest=st.integers(900, 1600),
    rounding=st.sampled_from([math.floor, round, math.ceil]),
)
def test_honest_resizes_pass(
    source: Size, short: int, longest: int, rounding: Callable[[float], int]
) -> None:
    """Short edge to a length unless the long edge gets too long, as both detectors do it."""
    scale = min(short / min(source), longest / max(source))
    valid = rounding(source[0] * scale), rounding(source[1] * scale)
    if min(valid) < 1:
        return
    padded = -(-valid[0] // 32) * 32, -(-valid[1] // 32) * 32
    feature = SPEC.feature_size(padded)
    packet = make_packet(
        **side_fields(image=source, valid=valid, padded=padded, feature=feature),
        data=bytes(packed_size(3 * feature[0] * feature[1], 4)),
    )
    validate(packet, SPEC)


def test_more_padding_than_needed_passes() -> None:
    """A sender may pad to a common size."""
    feature = {'feature_height': 8, 'feature_width': 8}
    packet = make_packet(padded_height=256, padded_width=256, **feature, data=bytes(96))
    validate(packet, SPEC)


def test_float_values_may_round_past_one() -> None:
    validate(make_packet(rate=32, data=floats(1.000001, -1.000001)), SPEC)


def test_limits_are_the_receivers() -> None:
    packet = make_packet()
    validate(packet, SPEC, DecodeLimits(320, 240 * 320, 224, 53))
    for limits, reason in (
        (DecodeLimits(max_image_side=319), RefusalReason.BAD_IMAGE_SIZE),
        (DecodeLimits(max_image_pixels=240 * 320 - 1), RefusalReason.BAD_IMAGE_SIZE),
        (DecodeLimits(max_padded_side=223), RefusalReason.BAD_PADDED_SIZE),
        (DecodeLimits(max_payload_bytes=52), RefusalReason.BAD_PAYLOAD_LENGTH),
    ):
        assert refusal(packet, limits).reason is reason
    with pytest.raises(ValueError, match='max_padded_side must be at least 1'):
        DecodeLimits(max_padded_side=0)


def test_masks_of_the_largest_image_are_bounded() -> None:
    limits = DecodeLimits()
    assert limits.max_instances((480, 640)) == 873
    assert limits.max_instances((2304, 4096)) == 28
    with pytest.raises(ValueError, match='leaves no room for a single instance'):
        DecodeLimits(max_image_pixels=1000, max_mask_pixels=999)


def test_errors() -> None:
    error = refusal(make_packet(coding=9))
    assert isinstance(error, ValueError)
    assert str(error.reason) == f'{error.reason}' == 'bad_coding'
    copy = pickle.loads(pickle.dumps(error))  # as multiprocessing passes it on
    assert (copy.reason, str(copy)) == (error.reason, str(error))


def from_vector(values: dict[str, Any]) -> FeaturePacket:
    """Return a packet as the vectors write it."""
    times = {name: float(value) for name, value in values.items() if name.endswith('_time')}
    return FeaturePacket(**{**values, **times, 'data': bytes.fromhex(values['data'])})


def test_vectors(wire_vectors: dict[str, Any]) -> None:
    receiver = wire_vectors['receiver']
    stride = receiver['feature_stride']
    spec = PacketSpec(
        model=receiver['model'],
        channels=receiver['channels'],
        size_divisibility=receiver['size_divisibility'],
        feature_size=lambda padded: (padded[0] // stride, padded[1] // stride),
        coder=PackedCoder(),
    )
    validate(from_vector(wire_vectors['packet']), spec)
    for vector in wire_vectors['refused']:
        with pytest.raises(PacketError) as caught:
            validate(from_vector({**wire_vectors['packet'], **vector['changes']}), spec)
        assert caught.value.reason == vector['reason'], vector
    tried = {vector['reason'] for vector in wire_vectors['refused']}
    assert tried == set(RefusalReason) - NOT_OF_THIS_CODING


ROOT = Path(__file__).parents[3]


def test_message_has_the_packets_fields() -> None:
    """The .msg cannot be made of the definition: ROS tools read the file."""
    text = (ROOT / 'src/msfc_msgs/msg/CompressedFeature.msg').read_text(encoding='utf-8')
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r'([\w/\[\]]+) (\w+) +# (.+)', line)
        if match and match[2] != 'header':
            found.append(match.groups())
    assert [(kind, name) for kind, name, _ in found] == [
        (field.type, field.name) for field in packet_fields()
    ]
    for (_, name, comment), field in zip(found, packet_fields(), strict=True):
        assert field.unit in comment, name


def test_message_names_the_codings() -> None:
    text = (ROOT / 'src/msfc_msgs/msg/CompressedFeature.msg').read_text(encoding='utf-8')
    assert re.findall(r'^uint8 CODING_(\w+)=(\d+) ', text, re.M) == [
        ('PACKED', str(PackedCoder.coding))
    ]


def test_document_names_every_field_and_reason() -> None:
    text = (ROOT / 'docs/wire-format.md').read_text(encoding='utf-8')
    table = text[text.index('| `sequence`') : text.index('\n\n', text.index('| `sequence`'))]
    found = []
    for row in table.splitlines():
        names, kind, unit = (cell.strip(' `') for cell in row.split('|')[1:4])
        found += [(name.strip('` '), kind, unit) for name in names.split(',')]
    assert found == [(field.name, field.type, field.unit) for field in packet_fields()]
    for reason in RefusalReason:
        assert f'| `{reason}` |' in text, reason


def test_durations_are_the_fields_in_seconds() -> None:
    stages = [f'{stage}_time' for stage in make_packet().durations]
    assert stages == [field.name for field in packet_fields() if field.unit == 'seconds']

"""Coding 1 against key frames: the same at both ends, and nothing of it is trusted."""

from __future__ import annotations

import hashlib
import time
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import learned_reference
from msfc.wire.key_fit import fit_key_arrays
from msfc.wire.key_tables import KEY_ARRAYS
from msfc.wire.learned import EDGE_ARRAYS, LearnedCoder
from msfc.wire.packed import PackedCoder
from msfc.wire.packet import PacketError, RefusalReason
from test_wire_learned import ARRAYS, CODER, SLICES, some_code, wide_coder

PLAIN = {name: value for name, value in ARRAYS.items() if name not in KEY_ARRAYS}
"""A model that was not fitted to pairs of frames."""

DEFAULTS = LearnedCoder(PLAIN, SLICES)


def near(code: np.ndarray, seed: int, change: float) -> np.ndarray:
    """Return what follows on a code: a part of it has changed."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.1, code.shape)
    moved = rng.random(code.shape) < change
    return (code + noise + 3 * moved * rng.normal(size=code.shape)).astype(np.float32)


pairs = st.builds(
    lambda shape, seed, spread, change: (
        some_code(shape, seed, spread), near(some_code(shape, seed, spread), seed + 1, change)
    ),
    st.tuples(st.just(3), st.integers(1, 9), st.integers(1, 9)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.3, 3.0, 300.0, 1e6]),
    st.sampled_from([0.0, 0.1, 1.0]),
)
rates = st.sampled_from(CODER.rates)


@settings(max_examples=60, deadline=None)
@given(pairs, rates, rates, st.booleans())
def test_another_reader_made_from_the_page_reads_the_same(
    pair, key_rate: int, rate: int, plain: bool
) -> None:
    first, second = pair
    coder, arrays = (DEFAULTS, PLAIN) if plain else (CODER, ARRAYS)
    data, key = coder.write_key(first, key_rate)
    assert data == coder.write(first, key_rate)
    payload = coder.write(second, rate, key)
    coder.check(payload, second.shape, rate)
    read = coder.read(payload, second.shape, rate, key)
    theirs = learned_reference.decode_frame(arrays, data, first.shape, key_rate, SLICES)
    again = learned_reference.decode_frame(arrays, payload, second.shape, rate, SLICES, theirs)
    np.testing.assert_array_equal(read, learned_reference.code_of(arrays, again))


@settings(max_examples=60, deadline=None)
@given(pairs, rates, rates)
def test_the_receivers_key_frame_is_the_senders(pair, key_rate: int, rate: int) -> None:
    first, second = pair
    data, sent = CODER.write_key(first, key_rate)
    code, received = CODER.read_key(data, first.shape, key_rate)
    np.testing.assert_array_equal(code, CODER.read(data, first.shape, key_rate))
    np.testing.assert_array_equal(sent.values, received.values)
    np.testing.assert_array_equal(sent.side, received.side)
    for one in (sent, received):
        assert (one.shape, one.rate, one.digest) == (first.shape, key_rate, digest(data))
    assert received.nbytes == received.values.nbytes + received.side.nbytes
    assert CODER.write(second, rate, sent) == CODER.write(second, rate, received)


def digest(data: bytes) -> int:
    """CRC-32, by its polynomial."""
    crc = 2**32 - 1
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return (crc ^ 2**32 - 1) % 4096


@settings(max_examples=40, deadline=None)
@given(pairs, rates, rates)
def test_what_is_read_is_as_near_as_without(pair, key_rate: int, rate: int) -> None:
    """The means move, and with them what symbols stand for; errors stay within half a symbol."""
    first, second = pair
    for coder in (CODER, DEFAULTS):
        _, key = coder.write_key(first, key_rate)
        read = coder.read(coder.write(second, rate, key), second.shape, rate, key)
        gain = np.exp(ARRAYS['log_gain'][rate])[:, None, None]
        inverse = ARRAYS['inverse_gain'][rate][:, None, None]
        values = (read - ARRAYS['rate_offset'][rate][:, None, None]) / inverse
        wanted = second * gain
        inside = np.abs(wanted) < 2000
        assert np.abs(values - wanted)[inside].max(initial=0) <= 0.501


def test_a_frame_like_its_key_frame_takes_less() -> None:
    for arrays in (PLAIN, fitted(12)):
        coder = LearnedCoder(arrays, SLICES)
        code = some_code((3, 12, 16))
        _, key = coder.write_key(code, 1)
        same = coder.write(near(code, 1, 0.0), 1, key)
        assert len(same) < 0.9 * len(coder.write(near(code, 1, 0.0), 1))


def fitted(count: int, change: float = 0.05) -> dict[str, Any]:
    """The model, fitted to pairs of which little changes."""
    codes = [some_code((3, 12, 16), seed) for seed in range(count)]
    found = [(code, near(code, seed + 99, change)) for seed, code in enumerate(codes)]
    return PLAIN | fit_key_arrays(PLAIN, SLICES, found)


def test_fitted_tables_take_fewer_bytes_and_leave_alone_what_is_alone() -> None:
    before, after = DEFAULTS, LearnedCoder(fitted(12), SLICES)
    lengths = {before: 0, after: 0}
    for seed in range(100, 106):
        code = some_code((3, 12, 16), seed)
        second = near(code, seed, 0.05)
        assert before.write(code, 1) == after.write(code, 1)
        for coder in lengths:
            data = coder.write(second, 1, coder.write_key(code, 1)[1])
            lengths[coder] += len(data)
    assert lengths[after] < 0.8 * lengths[before]


def test_tables_are_fitted_to_the_same_numbers_again() -> None:
    once, twice = fitted(3), fit_key_arrays(fitted(3), SLICES, [
        (code, near(code, seed + 99, 0.05))
        for seed, code in enumerate(some_code((3, 12, 16), seed) for seed in range(3))
    ])
    for name in KEY_ARRAYS:
        np.testing.assert_array_equal(once[name], twice[name])


def test_another_key_frame_is_told() -> None:
    code = some_code((3, 6, 6))
    _, key = CODER.write_key(code, 0)
    payload = CODER.write(code, 0, key)
    others = [CODER.write_key(some_code((3, 6, 6), seed), 0)[1] for seed in range(1, 9)]
    assert CODER.refers_to(payload, key)
    assert CODER.refers_to(memoryview(payload), key)
    for data in (b'', b'\xff' * 40, bytes(40)):
        assert not CODER.refers_to(data, replace(key, digest=4095 if not any(data) else 1))
    for other in others:
        assert not CODER.refers_to(payload, other)
        with pytest.raises(PacketError, match='against another key frame') as caught:
            CODER.read(payload, code.shape, 0, other)
        assert caught.value.reason is RefusalReason.MISSING_REFERENCE


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.tuples(st.just(0), st.integers(0, 10**6)),
        st.tuples(st.just(1), st.integers(0, 10**6)),
    ),
    st.integers(0, 4095), rates, rates,
)
def test_any_bytes_are_refused_or_give_a_bounded_code(given_, found: int, key_rate, rate) -> None:
    """Garbage and damage, against keys that fit or are wild: an answer in time, bounded values."""
    shape = (3, 5, 6)
    code = some_code(shape, found, 30.0)
    _, key = CODER.write_key(code, key_rate)
    if isinstance(given_, bytes):
        data = given_
    else:
        kind, place = given_
        data = bytearray(CODER.write(near(code, found, 0.2), rate, key))
        if kind == 0 and data:
            data[place % len(data)] ^= 1 << place % 8
        else:
            # Another key frame of the same digest: not seen, so wrong, but bounded.
            other = CODER.write_key(some_code(shape, place, 300.0), key_rate)[1]
            key = replace(other, digest=key.digest)
        data = bytes(data)
    try:
        read, refused = CODER.read(data, shape, rate, key), None
    except PacketError as error:
        read, refused = ARRAYS['rate_offset'][rate][:, None, None], error.reason
    assert refused in (None, RefusalReason.BAD_PAYLOAD, RefusalReason.MISSING_REFERENCE)
    values = read - ARRAYS['rate_offset'][rate][:, None, None]
    values /= ARRAYS['inverse_gain'][rate][:, None, None]
    assert np.abs(values).max() <= 2047 + 2047 / 64 + 1


def test_wild_key_frames_are_bounded() -> None:
    """A key frame's values are clipped, so that no sum in whole numbers runs over."""
    code = np.full((3, 4, 4), 1e30, np.float32)
    gains = ARRAYS | {'inverse_gain': np.array([[1e-9] * 3, [1e9] * 3], np.float32)}
    for arrays in (ARRAYS, gains):
        coder = LearnedCoder(arrays, SLICES)
        for first in (code, -code):
            for rate in coder.rates:
                key = coder.write_key(first, 1 - rate)[1]
                assert np.abs(key.values).max() == 2047
                payload = coder.write(-first, rate, key)
                assert np.isfinite(coder.read(payload, code.shape, rate, key)).all()


def test_damage_takes_no_longer_to_read_and_no_more_memory() -> None:
    coder, shape = wide_coder(), (48, 16, 20)
    code = some_code(shape)
    key = coder.write_key(code, 7)[1]
    payload = coder.write(near(code, 1, 0.1), 7, key)

    def spent(data: bytes) -> tuple[float, int]:
        start = time.process_time()
        tracemalloc.start()
        try:
            coder.read(data, shape, 7, key)
        except PacketError:
            pass
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return time.process_time() - start, peak

    good = max(spent(payload) for _ in range(3))
    digest_, rng = payload[:2], np.random.default_rng(0)
    for rest in (b'', b'\xff' * len(payload), rng.bytes(len(payload)), payload[2:50]):
        seconds, peak = spent(digest_ + rest)
        assert seconds < 3 * good[0] + 0.05
        assert peak < 1.5 * good[1]


def test_a_receiver_needs_nothing_of_the_robots_half() -> None:
    arrays = {name: value for name, value in ARRAYS.items() if name not in EDGE_ARRAYS}
    receiver, code = LearnedCoder(arrays, SLICES), some_code((3, 5, 5))
    data, key = CODER.write_key(code, 1)
    payload = CODER.write(code, 0, key)
    _, theirs = receiver.read_key(data, code.shape, 1)
    np.testing.assert_array_equal(
        receiver.read(payload, code.shape, 0, theirs), CODER.read(payload, code.shape, 0, key)
    )


def test_a_coding_without_references_has_no_key_frames() -> None:
    coder, code = PackedCoder(), np.zeros((1, 1, 1), np.float32)
    assert not coder.uses_references
    key = CODER.write_key(some_code((3, 1, 1)), 0)[1]
    for act in (
        lambda: coder.write_key(code, 8), lambda: coder.read_key(b'0', (1, 1, 1), 8),
        lambda: coder.refers_to(b'0', key), lambda: coder.write(code, 8, key),
        lambda: coder.read(b'0', (1, 1, 1), 8, key),
    ):
        with pytest.raises(ValueError, match=r'has no references|have no reference'):
            act()


# Whoever changes these changes the wire format: old and new ends no longer understand each other.
GOLDEN = {
    (0, 0): 'c39c4b458a4337a9',
    (3, 3): '86ecc29339ef1061',
    (3, 6): '39c25a3a498112fe',
    (7, 2): '8feaf2d9619b5f96',
}


@pytest.mark.parametrize(('key_rate', 'rate'), GOLDEN)
def test_golden_streams(key_rate: int, rate: int) -> None:
    ramp = (np.arange(48 * 16 * 20) * 2654435761 % 2**32 / 2**29 - 4).astype(np.float32)
    first = ramp.reshape(48, 16, 20)
    second = first + np.float32(0.125) * (np.arange(20) % 3 == 0)
    coder = wide_coder()
    payload = coder.write(second, rate, coder.write_key(first, key_rate)[1])
    assert hashlib.sha256(payload).hexdigest()[:16] == GOLDEN[key_rate, rate]


def test_vectors(wire_vectors: dict[str, Any]) -> None:
    for vector in wire_vectors['referring']:
        shape = np.shape(vector['code'])
        first, second = (np.array(vector[name], np.float32) / 64 for name in ('key', 'code'))
        data, key = CODER.write_key(first, vector['key_rate'])
        assert data.hex() == vector['key_hex']
        payload = CODER.write(second, vector['rate'], key)
        assert payload.hex() == vector['hex']
        read = CODER.read(payload, shape, vector['rate'], key)
        words = [f'{word:08x}' for word in read.ravel().view(np.uint32)]
        assert ''.join(words) == vector['ieee754']

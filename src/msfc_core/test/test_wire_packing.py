"""Bit packing against the plain implementation and the vectors of docs/wire-format.md."""

from __future__ import annotations

import array
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import plain
from msfc.wire.packing import pack, packed_size, unpack
from msfc.wire.quantizer import BIT_DEPTHS

INTEGER_DEPTHS = [bits for bits in BIT_DEPTHS if bits < 32]


@st.composite
def symbol_lists(draw: st.DrawFn) -> tuple[int, list[int]]:
    """Draw a bit depth and symbols of it."""
    bits = draw(st.sampled_from(INTEGER_DEPTHS))
    return bits, draw(st.lists(st.integers(0, 2**bits - 1), max_size=70))


@given(symbol_lists())
def test_equals_plain(drawn: tuple[int, list[int]]) -> None:
    bits, symbols = drawn
    data = pack(np.array(symbols, np.int32), bits)
    assert data == plain.pack(symbols, bits)
    assert len(data) == packed_size(len(symbols), bits)
    assert unpack(data, len(symbols), bits).tolist() == symbols
    assert plain.unpack(data, len(symbols), bits) == symbols


@pytest.mark.parametrize('bits', INTEGER_DEPTHS)
@pytest.mark.parametrize('count', [*range(20), 63, 64, 65, 1000, 1001])
def test_every_length(bits: int, count: int) -> None:
    symbols = np.random.default_rng(count).integers(0, 2**bits, count)
    data = pack(symbols, bits)
    assert len(data) == packed_size(count, bits) == -(-count * bits // 8)
    assert (unpack(data, count, bits) == symbols).all()


@given(hnp.arrays(np.float32, st.integers(0, 50), elements=st.floats(width=32, allow_nan=False)))
def test_float32_is_exact(values: np.ndarray) -> None:
    data = pack(values, 32)
    assert data == values.astype('<f4').tobytes()
    assert unpack(data, len(values), 32).tobytes() == values.tobytes()


@pytest.mark.parametrize(
    'dtype', [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.int64, '>i4']
)
@pytest.mark.parametrize('bits', INTEGER_DEPTHS)
def test_integers_of_any_type(bits: int, dtype: str) -> None:
    symbols = np.array([3, 0, 1, 2, 3], dtype)
    assert pack(symbols, bits) == plain.pack([3, 0, 1, 2, 3], bits)


@pytest.mark.parametrize('bits', BIT_DEPTHS)
def test_any_shape_goes_in_c_order(bits: int) -> None:
    symbols = np.arange(24).reshape(2, 3, 4) % 4
    symbols = symbols.astype(np.float32 if bits == 32 else np.uint8)
    data = pack(symbols, bits)
    assert data == pack(symbols.reshape(-1), bits)
    assert data == pack(np.asfortranarray(symbols), bits)
    assert data == pack(symbols[:, ::-1][:, ::-1], bits)


@pytest.mark.parametrize('bits', BIT_DEPTHS)
@pytest.mark.parametrize(
    'wrap',
    [
        bytes,
        bytearray,
        memoryview,
        lambda data: array.array('B', data),
        lambda data: np.frombuffer(data, np.uint8),
    ],
)
def test_any_buffer_is_read(bits: int, wrap: Callable[[bytes], object]) -> None:
    symbols = np.array([1, 0, 3, 2, 1], np.float32 if bits == 32 else np.uint8)
    got = unpack(wrap(pack(symbols, bits)), 5, bits)  # type: ignore[arg-type]
    assert got.tolist() == symbols.tolist()


@pytest.mark.parametrize(
    ('bits', 'dtype'), [(2, 'u1'), (4, 'u1'), (8, 'u1'), (16, 'u2'), (32, 'f4')]
)
def test_result_is_a_new_native_array(bits: int, dtype: str) -> None:
    got = unpack(bytes(packed_size(5, bits)), 5, bits)
    assert got.dtype == np.dtype(dtype)
    assert got.dtype.isnative
    assert got.shape == (5,)
    assert got.flags.writeable
    assert got.flags.c_contiguous


@given(symbol_lists(), st.integers(-2, 2).filter(bool))
def test_wrong_lengths_are_refused(drawn: tuple[int, list[int]], more: int) -> None:
    bits, symbols = drawn
    size = max(0, packed_size(len(symbols), bits) + more)
    if size != packed_size(len(symbols), bits):
        with pytest.raises(ValueError, match=f'but there are {size}'):
            unpack(bytes(size), len(symbols), bits)


@pytest.mark.parametrize('bits', [2, 4])
def test_spare_bits_are_refused(bits: int) -> None:
    for count in range(1, 8):
        used = count * bits % 8
        for bit in range(used, 8 if used else 0):
            data = bytearray(packed_size(count, bits))
            data[-1] = 1 << bit
            with pytest.raises(ValueError, match='unused bits'):
                unpack(data, count, bits)


@pytest.mark.parametrize('bits', INTEGER_DEPTHS)
def test_symbols_that_do_not_fit_are_refused(bits: int) -> None:
    for symbol in (-1, 2**bits, 2**31):
        with pytest.raises(ValueError, match=f'do not fit {bits} bits'):
            pack(np.array([0, symbol]), bits)


def test_wrong_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match='symbols are integers'):
        pack(np.zeros(3), 4)
    with pytest.raises(ValueError, match='elements are floats'):
        pack(np.zeros(3, np.int32), 32)
    with pytest.raises(ValueError, match='cannot be packed'):
        packed_size(-1, 4)


@pytest.mark.parametrize('bits', [0, 1, 3, 7, 9, 17, 24, 64, -8])
def test_unknown_depths_are_refused(bits: int) -> None:
    for call in (
        lambda: packed_size(1, bits),
        lambda: pack(np.zeros(1, np.uint8), bits),
        lambda: unpack(b'', 1, bits),
    ):
        with pytest.raises(ValueError, match='not one of 2, 4, 8, 16, 32'):
            call()


def test_absurd_counts_take_no_memory() -> None:
    assert packed_size(2**32 * 2**32 * 2**16, 16) == 2**81
    with pytest.raises(ValueError, match='but there are 1'):
        unpack(b'\0', 2**64, 8)


@pytest.mark.parametrize('bits', BIT_DEPTHS)
def test_is_vectorised(bits: int) -> None:
    """A megapixel of symbols in well under a second: a Python loop would take several."""
    rng = np.random.default_rng(0)
    symbols = rng.random(2**20, np.float32) if bits == 32 else rng.integers(0, 2**bits, 2**20)
    start = time.process_time()
    assert (unpack(pack(symbols, bits), symbols.size, bits) == symbols).all()
    assert time.process_time() - start < 0.5


def test_vectors(wire_vectors: dict) -> None:
    for vector in wire_vectors['packing']:
        symbols, bits = vector['symbols'], vector['bits']
        data = bytes.fromhex(vector['hex'])
        assert plain.pack(symbols, bits) == data, vector
        assert pack(np.array(symbols, np.uint32), bits) == data, vector
        assert unpack(data, len(symbols), bits).tolist() == symbols, vector
    for vector in wire_vectors['floats']:
        data = bytes.fromhex(vector['hex'])
        assert pack(np.array(vector['values'], np.float32), 32) == data, vector
        assert unpack(data, len(vector['values']), 32).tolist() == vector['values'], vector


def test_order_vector(wire_vectors: dict) -> None:
    vector = wire_vectors['order']
    code = np.array(vector['code'])
    channels, height, width = code.shape
    flat = [
        vector['code'][c][y][x]
        for c in range(channels)
        for y in range(height)
        for x in range(width)
    ]
    assert plain.pack(flat, vector['bits']).hex() == vector['hex']
    assert pack(code, vector['bits']).hex() == vector['hex']


def test_every_depth_has_vectors(wire_vectors: dict) -> None:
    for key in ('packing', 'values', 'nearest'):
        assert {vector['bits'] for vector in wire_vectors[key]} == set(INTEGER_DEPTHS), key

"""The quantiser: nearest level, half a step at most, exact end points, nothing but numbers."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import ArrayLike, DTypeLike, NDArray

import plain
from msfc.wire.quantizer import BIT_DEPTHS, dequantize, quantize

INTEGER_DEPTHS = [bits for bits in BIT_DEPTHS if bits < 32]
DEPTHS = st.sampled_from(INTEGER_DEPTHS)
UNIT = st.floats(-1, 1, width=32)
CODES = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, max_side=6), elements=UNIT)


def received(code: ArrayLike, bits: int) -> NDArray[np.float32]:
    """Return what the receiver sees of a code."""
    return dequantize(quantize(code, bits), bits)


def float32_bits(value: float) -> str:
    """Return the bit pattern of a float32."""
    return struct.pack('>f', value).hex()


@given(code=CODES, bits=DEPTHS)
def test_symbols_are_integers_in_range(code: np.ndarray, bits: int) -> None:
    symbols = quantize(code, bits)
    assert symbols.dtype == np.int32
    assert symbols.shape == code.shape
    assert ((symbols >= 0) & (symbols < 2**bits)).all()


@given(value=UNIT, bits=DEPTHS)
def test_error_is_at_most_half_a_step(value: float, bits: int) -> None:
    symbol = int(quantize(np.float32(value), bits))
    error = abs(plain.value(symbol, bits) - Fraction(value))
    # Exact arithmetic, so no tolerance but for float64's, next to the tie at 0.
    assert error <= plain.step(bits) / 2 + Fraction(1, 2**53)
    got = float(received(np.float32(value), bits))
    assert abs(got - value) <= 1 / (2**bits - 1) + 2**-25  # + rounding to float32 below 1


@pytest.mark.parametrize('bits', INTEGER_DEPTHS)
def test_every_symbol_survives(bits: int) -> None:
    symbols = np.arange(2**bits, dtype=np.int32)
    values = dequantize(symbols, bits)
    assert (quantize(values, bits) == symbols).all()
    assert (received(values, bits) == values).all()
    assert (np.diff(values) > 0).all()


@pytest.mark.parametrize('bits', INTEGER_DEPTHS)
def test_values_are_exact_fractions_rounded_once(bits: int) -> None:
    values = dequantize(np.arange(2**bits), bits)
    for symbol in range(0, 2**bits, max(1, 2**bits // 4096)):
        got = values[symbol]
        exact = plain.value(symbol, bits)
        error = abs(Fraction(float(got)) - exact)
        for neighbour in (np.nextafter(got, np.float32(-2)), np.nextafter(got, np.float32(2))):
            assert error <= abs(Fraction(float(neighbour)) - exact)


@pytest.mark.parametrize('bits', INTEGER_DEPTHS)
def test_levels_are_symmetric_and_end_on_one(bits: int) -> None:
    values = dequantize(np.arange(2**bits), bits)
    assert values[0] == -1
    assert values[-1] == 1
    assert (values[::-1] == -values).all()


@pytest.mark.parametrize('bits', INTEGER_DEPTHS)
def test_midpoints_go_to_the_nearest_level_on_either_side(bits: int) -> None:
    """Just beside each boundary of two levels; in float32 arithmetic 16 bits would fail."""
    top = 2**bits - 1
    symbols = np.arange(0, top, max(1, top // 5000))
    symbols = symbols[2 * symbols + 1 != top]  # 0 is a tie; what is next to it has no room in it
    boundaries = ((2 * symbols + 1) - top) / top
    beside = boundaries.astype(np.float32)
    below, above = np.nextafter(beside, np.float32(-2)), np.nextafter(beside, np.float32(2))
    assert (quantize(below, bits) == symbols).all()
    assert (quantize(above, bits) == symbols + 1).all()


@given(value=st.floats(width=32, allow_nan=False), bits=DEPTHS)
def test_out_of_range_is_clamped(value: float, bits: int) -> None:
    clamped = min(max(value, -1.0), 1.0)
    assert quantize(np.float32(value), bits) == quantize(np.float32(clamped), bits)


@pytest.mark.parametrize('bits', BIT_DEPTHS)
def test_infinity_is_clamped(bits: int) -> None:
    values = np.array([-np.inf, np.inf], np.float32)
    assert received(values, bits).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize('bits', BIT_DEPTHS)
def test_nan_is_refused(bits: int) -> None:
    with pytest.raises(ValueError, match='not numbers'):
        quantize(np.array([0.0, np.nan], np.float32), bits)


@given(code=CODES)
def test_float32_is_exact(code: np.ndarray) -> None:
    assert received(code, 32).tobytes() == code.tobytes()  # bits, the sign of zero included


@pytest.mark.parametrize('dtype', [np.float16, np.float64])
def test_other_floats_are_taken(dtype: DTypeLike) -> None:
    code = np.array([-1.0, -0.25, 1.0], dtype)
    assert (quantize(code, 8) == quantize(code.astype(np.float32), 8)).all()
    assert received(code, 32).dtype == np.float32


@pytest.mark.parametrize('dtype', [np.uint8, np.int32, np.int64])
def test_symbols_of_any_integer_type_are_taken(dtype: DTypeLike) -> None:
    assert dequantize(np.array([0, 255], dtype), 8).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize('bits', [-1, 0, 1, 3, 5, 12, 31, 33, 64])
def test_unknown_depths_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match='not one of 2, 4, 8, 16, 32'):
        quantize(np.zeros(1, np.float32), bits)
    with pytest.raises(ValueError, match='not one of 2, 4, 8, 16, 32'):
        dequantize(np.zeros(1, np.float32), bits)


@given(code=hnp.arrays(np.float32, 40, elements=st.floats(width=32, allow_nan=False)), bits=DEPTHS)
def test_torch_gives_the_same(code: np.ndarray, bits: int) -> None:
    """Symbols and values do not depend on who computes them."""
    torch = pytest.importorskip('torch')
    top = 2**bits - 1
    clamped = torch.from_numpy(code).clamp(-1.0, 1.0).double()
    symbols = ((clamped * top + top) / 2).round().to(torch.int32)
    assert (symbols.numpy() == quantize(code, bits)).all()
    values = (symbols * 2 - top).float() / top
    assert (values.numpy() == dequantize(symbols.numpy(), bits)).all()


def test_vectors(wire_vectors: dict) -> None:
    for vector in wire_vectors['values']:
        symbol, bits = vector['symbol'], vector['bits']
        value = float(dequantize(symbol, bits))
        assert float32_bits(value) == vector['ieee754'], vector
        assert float32_bits(float(plain.value(symbol, bits))) == vector['ieee754'], vector
    for vector in wire_vectors['nearest']:
        value, bits = vector['value'], vector['bits']
        assert quantize(np.float32(value), bits) == vector['symbol'], vector
        nearby = range(max(0, vector['symbol'] - 3), min(2**bits, vector['symbol'] + 4))
        distances = {symbol: abs(plain.value(symbol, bits) - Fraction(value)) for symbol in nearby}
        assert min(distances, key=lambda s: distances[s]) == vector['symbol'], vector

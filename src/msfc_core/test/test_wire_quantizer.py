"""The quantiser: nearest level, half a step at most, exact end points, nothing but numbers."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import plain
from msfc.wire.quantizer import BIT_DEPTHS, dequantize, quantize, quantize_dequantize

INTEGER_DEPTHS = [bits for bits in BIT_DEPTHS if bits < 32]
DEPTHS = st.sampled_from(INTEGER_DEPTHS)
UNIT = st.floats(-1, 1, width=32)
CODES = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, max_side=6), elements=UNIT)


def float32_bits(value: float) -> str:
    """Return the bit pattern of a float32."""
    return struct.pack('>f', value).hex()


@given(code=CODES, bits=DEPTHS)
def test_symbols_are_integers_in_range(code: np.ndarray, bits: int) -> None:
    symbols = quantize(torch.from_numpy(code), bits)
    assert symbols.dtype == torch.int32
    assert symbols.shape == code.shape
    assert ((symbols >= 0) & (symbols < 2**bits)).all()


@given(value=UNIT, bits=DEPTHS)
def test_error_is_at_most_half_a_step(value: float, bits: int) -> None:
    symbol = int(quantize(torch.tensor(value), bits))
    error = abs(plain.value(symbol, bits) - Fraction(value))
    # Exact arithmetic, so no tolerance but for float64's, next to the tie at 0.
    assert error <= plain.step(bits) / 2 + Fraction(1, 2**53)
    received = float(quantize_dequantize(torch.tensor(value), bits))
    assert abs(received - value) <= 1 / (2**bits - 1) + 2**-25  # + rounding to float32 below 1


@pytest.mark.parametrize('bits', INTEGER_DEPTHS)
def test_every_symbol_survives(bits: int) -> None:
    symbols = torch.arange(2**bits, dtype=torch.int32)
    values = dequantize(symbols, bits)
    assert torch.equal(quantize(values, bits), symbols)
    assert torch.equal(quantize_dequantize(values, bits), values)
    assert (values.diff() > 0).all()


@pytest.mark.parametrize('bits', INTEGER_DEPTHS)
def test_values_are_exact_fractions_rounded_once(bits: int) -> None:
    values = dequantize(torch.arange(2**bits), bits)
    for symbol in range(0, 2**bits, max(1, 2**bits // 4096)):
        got = np.float32(values[symbol].item())
        exact = plain.value(symbol, bits)
        error = abs(Fraction(float(got)) - exact)
        for neighbour in (np.nextafter(got, np.float32(-2)), np.nextafter(got, np.float32(2))):
            assert error <= abs(Fraction(float(neighbour)) - exact)


@pytest.mark.parametrize('bits', INTEGER_DEPTHS)
def test_levels_are_symmetric_and_end_on_one(bits: int) -> None:
    values = dequantize(torch.arange(2**bits), bits)
    assert values[0] == -1
    assert values[-1] == 1
    assert torch.equal(values.flip(0), -values)


@pytest.mark.parametrize('bits', INTEGER_DEPTHS)
def test_midpoints_go_to_the_nearest_level_on_either_side(bits: int) -> None:
    """Just beside each boundary of two levels; in float32 arithmetic 16 bits would fail."""
    top = 2**bits - 1
    symbols = np.arange(0, top, max(1, top // 5000))
    symbols = symbols[2 * symbols + 1 != top]  # 0 is a tie; what is next to it has no room in it
    boundaries = ((2 * symbols + 1) - top) / top
    beside = boundaries.astype(np.float32)
    below, above = np.nextafter(beside, np.float32(-2)), np.nextafter(beside, np.float32(2))
    assert (quantize(torch.from_numpy(below), bits).numpy() == symbols).all()
    assert (quantize(torch.from_numpy(above), bits).numpy() == symbols + 1).all()


@given(value=st.floats(width=32, allow_nan=False), bits=DEPTHS)
def test_out_of_range_is_clamped(value: float, bits: int) -> None:
    clamped = min(max(value, -1.0), 1.0)
    assert quantize(torch.tensor(value), bits) == quantize(torch.tensor(clamped), bits)


@pytest.mark.parametrize('bits', BIT_DEPTHS)
def test_infinity_is_clamped(bits: int) -> None:
    values = torch.tensor([-torch.inf, torch.inf])
    assert quantize_dequantize(values, bits).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize('bits', BIT_DEPTHS)
def test_nan_is_refused(bits: int) -> None:
    with pytest.raises(ValueError, match='not numbers'):
        quantize(torch.tensor([0.0, torch.nan]), bits)


@given(code=CODES)
def test_float32_is_exact(code: np.ndarray) -> None:
    received = quantize_dequantize(torch.from_numpy(code), 32)
    assert received.numpy().tobytes() == code.tobytes()  # bits, the sign of zero included


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_taken(dtype: torch.dtype) -> None:
    code = torch.tensor([-1.0, -0.25, 1.0], dtype=dtype)
    assert torch.equal(quantize(code, 8), quantize(code.float(), 8))
    assert quantize_dequantize(code, 32).dtype == torch.float32


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int32, torch.int64])
def test_symbols_of_any_integer_type_are_taken(dtype: torch.dtype) -> None:
    assert dequantize(torch.tensor([0, 255], dtype=dtype), 8).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize('bits', [-1, 0, 1, 3, 5, 12, 31, 33, 64])
def test_unknown_depths_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match='not one of 2, 4, 8, 16, 32'):
        quantize(torch.zeros(1), bits)
    with pytest.raises(ValueError, match='not one of 2, 4, 8, 16, 32'):
        dequantize(torch.zeros(1), bits)


def test_vectors(wire_vectors: dict) -> None:
    for vector in wire_vectors['values']:
        symbol, bits = vector['symbol'], vector['bits']
        value = dequantize(torch.tensor(symbol), bits).item()
        assert float32_bits(value) == vector['ieee754'], vector
        assert float32_bits(float(plain.value(symbol, bits))) == vector['ieee754'], vector
    for vector in wire_vectors['nearest']:
        value, bits = vector['value'], vector['bits']
        assert quantize(torch.tensor(value), bits) == vector['symbol'], vector
        nearby = range(max(0, vector['symbol'] - 3), min(2**bits, vector['symbol'] + 4))
        distances = {symbol: abs(plain.value(symbol, bits) - Fraction(value)) for symbol in nearby}
        assert min(distances, key=lambda s: distances[s]) == vector['symbol'], vector

"""The uniform quantiser over [-1, 1].

Symbol ``s`` of ``n`` bits stands for the value ``(2 s - L) / L`` with ``L = 2**n - 1``: there are
2**n levels, the first and last on -1 and 1, and the error is at most half a step, ``1 / L``.
``n = 32`` means float32: values pass unchanged. ``docs/wire-format.md`` is the definition.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

BIT_DEPTHS = (2, 4, 8, 16, 32)
"""Bits per code element that packed payloads know; 32 is float32, without a quantiser."""

FLOAT_BITS = 32
"""The bit depth that stands for float32."""


def check_bit_depth(bits: int) -> int:
    """Return ``bits``.

    Raises:
        ValueError: if it is not one of :data:`BIT_DEPTHS`.
    """
    if bits not in BIT_DEPTHS:
        choices = ', '.join(str(choice) for choice in BIT_DEPTHS)
        raise ValueError(f'bit depth {bits} is not one of {choices}')
    return bits


def quantize(code: ArrayLike, bits: int) -> NDArray[Any]:
    """Quantise a code to the nearest level.

    Args:
        code: floats of any shape; what is outside [-1, 1] is clamped.
        bits: one of :data:`BIT_DEPTHS`.

    Returns:
        int32 symbols 0 .. 2**bits - 1 of the same shape; for 32 bits the clamped float32 values.

    Raises:
        ValueError: if the bit depth is unknown or a value is not a number.
    """
    check_bit_depth(bits)
    values = np.asarray(code)
    if np.isnan(values).any():
        raise ValueError('the code has values that are not numbers (NaN)')
    values = np.clip(values, -1.0, 1.0)
    if bits == FLOAT_BITS:
        return values.astype(np.float32)
    top = 2**bits - 1
    # In float32 the sum would lose up to 2**-8 of a 16 bit step, and with it the nearest level.
    scaled: NDArray[np.float64] = (values.astype(np.float64) * top + top) / 2
    return np.rint(scaled).astype(np.int32)


def dequantize(symbols: ArrayLike, bits: int) -> NDArray[np.float32]:
    """Return the values that symbols stand for.

    Args:
        symbols: integers 0 .. 2**bits - 1 of any shape; for 32 bits floats.
        bits: one of :data:`BIT_DEPTHS`.

    Returns:
        float32 values of the same shape. Numerator and denominator are exact in float32, so their
        quotient is the same on every machine with IEEE 754 division.

    Raises:
        ValueError: if the bit depth is unknown.
    """
    check_bit_depth(bits)
    if bits == FLOAT_BITS:
        return np.asarray(symbols, np.float32)
    top = 2**bits - 1
    numerators = np.asarray(symbols, np.int32) * 2 - top
    values: NDArray[np.float32] = numerators.astype(np.float32) / np.float32(top)
    return values

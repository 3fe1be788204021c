"""Packing of n-bit symbols into bytes, bit-exact as in ``docs/wire-format.md``.

All bit depths follow one rule: the payload is a string of bits, least significant bit of each
byte first, and element ``i`` is bits ``i n .. i n + n - 1`` of it, its own least significant bit
first. So 8 bits are the bytes themselves, 16 bits little-endian unsigned integers, and 32 bits
little-endian IEEE 754 floats.
"""

from __future__ import annotations

from array import array
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msfc.wire.quantizer import FLOAT_BITS, check_bit_depth

Bytes: TypeAlias = bytes | bytearray | memoryview | array | NDArray[Any]
"""What bytes are read from without a copy; contiguous."""

_DTYPES: dict[int, np.dtype[Any]] = {
    8: np.dtype('<u1'),
    16: np.dtype('<u2'),
    FLOAT_BITS: np.dtype('<f4'),
}


def packed_size(count: int, bits: int) -> int:
    """Return the bytes that ``count`` elements of ``bits`` bits take.

    Raises:
        ValueError: if the bit depth is unknown or the count negative.
    """
    check_bit_depth(bits)
    if count < 0:
        raise ValueError(f'{count} elements cannot be packed')
    return -(-count * bits // 8)


def byte_length(data: Bytes) -> int:
    """Return the length in bytes, whatever the items of ``data`` are."""
    exporter: Any = data  # type checkers know of ndarray's buffer from Python 3.12 on
    return memoryview(exporter).nbytes


def spare_bits(data: Bytes, count: int, bits: int) -> int:
    """Return the bits of the last byte that no element uses, as an integer; they must be zero.

    ``data`` has ``packed_size(count, bits)`` bytes.
    """
    used = count * bits % 8
    return int(np.frombuffer(data, np.uint8)[-1]) >> used if used else 0


def pack(symbols: ArrayLike, bits: int) -> bytes:
    """Pack symbols.

    Args:
        symbols: integers 0 .. 2**bits - 1 of any shape, taken in C order; for 32 bits floats.
        bits: one of ``BIT_DEPTHS``.

    Returns:
        ``packed_size(count, bits)`` bytes; spare bits of the last one are zero.

    Raises:
        ValueError: if the bit depth is unknown, or a symbol is no integer of that many bits.
    """
    check_bit_depth(bits)
    flat = np.asarray(symbols).reshape(-1)
    if bits == FLOAT_BITS:
        if not np.issubdtype(flat.dtype, np.floating):
            raise ValueError(f'32 bit elements are floats, got {flat.dtype}')
        return flat.astype(_DTYPES[FLOAT_BITS]).tobytes()
    if flat.size == 0:
        return b''
    if not np.issubdtype(flat.dtype, np.integer):
        raise ValueError(f'{bits} bit symbols are integers, got {flat.dtype}')
    low, high = int(flat.min()), int(flat.max())
    if low < 0 or high >= 2**bits:
        raise ValueError(f'symbols {low} .. {high} do not fit {bits} bits')
    if bits >= 8:
        return flat.astype(_DTYPES[bits]).tobytes()
    per_byte = 8 // bits
    padded = np.zeros(packed_size(flat.size, bits) * per_byte, np.uint8)
    padded[: flat.size] = flat
    packed = padded[::per_byte].copy()
    for place in range(1, per_byte):
        packed |= padded[place::per_byte] << np.uint8(place * bits)
    return packed.tobytes()


def unpack(data: Bytes, count: int, bits: int) -> NDArray[Any]:
    """Unpack symbols.

    Args:
        data: contiguous bytes (``bytes``, ``array.array('B')``, uint8 array, ...).
        count: number of elements.
        bits: one of ``BIT_DEPTHS``.

    Returns:
        A new array of ``count`` symbols: uint8 up to 8 bits, uint16 for 16, float32 for 32.

    Raises:
        ValueError: if the bit depth is unknown, the length is not ``packed_size(count, bits)``,
            or spare bits of the last byte are not zero.
    """
    needed = packed_size(count, bits)
    length = byte_length(data)
    if length != needed:
        raise ValueError(
            f'{count} elements of {bits} bits take {needed} bytes, but there are {length}'
        )
    packed = np.frombuffer(data, np.uint8)
    if spare_bits(data, count, bits):
        raise ValueError('the unused bits of the last byte are not zero')
    if bits >= 8:
        return packed.view(_DTYPES[bits]).astype(_DTYPES[bits].newbyteorder('='))
    per_byte = 8 // bits
    symbols = np.empty((needed, per_byte), np.uint8)
    for place in range(per_byte):
        symbols[:, place] = packed >> np.uint8(place * bits)
    symbols &= 2**bits - 1
    return symbols.reshape(-1)[:count]

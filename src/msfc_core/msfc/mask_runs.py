"""Masks as COCO's compressed run lengths, which is what ``Instance.packed_mask`` holds.

The bytes are those of pycocotools, tested against it. It is not used itself: robots do not have
it, and it reads beyond bytes that are broken. Nothing of what comes from the network is trusted.

The pixels are taken column by column. Runs alternate, the first one is of pixels outside and may
be 0. From the fourth run on a run is written as its difference to the last but one. Numbers have
five bits a byte, low ones first, in two's complement; the sixth bit says that more follow; 48 is
added to each byte.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST_PIXELS = 2**26
"""Pixels of a mask at most, as a few bytes can claim any number."""

_BITS = 5
_VALUE, _SIGN, _MORE = 31, 16, 32
_OFFSET = 48
_MOST_BYTES = 6
"""Of a number: 30 bits hold any run of so many pixels, and any difference of two."""


def pack_mask(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a mask's compressed run lengths; no bytes for a mask without pixels.

    Args:
        mask: H x W.

    Raises:
        ValueError: if it has too many pixels.
    """
    if mask.size > MOST_PIXELS:
        raise ValueError(f'a mask has {mask.size} pixels, but {MOST_PIXELS} are the most')
    if not mask.size:
        return np.empty(0, np.uint8)
    pixels = mask.T.ravel()
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    # A mask that begins inside has a run of nothing before.
    start = [0, 0] if pixels[0] else [0]
    runs = np.diff(np.concatenate([start, changes, [pixels.size]]))
    numbers = runs.copy()
    numbers[3:] -= runs[1:-2]
    return _write(numbers)


def unpack_mask(data: bytes | NDArray[np.uint8], height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask that compressed run lengths hold, H x W.

    Args:
        data: the bytes.
        height: rows of the mask.
        width: its columns.

    Raises:
        ValueError: if they are not the run lengths of a mask of this size, or it is too large.
    """
    pixels = height * width
    if not 0 <= pixels <= MOST_PIXELS:
        raise ValueError(f'a mask of {width} x {height} pixels is not accepted')
    numbers = _read(np.frombuffer(data, np.uint8))
    runs = numbers.copy()
    # Of each kind, the first run stands for itself, and so does the second one outside.
    runs[1::2] = np.cumsum(numbers[1::2])
    runs[2::2] = np.cumsum(numbers[2::2])
    if runs.size and (runs.min() < 0 or runs.max() > pixels):
        raise ValueError('the run lengths of a packed mask are no counts of its pixels')
    if runs.sum() != pixels:
        raise ValueError(
            f'the runs of a packed mask have {runs.sum()} pixels, but its box has {width} x '
            f'{height}'
        )
    inside = np.arange(runs.size) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T


def _write(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return numbers as bytes."""
    rest = numbers.astype(np.int64)
    more = np.ones(rest.shape, bool)
    columns, used = [], []
    while more.any():
        used.append(more)
        part = rest & _VALUE
        rest = rest >> _BITS
        more = more & np.where(part & _SIGN, rest != -1, rest != 0)
        columns.append(part + np.where(more, _MORE, 0) + _OFFSET)
    return np.stack(columns, 1)[np.stack(used, 1)].astype(np.uint8)


def _read(data: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the numbers that bytes hold."""
    if not data.size:
        return np.empty(0, np.int64)
    parts = data.astype(np.int64) - _OFFSET
    last = (parts & _MORE) == 0
    if parts.min() < 0 or parts.max() >= 2 * _MORE or not last[-1]:
        raise ValueError('the bytes of a packed mask are no run lengths')
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MOST_BYTES:
        raise ValueError('a run length of a packed mask has too many bytes')
    place = np.arange(data.size) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((parts & _VALUE) << (_BITS * place), starts)
    negative = (parts[ends] & _SIGN) != 0
    return np.where(negative, numbers - (1 << (_BITS * lengths)), numbers)

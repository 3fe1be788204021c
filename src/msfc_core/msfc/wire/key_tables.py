"""Coding 1 against a key frame: how its values move means and scales, in whole numbers.

``docs/wire-format.md`` is the definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfc.types import Size
from msfc.wire.coder import Key
from msfc.wire.entropy import SCALES, TOP_VALUE, Ints, board, clipped, whole

DISTANCES = (4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
"""Where classes of distances between a mean and the key frame's value begin, in 64ths."""

SHARES = (32, 10, 5, 2)
"""Classes of changes: more than one in so many of the values around a cell."""

CHANGED = 32
"""A value that is so many 64ths from the key frame's has changed."""

HYPER_DISTANCES = (1, 2, 3, 5, 9)
"""Where classes of distances begin in the hyper-latent, in whole numbers."""

FULL = 16
"""The weight that moves a mean all the way."""

GAIN_BITS, OFFSET_BITS = 16, 22
"""Fractional bits of the gains and offsets that take values from one rate to another."""

TOP_GAIN, TOP_OFFSET = 2**24, 2**30

CODE_CLASSES = (SCALES, len(DISTANCES) + 1, len(SHARES) + 2)
"""Classes of a value of the code: of its scale, of the distance, of changes around it."""

DEFAULT_WEIGHTS = (10, 13, 11, 5, 2, 1)
"""By class of changes, how far means move where nothing was fitted."""

DEFAULT_CUTS = (3, 6, 5, 2, 0, 0)
"""By class of changes, by how many sixteenths of it the index of a scale then falls."""

DEFAULT_HYPER_WEIGHT, DEFAULT_HYPER_CUT = 12, 5
"""The same of the hyper-latent where it differs from the key frame's; there the index falls by
so many."""

KEY_ARRAYS = ('key_weight', 'key_scale', 'key_frequencies', 'key_hyper_weight', 'key_hyper_scale')
"""What a model may have for coding against key frames; else it has the defaults."""

Indices = NDArray[np.uint8]


@dataclass(frozen=True)
class Move:
    """How a key frame moves the means and scales of a pass; arrays of one shape.

    Attributes:
        place: of each in the flattened tables.
        distance: from the mean to the key frame's value.
        shift: what is added to the means.
        index: the indices of the scales in place of those before.
    """

    place: NDArray[np.intp]
    distance: Ints
    shift: Ints
    index: Indices


class KeyTables:
    """The tables of a model.

    Args:
        arrays: those of :data:`KEY_ARRAYS`, or none of them; ``inverse_gain`` and
            ``rate_offset``.
        hyper_index: R x C_z indices of the hyper-latent's scales.

    Raises:
        ValueError: the arrays do not fit each other.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], hyper_index: Indices) -> None:
        tables = {
            name: _table(name, arrays.get(name, default), default)
            for name, default in default_key_arrays(hyper_index).items()
        }
        self.weight, self.hyper_weight = tables['key_weight'], tables['key_hyper_weight']
        self.scale = tables['key_scale'].astype(np.uint8)
        self.hyper_scale = tables['key_hyper_scale'].astype(np.uint8)
        # What has no table is not written: a key frame neither makes it so nor changes it.
        self.weight[:, 0] = self.scale[:, 0] = 0
        np.maximum(self.scale[:, 1:], 1, out=self.scale[:, 1:])
        gain = whole(arrays['inverse_gain'], GAIN_BITS, TOP_GAIN)
        self._gain = np.maximum(gain, 1).astype(np.int64)
        self._offset = whole(arrays['rate_offset'], OFFSET_BITS, TOP_OFFSET).astype(np.int64)

    def values(self, key: Key, rate: int) -> Ints:
        """Return a key frame's values as they are at a rate, h w x C'."""
        values = key.values.astype(np.int32)
        if key.rate == rate:
            return values
        gain = self._gain[rate]
        moved = values * self._gain[key.rate] + self._offset[key.rate] - self._offset[rate]
        scaled = (2 * moved + gain) // (2 * gain)
        return scaled.clip(-TOP_VALUE, TOP_VALUE).astype(np.int32)

    def move_hyper(self, key: Key, rate: int, mean: Ints) -> Move | None:
        """Return how the hyper-latent's means and scales move; None if they stay.

        Args:
            key: the key frame; of another rate it tells nothing here.
            rate: the frame's.
            mean: C_z x h_z x w_z.
        """
        if key.rate != rate:
            return None
        distance = key.side.astype(np.int32) - mean
        classes = np.searchsorted(HYPER_DISTANCES, np.abs(distance), side='right')
        channels = np.arange(len(mean))[:, None, None]
        place = (rate * len(mean) + channels) * (len(HYPER_DISTANCES) + 1) + classes
        return _move(place, distance, self.hyper_weight, self.hyper_scale)


def default_key_arrays(hyper_index: Indices) -> dict[str, NDArray[np.uint8]]:
    """Return what takes the place of the :data:`KEY_ARRAYS` that a model does not have.

    The frequencies then are those of what is coded alone.

    Args:
        hyper_index: R x C_z indices of the hyper-latent's scales.
    """
    index = np.arange(SCALES)[:, None, None]
    scale = np.maximum(index - index * np.array(DEFAULT_CUTS) // FULL, 1)
    lower = np.maximum(hyper_index[..., None].astype(np.int32) - DEFAULT_HYPER_CUT, 1)
    shape = (len(hyper_index), *CODE_CLASSES)
    hyper = (*hyper_index.shape, len(HYPER_DISTANCES) + 1)
    differs = np.arange(hyper[2]) > 0
    tables = {
        'key_weight': np.broadcast_to(DEFAULT_WEIGHTS, shape),
        'key_scale': np.broadcast_to(scale, shape),
        'key_hyper_weight': np.broadcast_to(DEFAULT_HYPER_WEIGHT * differs, hyper),
        'key_hyper_scale': np.broadcast_to(lower, hyper),
    }
    return {name: table.astype(np.uint8) for name, table in tables.items()}


def _table(name: str, values: NDArray[Any], default: NDArray[np.uint8]) -> Ints:
    table = np.array(values, np.int32)
    top = FULL if name.endswith('weight') else SCALES - 1
    if table.shape != default.shape or table.min() < 0 or table.max() > top:
        raise ValueError(f'{name} is not of shape {default.shape} with numbers from 0 to {top}')
    return table


def _move(
    place: NDArray[np.intp], distance: Ints, weight: Ints, scale: Indices
) -> Move:
    shift = weighted(weight.ravel()[place], distance)
    return Move(place, distance, shift, scale.ravel()[place])


def weighted(weight: Ints | int, distance: Ints) -> Ints:
    """Return a part of some distances, in sixteenths, rounded half up."""
    return (weight * distance + FULL // 2) // FULL


class Guide:
    """What a key frame tells of a frame, while that is coded.

    Args:
        tables: the model's.
        rate: the frame's.
        values: the key frame's at that rate, h w x C'.
        size: height and width of the code.
        slices: how many channels are decoded at a time.
    """

    def __init__(
        self, tables: KeyTables, rate: int, values: Ints, size: Size, slices: tuple[int, ...]
    ) -> None:
        self._tables, self._rate, self._size = tables, rate, size
        ends = np.cumsum(slices)
        self._slices = [values[:, end - n : end] for n, end in zip(slices, ends, strict=True)]
        # A cell more all around.
        self._changed = np.zeros((size[0] + 2, size[1] + 2), np.int32)
        self._known = np.zeros_like(self._changed)

    def move(self, step: int, means: Ints, index: Indices) -> Move:
        """Return how the means and scales of a pass move, each M x slice."""
        cells = board(*self._size).cells[step % 2]
        distance = self._slices[step // 2][cells] - means
        classes = np.searchsorted(DISTANCES, np.abs(distance), side='right')
        place = self._rate * CODE_CLASSES[0] + index.astype(np.intp)
        place = (place * CODE_CLASSES[1] + classes) * CODE_CLASSES[2]
        place += self._changes()[cells, None]
        return _move(place, distance, self._tables.weight, self._tables.scale)

    def learn(self, step: int, values: Ints) -> None:
        """Take note of the values of a pass, M x slice."""
        board_ = board(*self._size)
        cells, places = board_.cells[step % 2], board_.places[step % 2]
        distance = np.abs(clipped(values) - self._slices[step // 2][cells])
        self._changed.ravel()[places] += (distance >= CHANGED).sum(1, dtype=np.int32)
        self._known.ravel()[places] += values.shape[1]

    def _changes(self) -> NDArray[np.intp]:
        """Return the class of what was seen of changes around each cell, h w."""
        changed, known = _around(self._changed), _around(self._known)
        level = (known > 0).astype(np.intp)
        for share in SHARES:
            level += share * changed > known
        return level


def _around(numbers: Ints) -> Ints:
    """Return the sums over the 3 x 3 cells around each, h w, of a map with a cell more around."""
    rows = numbers[:-2] + numbers[1:-1] + numbers[2:]
    sums: Ints = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]).ravel()
    return sums

"""Fitting the tables of coding against key frames, by counting on pairs of frames.

For each class of values it is counted how large the symbols would be if the mean moved by each of
some weights; with the bits that the tables of the scales take for them, the cheapest weight and
scale follow. The robot needs none of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfc.wire.coder import Code, Key
from msfc.wire.entropy import SCALES, Ints
from msfc.wire.key_tables import (
    CODE_CLASSES,
    FULL,
    HYPER_DISTANCES,
    KEY_ARRAYS,
    Indices,
    Move,
    default_key_arrays,
    weighted,
)
from msfc.wire.learned import LearnedCoder, fitted_tables
from msfc.wire.range_coder import TOTAL

WEIGHTS = tuple(range(0, FULL + 1, 2))
"""The weights that are tried."""

SIZES = np.array((*range(16), 18, 22, 28, 40, 70, 150))
"""What absolute values of symbols are counted as."""

EDGES = np.array((*range(1, 17), 20, 24, 32, 48, 96))
"""Where the next of these begins."""

ESCAPE_BITS = 12
"""Bits of a symbol that is written in full, besides."""

EVIDENCE = 24
"""Symbols of a class, of all rates, below which it has the default."""

SHARED = 100.0
"""Symbols of other rates that count at each."""


ROUNDS = 2
"""How often tables are fitted."""


class MoveCounts:
    """How large symbols would be, by class and weight.

    Args:
        rates: number of rates.
        hyper_channels: channels of the hyper-latent.
    """

    def __init__(self, rates: int, hyper_channels: int) -> None:
        code = rates * math.prod(CODE_CLASSES)
        hyper = rates * hyper_channels * (len(HYPER_DISTANCES) + 1)
        self.code = np.zeros((len(WEIGHTS), code, len(SIZES)), np.int32)
        self.hyper = np.zeros((len(WEIGHTS), hyper, len(SIZES)), np.int32)

    def add_code(self, move: Move, wanted: NDArray[np.float32]) -> None:
        """Count a pass of the code.

        Args:
            move: how it was moved.
            wanted: its values from the moved means, in whole symbols, before rounding.
        """
        _count(self.code, move, wanted, 64)

    def add_hyper(self, move: Move, wanted: NDArray[np.float32]) -> None:
        """Count a hyper-latent, likewise."""
        _count(self.hyper, move, wanted, 1)


def _count(
    counts: Ints, move: Move, wanted: NDArray[np.float32], unit: int
) -> None:
    """Add to counts, weights x classes x sizes."""
    place = move.place.ravel() * len(SIZES)
    for row, weight in zip(counts, WEIGHTS, strict=True):
        back = (move.shift - weighted(weight, move.distance)) * np.float32(1 / unit)
        sizes = np.abs(np.rint(wanted + back)).ravel()
        np.add.at(row.ravel(), place + np.searchsorted(EDGES, sizes, side='right'), 1)


def size_bits(frequencies: Ints, reaches: Ints) -> NDArray[np.float64]:
    """Return the bits that tables take for symbols by their sizes, of the scales from 1 on.

    Args:
        frequencies: 64 x 512.
        reaches: 64.
    """
    bits = np.empty((SCALES - 1, len(SIZES)))
    for row, numbers, reach in zip(bits, frequencies[1:], reaches[1:], strict=True):
        inside = np.minimum(SIZES, reach)
        both = (numbers[reach + inside] + numbers[reach - inside]) / 2
        far = -np.log2(numbers[2 * reach + 1] / TOTAL) + ESCAPE_BITS
        row[:] = np.where(reach >= SIZES, -np.log2(both / TOTAL), far)
    return bits


def fit_key_arrays(
    arrays: Mapping[str, NDArray[Any]],
    slices: tuple[int, ...],
    pairs: Sequence[tuple[Code, Code]],
    rounds: int = ROUNDS,
) -> dict[str, NDArray[Any]]:
    """Return tables for coding against key frames, by name, fitted to pairs of codes.

    Args:
        arrays: a model's, as :class:`~msfc.wire.learned.LearnedCoder` takes them; tables that it
            has already count for nothing.
        slices: how many channels are decoded at a time.
        pairs: the codes of a key frame and of one that could refer to it, some hundreds, of all
            that cameras do.
        rounds: how often; what is decoded depends on the tables, and they on it.
    """
    known = {name: values for name, values in arrays.items() if name not in KEY_ARRAYS}
    fitted: dict[str, NDArray[Any]] = {}
    for _ in range(rounds):
        coder = LearnedCoder(known | fitted, slices)
        counts = MoveCounts(*coder.network.hyper_index.shape)
        for key, code, rate in _referring(coder, pairs):
            coder.count_moves(code, rate, key, counts)
        frequencies = fitted.get('key_frequencies', known['frequencies'])
        bits = size_bits(frequencies, known['reaches'])
        defaults = default_key_arrays(coder.network.hyper_index)
        for part, counted in (('key', counts.code), ('key_hyper', counts.hyper)):
            names = f'{part}_weight', f'{part}_scale'
            tables = fitted_moves(counted, bits, defaults[names[0]], defaults[names[1]])
            fitted |= zip(names, tables, strict=True)
        coder = LearnedCoder(known | fitted, slices)
        numbers = np.zeros_like(known['frequencies'], np.int64)
        for key, code, rate in _referring(coder, pairs):
            numbers += coder.count(code, rate, key)
        fitted['key_frequencies'] = fitted_tables(numbers)
    return fitted


def _referring(
    coder: LearnedCoder, pairs: Iterable[tuple[Code, Code]]
) -> Iterator[tuple[Key, Code, int]]:
    for first, second in pairs:
        for rate in coder.rates:
            yield coder.write_key(first, rate)[1], second, rate


def fitted_moves(
    counts: Ints, bits: NDArray[np.float64], weight: Indices, scale: Indices
) -> tuple[Indices, Indices]:
    """Return the weights and indices of scales that would have taken the fewest bits.

    Args:
        counts: of :class:`MoveCounts`, weights x classes x sizes.
        bits: of :func:`size_bits`.
        weight: what classes with little evidence keep, of so many, rates first.
        scale: of the same shape.
    """
    split = counts.reshape(len(WEIGHTS), len(weight), -1, len(SIZES))
    best = np.empty(split.shape[1:3], np.int64)
    whole = split.sum(1, dtype=np.int64)
    for rate in range(len(weight)):
        others = whole - split[:, rate]
        part = np.minimum(SHARED / np.maximum(others[0].sum(1), 1), 1)
        blocks = (split[:, rate] + others * part[:, None]).swapaxes(0, 1)
        best[rate] = [(block @ bits.T).argmin() for block in blocks]
    chosen, index = np.divmod(best.reshape(weight.shape), SCALES - 1)
    seen = np.broadcast_to(whole[0].sum(1) >= EVIDENCE, best.shape).reshape(weight.shape)
    weights = np.where(seen, np.array(WEIGHTS)[chosen], weight).astype(np.uint8)
    return weights, np.where(seen, index + 1, scale).astype(np.uint8)

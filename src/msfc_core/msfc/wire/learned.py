"""Coding 1: rounded codes by a range coder, with probabilities of an integer network."""

from __future__ import annotations

from collections.abc import Mapping
from math import erf, sqrt
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from msfc.wire.coder import Code, CodeShape, PayloadCoder
from msfc.wire.entropy import (
    ACTIVATION_BITS,
    SCALES,
    EntropyNetwork,
    Floats,
    Ints,
    board,
    patches,
)
from msfc.wire.packet import PacketError, RefusalReason
from msfc.wire.packing import Bytes, byte_length
from msfc.wire.range_coder import TOTAL, RangeReader, RangeWriter, Table, uniform_table

CODING_LEARNED = 1
"""The number of this coding in packets."""

LEAST_SCALE, GREATEST_SCALE = 0.05, 64.0
"""Standard deviations of scale 0 and of the last one, in steps of the rounding."""

MAX_REACH = 255
"""Symbols farther from their mean than their table reaches are written in full."""

TOP_SYMBOL = 2047
"""Symbols are -2047 .. 2047."""

PRIOR = 500
"""Symbols of a Gaussian that a fitted table begins with."""

MAX_SYMBOL_BYTES = 5
"""A symbol takes 24 bits at most, and 12 more where it is written in full."""

EDGE_ARRAYS = (
    'log_gain', 'hyper.first.weight', 'hyper.first.bias', 'hyper.second.weight',
    'hyper.second.bias',
)
"""What only :meth:`LearnedCoder.write` needs."""


def gaussian_tables() -> tuple[Ints, Ints]:
    """Return the tables that a new model has: whole frequencies of Gaussians.

    They are computed once and stored with the model; nobody computes them anew to decode.

    Returns:
        Frequencies, 64 x 512: of symbols -reach .. reach and of all others together, padded with
        zeros; and the reaches, 64. Scale 0 has no table: its symbols are 0 and are not written.
    """
    frequencies = np.zeros((SCALES, 2 * MAX_REACH + 2), np.int32)
    reaches = np.zeros(SCALES, np.int32)
    for index in range(1, SCALES):
        scale = LEAST_SCALE * (GREATEST_SCALE / LEAST_SCALE) ** (index / (SCALES - 1))
        reach = min(MAX_REACH, max(1, int(4 * scale + 0.5)))
        edges = (np.arange(-reach, reach + 2) - 0.5) / (scale * sqrt(2))
        steps = np.diff([0.5 * (1 + erf(edge)) for edge in edges])
        weights = np.append(steps, max(1 - steps.sum(), 0))
        row = 1 + np.floor(weights * (TOTAL - len(weights))).astype(np.int32)
        row[reach] += TOTAL - row.sum()
        frequencies[index, : len(row)] = row
        reaches[index] = reach
    return frequencies, reaches


def fitted_tables(counts: NDArray[np.integer]) -> Ints:
    """Return frequencies fitted to counted symbols; where there are few, Gaussians remain.

    Args:
        counts: 64 x 512, of the numbers that :meth:`LearnedCoder.count` counts.
    """
    gaussian, reaches = gaussian_tables()
    fitted = np.zeros_like(gaussian)
    for index in range(1, SCALES):
        length = 2 * int(reaches[index]) + 2
        weights = counts[index, :length] + PRIOR * gaussian[index, :length] / TOTAL
        shares = weights / weights.sum()
        row = 1 + np.floor(shares * (TOTAL - length)).astype(np.int32)
        row[row.argmax()] += TOTAL - row.sum()
        fitted[index, :length] = row
    return fitted


class LearnedCoder(PayloadCoder):
    """Writes and reads the codes of a learned codec.

    Args:
        arrays: what the model has under these names: all of the entropy model's arrays
            (:class:`~msfc.wire.entropy.EntropyNetwork`), ``frequencies`` and ``reaches``, of
            each rate R x C' ``inverse_gain`` and ``rate_offset``, and ``typical_bytes``, R;
            to write, those of :data:`EDGE_ARRAYS` as well.
        slices: how many channels are decoded at a time.

    Raises:
        ValueError: the arrays do not fit each other.
    """

    coding: ClassVar[int] = CODING_LEARNED

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], slices: tuple[int, ...]
    ) -> None:
        self.network = EntropyNetwork(arrays, slices)
        self.rates = tuple(range(self.network.rates))
        self._channels = sum(slices)
        self._inverse: Floats = np.asarray(arrays['inverse_gain'], np.float32)
        self._offset: Floats = np.asarray(arrays['rate_offset'], np.float32)
        self._typical = np.asarray(arrays['typical_bytes'], np.float64)
        self._reaches: Ints = np.asarray(arrays['reaches'], np.int32)
        self._tables = _tables(np.asarray(arrays['frequencies'], np.int32), self._reaches)
        self._far = uniform_table(2 * TOP_SYMBOL + 2)
        self._hyper: _HyperAnalysis | None = None
        if all(name in arrays for name in EDGE_ARRAYS):
            self._hyper = _HyperAnalysis(arrays)

    def write(self, code: Code, rate: int, reference: Code | None = None) -> bytes:
        """Return the payload of a code; see :meth:`PayloadCoder.write`.

        Raises:
            ValueError: if the rate is unknown, a reference is given, or the model is one without
                the robot's half.
            PacketError: if a value is not a number.
        """
        writer = _SymbolWriter(self._tables, self._reaches, self._far)
        self._encode(code, rate, reference, writer)
        return writer.finish()

    def count(self, code: Code, rate: int) -> NDArray[np.int64]:
        """Return how often each number of each table would be written, 64 x 512.

        Number s + r is that of symbol s of a table of reach r, and 2 r + 1 that of all others.
        """
        writer = _SymbolWriter(self._tables, self._reaches, self._far)
        writer.counts = np.zeros((SCALES, 2 * MAX_REACH + 2), np.int64)
        self._encode(code, rate, None, writer)
        return writer.counts

    def _encode(
        self, code: Code, rate: int, reference: Code | None, writer: _SymbolWriter
    ) -> None:
        self._check_arguments(code.shape, rate, reference)
        if self._hyper is None:
            raise ValueError("this model cannot write: it comes without the robot's half")
        if not np.isfinite(code).all():
            raise PacketError(
                RefusalReason.NOT_FINITE, 'the code has values that are not finite'
            )
        scaled, hyper = self._hyper(code, rate)
        mean, index = self._hyper_tables(hyper.shape, rate)
        hyper = writer.write((hyper - mean).astype(np.float32), index) + mean
        size = (code.shape[1], code.shape[2])
        context = self.network.begin(hyper, rate, size)
        halves = [scaled[cells] for cells in board(*size).cells]
        for step in range(2 * len(self.network.slices)):
            means, index = self.network.predict(step, context.sums[step % 2])
            wanted = halves[step % 2][:, self._slice(step)] - means * np.float32(1 / 64)
            symbols = writer.write(wanted, index)
            self.network.learn(context, step, (symbols << ACTIVATION_BITS) + means)

    def read(
        self, data: Bytes, shape: CodeShape, rate: int, reference: Code | None = None
    ) -> Code:
        """Return the code that a payload holds; see :meth:`PayloadCoder.read`.

        What was read is written again, and must give the same bytes: that shows nearly all damage.

        Raises:
            ValueError: if the rate or the shape is none of this coder's, or a reference is given.
            PacketError: if the payload is damaged.
        """
        self._check_arguments(shape, rate, reference)
        reader = _SymbolReader(data, self._tables, self._reaches, self._far)
        size = (shape[1], shape[2])
        quarter = (-(-shape[1] // 4), -(-shape[2] // 4))
        mean, index = self._hyper_tables((self.network.hyper_channels, *quarter), rate)
        hyper = reader.read(index) + mean
        context = self.network.begin(hyper, rate, size)
        cells = board(*size).cells
        values = np.empty((size[0] * size[1], self._channels), np.int32)
        for step in range(2 * len(self.network.slices)):
            means, index = self.network.predict(step, context.sums[step % 2])
            known = (reader.read(index) << ACTIVATION_BITS) + means
            values[cells[step % 2], self._slice(step)] = known
            self.network.learn(context, step, known)
        reader.finish()
        code = values.T.astype(np.float32) / np.float32(64)
        code *= self._inverse[rate][:, None]
        code += self._offset[rate][:, None]
        return code.reshape(shape)

    def check(self, data: Bytes, shape: CodeShape, rate: int) -> None:
        """Check a payload's length and end; see :meth:`PayloadCoder.check`."""
        length = byte_length(data)
        elements = shape[0] * shape[1] * shape[2]
        elements += self.network.hyper_channels * -(-shape[1] // 4) * -(-shape[2] // 4)
        longest = MAX_SYMBOL_BYTES * elements + 8
        if length > longest:
            raise PacketError(
                RefusalReason.BAD_PAYLOAD_LENGTH,
                f'no {elements} symbols take {length} bytes, but at most {longest}',
            )
        if length and np.frombuffer(data, np.uint8)[-1] == 0:
            raise PacketError(
                RefusalReason.BAD_PAYLOAD, 'the payload has zeros behind its end'
            )

    def expected_bytes(self, shape: CodeShape, rate: int) -> float:
        """Return the mean length that training measured, in proportion to the code's cells."""
        self.check_rate(rate)
        per_cell: float = float(self._typical[rate])
        return per_cell * shape[1] * shape[2]

    def _check_arguments(
        self, shape: tuple[int, ...], rate: int, reference: Code | None
    ) -> None:
        self.check_rate(rate)
        if reference is not None:
            raise ValueError('this coder codes each frame alone: it takes no reference')
        if len(shape) != 3 or shape[0] != self._channels or min(shape) < 1:
            raise ValueError(f'the coder is of {self._channels} channels, not of shape {shape}')

    def _hyper_tables(
        self, shape: tuple[int, ...], rate: int
    ) -> tuple[Ints, NDArray[np.uint8]]:
        mean = self.network.hyper_mean[rate][:, None, None]
        index = self.network.hyper_index[rate][:, None, None]
        return mean, np.broadcast_to(index, shape)

    def _slice(self, step: int) -> slice:
        start = sum(self.network.slices[: step // 2])
        return slice(start, start + self.network.slices[step // 2])


def _tables(frequencies: Ints, reaches: Ints) -> list[Table]:
    """Return the tables of the scales from 1 on; scale 0 has none."""
    if frequencies.shape[0] != SCALES or reaches.shape != (SCALES,):
        raise ValueError(f'a model has {SCALES} tables, not {frequencies.shape[0]}')
    if reaches.min() < 0 or 2 * reaches.max() + 2 > frequencies.shape[1]:
        raise ValueError('the tables are shorter than their reaches say')
    return [
        Table(frequencies[index, : 2 * reaches[index] + 2]) for index in range(1, SCALES)
    ]


class _HyperAnalysis:
    """Gains and the hyper-latent's network, in floating point: the writer's own choice."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.gain: Floats = np.exp(arrays['log_gain'], dtype=np.float32)
        self.weights: list[tuple[Floats, Floats, int]] = []
        for name in ('hyper.first', 'hyper.second'):
            weight = np.asarray(arrays[f'{name}.weight'], np.float32)
            matrix = np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
            bias = np.asarray(arrays[f'{name}.bias'], np.float32)
            self.weights.append(
                (matrix.reshape(-1, weight.shape[0]), bias, weight.shape[2])
            )

    def __call__(self, code: Code, rate: int) -> tuple[Floats, Ints]:
        """Return the scaled code, cells x C', and its rounded hyper-latent, C_z x h_z x w_z."""
        channels, height, width = code.shape
        scaled: Floats = code.reshape(channels, -1).T * self.gain[rate]
        image = scaled.reshape(height, width, channels)
        for place, (matrix, bias, size) in enumerate(self.weights):
            sums = patches(image, size, 2) @ matrix + bias
            if place == 0:
                np.maximum(sums, sums * np.float32(0.1), out=sums)
            height, width = -(-height // 2), -(-width // 2)
            image = sums.reshape(height, width, -1)
        hyper = np.rint(image.transpose(2, 0, 1)).clip(-TOP_SYMBOL, TOP_SYMBOL)
        return scaled, hyper.astype(np.int32)


class _Symbols:
    """The order of symbols within a pass: by their table, then as they lie."""

    def __init__(self, tables: list[Table], reaches: Ints, far: Table) -> None:
        self.tables, self.reaches, self.far = tables, reaches, far
        self.coder = RangeWriter()

    def order(
        self, index: NDArray[np.uint8]
    ) -> tuple[NDArray[np.intp], NDArray[np.uint8], list[tuple[int, int, int]]]:
        """Return the places of written symbols, their tables, and each table's run of them."""
        flat = index.ravel()
        places = np.flatnonzero(flat)
        tables = flat[places]
        order = np.argsort(tables, kind='stable')
        places, tables = places[order], tables[order]
        starts = np.flatnonzero(np.diff(tables, prepend=np.uint8(0))).tolist()
        ends = [*starts[1:], len(tables)]
        runs = [
            (int(tables[start]), start, end) for start, end in zip(starts, ends, strict=False)
        ]
        return places, tables, runs

    def emit(
        self, symbols: Ints, far: Ints, runs: list[tuple[int, int, int]]
    ) -> None:
        """Write the symbols of a pass, and in full those that their tables do not reach."""
        for table, start, end in runs:
            self.coder.write(symbols[start:end], self.tables[table - 1])
        if len(far):
            self.coder.write(far, self.far)


class _SymbolWriter(_Symbols):
    counts: NDArray[np.int64] | None = None

    def write(self, wanted: Floats, index: NDArray[np.uint8]) -> Ints:
        """Write the symbols of a pass, rounded; return them in its shape, as they will be read."""
        places, tables, runs = self.order(index)
        written = np.zeros(index.size, np.int32)
        values = np.rint(wanted.ravel()[places]).clip(-TOP_SYMBOL, TOP_SYMBOL).astype(np.int32)
        written[places] = values
        reach = self.reaches[tables]
        beyond = np.abs(values) > reach
        symbols = np.where(beyond, 2 * reach + 1, values + reach)
        if self.counts is not None:
            np.add.at(self.counts, (tables, symbols), 1)
        self.emit(symbols, values[beyond] + TOP_SYMBOL, runs)
        return written.reshape(index.shape)

    def finish(self) -> bytes:
        """Return the payload."""
        return self.coder.finish()


class _SymbolReader(_Symbols):
    def __init__(
        self, data: Bytes, tables: list[Table], reaches: Ints, far: Table
    ) -> None:
        super().__init__(tables, reaches, far)
        self.data, self.reader = data, RangeReader(data)

    def read(self, index: NDArray[np.uint8]) -> Ints:
        """Return the symbols of a pass in its shape."""
        places, tables, runs = self.order(index)
        symbols = np.empty(len(places), np.int32)
        try:
            for table, start, end in runs:
                symbols[start:end] = self.reader.read(end - start, self.tables[table - 1])
            reach = self.reaches[tables]
            beyond = symbols == 2 * reach + 1
            values = symbols - reach
            count = int(np.count_nonzero(beyond))
            if count:
                far = self.reader.read(count, self.far)
                values[beyond] = (far - TOP_SYMBOL).clip(-TOP_SYMBOL, TOP_SYMBOL)
        except ValueError as error:
            raise PacketError(RefusalReason.BAD_PAYLOAD, str(error)) from error
        self.emit(symbols, values[beyond] + TOP_SYMBOL, runs)
        read = np.zeros(index.size, np.int32)
        read[places] = values
        return read.reshape(index.shape)

    def finish(self) -> None:
        """Check that what was read is what was written.

        Raises:
            PacketError: it is not.
        """
        if self.coder.finish() != bytes(self.data):
            raise PacketError(
                RefusalReason.BAD_PAYLOAD,
                'the payload is damaged: it is not how its symbols are written',
            )

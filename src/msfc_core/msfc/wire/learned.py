"""Coding 1: rounded codes by a range coder, with probabilities of an integer network."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from math import erf, sqrt
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from msfc.wire.coder import Code, CodeShape, Key, PayloadCoder
from msfc.wire.entropy import (
    ACTIVATION_BITS,
    SCALES,
    EntropyNetwork,
    Floats,
    Ints,
    board,
    clipped,
    patches,
)
from msfc.wire.key_tables import Guide, Indices, KeyTables, Move
from msfc.wire.packet import PacketError, RefusalReason
from msfc.wire.packing import Bytes, byte_length
from msfc.wire.range_coder import TOTAL, Table
from msfc.wire.symbols import (
    FAR,
    TOP_SYMBOL,
    SymbolReader,
    SymbolWriter,
    read_digest,
    scale_tables,
)

if TYPE_CHECKING:
    from msfc.wire.key_fit import MoveCounts

CODING_LEARNED = 1
"""The number of this coding in packets."""

LEAST_SCALE, GREATEST_SCALE = 0.11, 64.0
"""Standard deviations of scale 0 and of the last one, in steps of the rounding."""

MAX_REACH = 255
"""Symbols farther from their mean than their table reaches are written in full."""

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
            to write, those of :data:`EDGE_ARRAYS` as well; and if they were fitted, those of
            :data:`~msfc.wire.key_tables.KEY_ARRAYS`.
        slices: how many channels are decoded at a time.

    Raises:
        ValueError: the arrays do not fit each other.
    """

    coding: ClassVar[int] = CODING_LEARNED
    uses_references: ClassVar[bool] = True

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
        self._tables = scale_tables(np.asarray(arrays['frequencies'], np.int32), self._reaches)
        self._key_frequencies = self._tables
        if 'key_frequencies' in arrays:
            frequencies = np.asarray(arrays['key_frequencies'], np.int32)
            self._key_frequencies = scale_tables(frequencies, self._reaches)
        self._moves = KeyTables(arrays, self.network.hyper_index)
        self._hyper: _HyperAnalysis | None = None
        if all(name in arrays for name in EDGE_ARRAYS):
            self._hyper = _HyperAnalysis(arrays)

    def write(self, code: Code, rate: int, reference: Key | None = None) -> bytes:
        """Return the payload of a code; see :meth:`PayloadCoder.write`.

        Raises:
            ValueError: if the rate is unknown, the reference does not fit, or the model is one
                without the robot's half.
            PacketError: if a value is not a number.
        """
        writer = self._writer(reference)
        self._encode(code, rate, reference, writer)
        return writer.finish()

    def write_key(self, code: Code, rate: int) -> tuple[bytes, Key]:
        """Return a payload and what others can refer to; see :meth:`PayloadCoder.write_key`."""
        writer = self._writer(None)
        values, hyper = self._encode(code, rate, None, writer)
        data = writer.finish()
        return data, _key(data, code.shape, rate, values, hyper)

    def read(
        self, data: Bytes, shape: CodeShape, rate: int, reference: Key | None = None
    ) -> Code:
        """Return the code that a payload holds; see :meth:`PayloadCoder.read`.

        What was read is written again, and must give the same bytes: that shows nearly all damage.

        Raises:
            ValueError: if the rate or the shape is none of this coder's, or the reference does
                not fit.
            PacketError: if the payload is damaged, or written against another key frame.
        """
        values, _ = self._decode(data, shape, rate, reference)
        return self._code(values, shape, rate)

    def read_key(self, data: Bytes, shape: CodeShape, rate: int) -> tuple[Code, Key]:
        """Return a code and what others can refer to; see :meth:`PayloadCoder.read_key`."""
        values, hyper = self._decode(data, shape, rate, None)
        return self._code(values, shape, rate), _key(data, shape, rate, values, hyper)

    def refers_to(self, data: Bytes, key: Key) -> bool:
        """Return whether it was written against this key; see :meth:`PayloadCoder.refers_to`."""
        return read_digest(data) == key.digest

    def count(
        self, code: Code, rate: int, reference: Key | None = None
    ) -> NDArray[np.int64]:
        """Return how often each number of each table would be written, 64 x 512.

        Number s + r is that of symbol s of a table of reach r, and 2 r + 1 that of all others.
        """
        writer = self._writer(reference)
        writer.counts = np.zeros((SCALES, 2 * MAX_REACH + 2), np.int64)
        self._encode(code, rate, reference, writer)
        return writer.counts

    def count_moves(
        self, code: Code, rate: int, reference: Key, counts: MoveCounts
    ) -> None:
        """Count what would become of a code's symbols if they moved otherwise."""
        self._encode(code, rate, reference, self._writer(reference), counts)

    def _writer(self, reference: Key | None) -> SymbolWriter:
        return SymbolWriter(self._tables_for(reference), self._reaches)

    def _tables_for(self, reference: Key | None) -> list[Table]:
        return self._tables if reference is None else self._key_frequencies

    def _encode(
        self,
        code: Code,
        rate: int,
        reference: Key | None,
        writer: SymbolWriter,
        counts: MoveCounts | None = None,
    ) -> tuple[Ints, Ints]:
        """Write a code; return its values, h w x C', and its hyper-latent."""
        self._check_arguments(code.shape, rate, reference)
        if self._hyper is None:
            raise ValueError("this model cannot write: it comes without the robot's half")
        if not np.isfinite(code).all():
            raise PacketError(
                RefusalReason.NOT_FINITE, 'the code has values that are not finite'
            )
        scaled, hyper = self._hyper(code, rate)
        size = (code.shape[1], code.shape[2])
        halves = [scaled[cells] for cells in board(*size).cells]
        if reference is not None:
            writer.write_digest(reference.digest)
        mean, index, move = self._hyper_tables(hyper.shape, rate, reference)
        wanted = (hyper - mean).astype(np.float32)
        if counts is not None and move is not None:
            counts.add_hyper(move, wanted)
        hyper = writer.write(wanted, index) + mean

        def write(step: int, means: Ints, index: Indices, move: Move | None) -> Ints:
            wanted = halves[step % 2][:, self._slice(step)] - means * np.float32(1 / 64)
            if counts is not None and move is not None:
                counts.add_code(move, wanted)
            return writer.write(wanted, index)

        return self._walk(hyper, rate, size, reference, write), hyper

    def _decode(
        self, data: Bytes, shape: CodeShape, rate: int, reference: Key | None
    ) -> tuple[Ints, Ints]:
        """Read a payload; return the code's values, h w x C', and its hyper-latent."""
        self._check_arguments(shape, rate, reference)
        reader = SymbolReader(data, self._tables_for(reference), self._reaches)
        if reference is not None:
            reader.read_digest(reference.digest)
        quarter = (-(-shape[1] // 4), -(-shape[2] // 4))
        side = (self.network.hyper_channels, *quarter)
        mean, index, _ = self._hyper_tables(side, rate, reference)
        hyper = reader.read(index) + mean

        def read(step: int, means: Ints, index: Indices, move: Move | None) -> Ints:
            return reader.read(index)

        values = self._walk(hyper, rate, (shape[1], shape[2]), reference, read)
        reader.finish()
        return values, hyper

    def _walk(
        self,
        hyper: Ints,
        rate: int,
        size: tuple[int, int],
        reference: Key | None,
        symbols: Callable[[int, Ints, Indices, Move | None], Ints],
    ) -> Ints:
        """Return the values of a code, h w x C', going through its passes.

        Args:
            hyper: the hyper-latent.
            rate: the frame's.
            size: height and width of the code.
            reference: the key frame, if there is one.
            symbols: writes or reads the symbols of a pass, of its number, its means, the indices
                of its scales and how they were moved.
        """
        network, guide = self.network, None
        if reference is not None:
            values = self._moves.values(reference, rate)
            guide = Guide(self._moves, rate, values, size, network.slices)
        context, cells = network.begin(hyper, rate, size), board(*size).cells
        known = np.empty((size[0] * size[1], self._channels), np.int32)
        for step in range(2 * len(network.slices)):
            means, index = network.predict(step, context)
            move = None
            if guide is not None:
                move = guide.move(step, means, index)
                means, index = means + move.shift, move.index
            values = (symbols(step, means, index, move) << ACTIVATION_BITS) + means
            known[cells[step % 2], self._slice(step)] = values
            network.learn(context, step, values)
            if guide is not None:
                guide.learn(step, values)
        return known

    def _code(self, values: Ints, shape: CodeShape, rate: int) -> Code:
        """Return the code of its values."""
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

    def steps(self, rate: int) -> NDArray[np.float32]:
        """Return the distance of neighbouring values; see :meth:`PayloadCoder.steps`."""
        return np.abs(self._inverse[self.check_rate(rate)])

    def _check_arguments(
        self, shape: tuple[int, ...], rate: int, reference: Key | None
    ) -> None:
        self.check_rate(rate)
        if reference is not None and reference.shape != tuple(shape):
            raise ValueError(
                f'a code of shape {tuple(shape)} cannot refer to one of {reference.shape}'
            )
        if len(shape) != 3 or shape[0] != self._channels or min(shape) < 1:
            raise ValueError(f'the coder is of {self._channels} channels, not of shape {shape}')

    def _hyper_tables(
        self, shape: tuple[int, ...], rate: int, reference: Key | None
    ) -> tuple[Ints, Indices, Move | None]:
        """Return means and indices of the hyper-latent's scales, and how they were moved."""
        mean = np.broadcast_to(self.network.hyper_mean[rate][:, None, None], shape)
        index = np.broadcast_to(self.network.hyper_index[rate][:, None, None], shape)
        if reference is None:
            return mean, index, None
        move = self._moves.move_hyper(reference, rate, mean)
        return (mean, index, None) if move is None else (mean + move.shift, move.index, move)

    def _slice(self, step: int) -> slice:
        start = sum(self.network.slices[: step // 2])
        return slice(start, start + self.network.slices[step // 2])


def _key(
    data: Bytes, shape: tuple[int, ...], rate: int, values: Ints, hyper: Ints
) -> Key:
    return Key(
        (shape[0], shape[1], shape[2]), rate, clipped(values).astype(np.int16),
        clipped(hyper).astype(np.int16), zlib.crc32(bytes(data)) % FAR.symbols,
    )


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

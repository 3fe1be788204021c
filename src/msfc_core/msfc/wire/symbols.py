"""The symbols of coding 1, pass by pass, in the order in which the range coder has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msfc.wire.entropy import SCALES, Floats, Ints
from msfc.wire.packet import PacketError, RefusalReason
from msfc.wire.packing import Bytes
from msfc.wire.range_coder import RangeReader, RangeWriter, Table, uniform_table

TOP_SYMBOL = 2047
"""Symbols are -2047 .. 2047."""

FAR = uniform_table(2 * TOP_SYMBOL + 2)
"""The table of symbols beyond their own, and of digests."""


def scale_tables(frequencies: Ints, reaches: Ints) -> list[Table]:
    """Return the tables of the scales from 1 on; scale 0 has none."""
    if frequencies.shape[0] != SCALES or reaches.shape != (SCALES,):
        raise ValueError(f'a model has {SCALES} tables, not {frequencies.shape[0]}')
    if reaches.min() < 0 or 2 * reaches.max() + 2 > frequencies.shape[1]:
        raise ValueError('the tables are shorter than their reaches say')
    return [
        Table(frequencies[index, : 2 * reaches[index] + 2]) for index in range(1, SCALES)
    ]


def read_digest(data: Bytes) -> int | None:
    """Return the digest that a payload begins with; None if it stands for no number at all."""
    # The first number depends on the first eight bytes.
    reader = RangeReader(np.frombuffer(data, np.uint8)[:8])
    try:
        return int(reader.read(1, FAR)[0])
    except ValueError:
        return None


class Symbols:
    """The order of symbols within a pass: by their table, then as they lie.

    Args:
        tables: of the scales from 1 on.
        reaches: of all scales.
    """

    def __init__(self, tables: Sequence[Table], reaches: Ints) -> None:
        self.tables, self.reaches = tables, reaches
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
            self.coder.write(far, FAR)


class SymbolWriter(Symbols):
    """Writes symbols, pass by pass.

    Attributes:
        counts: where it is counted how often each number of each table is written, 64 x 512; None
            for nowhere.
    """

    counts: NDArray[np.int64] | None = None

    def write_digest(self, digest: int) -> None:
        """Write which key frame what follows refers to."""
        self.coder.write(np.array([digest], np.int32), FAR)

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


class SymbolReader(Symbols):
    """Reads symbols, pass by pass, and writes them again.

    Args:
        data: a payload.
        tables: of the scales from 1 on.
        reaches: of all scales.
    """

    def __init__(self, data: Bytes, tables: Sequence[Table], reaches: Ints) -> None:
        super().__init__(tables, reaches)
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
                far = self.reader.read(count, FAR)
                values[beyond] = (far - TOP_SYMBOL).clip(-TOP_SYMBOL, TOP_SYMBOL)
        except ValueError as error:
            raise PacketError(RefusalReason.BAD_PAYLOAD, str(error)) from error
        self.emit(symbols, values[beyond] + TOP_SYMBOL, runs)
        read = np.zeros(index.size, np.int32)
        read[places] = values
        return read.reshape(index.shape)

    def read_digest(self, expected: int) -> None:
        """Read which key frame it was written against.

        Raises:
            PacketError: another one.
        """
        try:
            (found,) = self.reader.read(1, FAR)
        except ValueError as error:
            raise PacketError(RefusalReason.BAD_PAYLOAD, str(error)) from error
        if found != expected:
            raise PacketError(
                RefusalReason.MISSING_REFERENCE, 'the payload was coded against another key frame'
            )
        self.coder.write(np.array([found], np.int32), FAR)

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

"""Range coding of whole numbers by integer tables: constriction's coder, and the shortest bytes.

constriction makes its probabilities of floating-point numbers. The tables here are frequencies
that add up to 2**16, and all that constriction computes of them is exact in double precision: of K
symbols with frequencies f and ``c_s = f_0 + .. + f_{s-1}``, symbol s begins at
``floor(c_s (2**24 - K) / 2**16) + s`` of 2**24. ``docs/wire-format.md`` is the definition.
"""

from __future__ import annotations

from collections.abc import Sequence

import constriction
import numpy as np
from numpy.typing import NDArray

from msfc.wire.packing import Bytes

TOTAL = 2**16
"""The frequencies of a table add up to it."""

WORD = 4
"""constriction writes words of so many bytes."""

MAX_SYMBOLS = 2**12
"""Symbols of a table at most."""

_queue, _model = constriction.stream.queue, constriction.stream.model


class Table:
    """Frequencies of the symbols 0 .. K - 1.

    Args:
        frequencies: K whole numbers of at least 1 that add up to 2**16.

    Raises:
        ValueError: they do not, or there are less than two or too many.
    """

    def __init__(self, frequencies: Sequence[int] | NDArray[np.integer]) -> None:
        values = np.asarray(frequencies)
        if values.ndim != 1 or not 2 <= len(values) <= MAX_SYMBOLS:
            raise ValueError(f'a table has 2 .. {MAX_SYMBOLS} frequencies, got {values.shape}')
        if not np.issubdtype(values.dtype, np.integer) or values.min() < 1:
            raise ValueError('the frequencies of a table are whole numbers of at least 1')
        if int(values.sum(dtype=np.int64)) != TOTAL:
            raise ValueError(f'the frequencies of a table add up to {TOTAL}')
        self.symbols = len(values)
        self.model = _model.Categorical(values / TOTAL, perfect=False)


def uniform_table(symbols: int) -> Table:
    """Return a table of equal frequencies; the number of symbols is a power of two."""
    return Table(np.full(symbols, TOTAL // symbols))


class RangeWriter:
    """Writes symbols, one table's after the other."""

    def __init__(self) -> None:
        self._coder = _queue.RangeEncoder()

    def write(self, symbols: NDArray[np.int32], table: Table) -> None:
        """Append symbols 0 .. K - 1, all by one table."""
        self._coder.encode(symbols, table.model)

    def finish(self) -> bytes:
        """Return the shortest payload: the multiple of the highest power of 256 in the interval.

        Reading takes zeros for what lies behind the end of a payload.
        """
        words = self._coder.get_compressed()
        whole, (lower, width) = self._coder.pos()
        # The interval's two words stand behind ``whole`` others. What constriction chose lies in
        # it, and says whether a carry went into those.
        chosen = np.zeros(whole + 2, '>u4')
        chosen[: len(words)] = words
        value = int.from_bytes(chosen.tobytes(), 'big')
        low = value - ((value - lower) % 2**64)
        for length in range(2 * WORD, -1, -1):
            unit = 256**length
            shortest = -(-low // unit) * unit
            if shortest < low + width:
                break
        return shortest.to_bytes((whole + 2) * WORD, 'big').rstrip(b'\0')


class RangeReader:
    """Reads symbols, one table's after the other; bytes that are none of its give any symbols.

    Args:
        data: a payload; contiguous.
    """

    def __init__(self, data: Bytes) -> None:
        payload = np.frombuffer(data, np.uint8)
        padded = np.zeros(-(-len(payload) // WORD) * WORD + 2 * WORD, np.uint8)
        padded[: len(payload)] = payload
        self._coder = _queue.RangeDecoder(padded.view('>u4').astype(np.uint32))

    def read(self, count: int, table: Table) -> NDArray[np.int32]:
        """Return the next symbols, all by one table.

        Raises:
            ValueError: the bytes stand for no symbols at all.
        """
        try:
            symbols: NDArray[np.int32] = self._coder.decode(table.model, count)
        except AssertionError as error:
            raise ValueError(f'the payload is damaged: {error}') from error
        return symbols

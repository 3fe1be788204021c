import hashlib
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learned_reference import RangeDecoder
from msfc.wire.range_coder import (
    MAX_SYMBOLS,
    TOTAL,
    RangeReader,
    RangeWriter,
    Table,
    uniform_table,
)


@st.composite
def frequencies(draw: st.DrawFn) -> list[int]:
    """Two and more frequencies that add up to 2**16."""
    count = draw(st.integers(2, 40))
    weights = draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))
    whole = [1 + int(weight * (TOTAL // count - 1)) for weight in weights]
    whole[draw(st.integers(0, count - 1))] += TOTAL - sum(whole)
    return whole


messages = st.lists(
    st.tuples(frequencies(), st.lists(st.floats(0, 0.999), max_size=30)), max_size=6
)


@settings(max_examples=200)
@given(messages)
def test_symbols_come_back_and_another_decoder_reads_them_too(parts) -> None:
    writer, bits, expected = RangeWriter(), 0.0, []
    for row, places in parts:
        symbols = np.array([int(place * len(row)) for place in places], np.int32)
        writer.write(symbols, Table(row))
        bits -= sum(log2(row[symbol] / TOTAL) for symbol in symbols)
        expected.append(symbols.tolist())
    payload = writer.finish()
    assert not payload.endswith(b'\0')
    # Half a bit a symbol is more than the tables' rounding to 24 bits takes.
    assert len(payload) <= (bits + 0.001 * sum(map(len, expected))) / 8 + 1
    reader, reference = RangeReader(payload), RangeDecoder(payload)
    for (row, _), symbols in zip(parts, expected, strict=True):
        assert reader.read(len(symbols), Table(row)).tolist() == symbols
        assert [reference.symbol(row) for _ in symbols] == symbols


def test_nothing_and_certainties_take_no_bytes() -> None:
    assert RangeWriter().finish() == b''
    writer = RangeWriter()
    writer.write(np.zeros(1000, np.int32), Table([TOTAL - 1, 1]))
    assert writer.finish() == b''


def test_carries_reach_finished_words() -> None:
    # Improbable last symbols keep the interval at the upper end, where a carry may come from.
    table, digests = Table([1, TOTAL - 2, 1]), set()
    for count in range(1, 60):
        symbols = np.array([2] * count + [1] * (count % 7) + [2], np.int32)
        writer = RangeWriter()
        writer.write(symbols, table)
        payload = writer.finish()
        assert RangeReader(payload).read(len(symbols), table).tolist() == symbols.tolist()
        digests.add(hashlib.sha256(payload).hexdigest())
    assert len(digests) == 59


def test_a_uniform_table_gives_equal_shares() -> None:
    writer, table = RangeWriter(), uniform_table(4096)
    symbols = np.arange(4096, dtype=np.int32)
    writer.write(symbols, table)
    payload = writer.finish()
    assert len(payload) - 4096 * 12 // 8 in (0, 1)
    assert RangeReader(payload).read(4096, table).tolist() == symbols.tolist()


@given(st.binary(max_size=40), frequencies())
def test_any_bytes_give_symbols_or_an_error(data: bytes, row: list[int]) -> None:
    try:
        symbols = RangeReader(data).read(200, Table(row))
    except ValueError:
        return
    assert symbols.min() >= 0
    assert symbols.max() < len(row)


@pytest.mark.parametrize(
    ('row', 'fault'),
    [
        ([TOTAL], 'a table has 2'),
        ([1] * (MAX_SYMBOLS + 1), 'a table has 2'),
        ([[1, TOTAL - 1]], 'a table has 2'),
        ([0, TOTAL], 'at least 1'),
        ([0.5, TOTAL - 0.5], 'at least 1'),
        ([1, TOTAL], 'add up to 65536'),
    ],
)
def test_impossible_tables_are_refused(row, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Table(np.array(row))

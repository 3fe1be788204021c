"""The packed coder: quantiser and packing behind the interface of all coders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from msfc.wire.packed import PackedCoder
from msfc.wire.packet import PacketError, RefusalReason
from msfc.wire.packing import pack
from msfc.wire.quantizer import BIT_DEPTHS, dequantize, quantize

CODER = PackedCoder()
CODES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    elements=st.floats(-1, 1, width=32),
)


@given(code=CODES, rate=st.sampled_from(BIT_DEPTHS))
def test_reads_what_it_wrote(code: NDArray[np.float32], rate: int) -> None:
    data = CODER.write(code, rate)
    assert data == pack(quantize(code, rate), rate)
    assert len(data) == CODER.expected_bytes(code.shape, rate)
    CODER.check(data, code.shape, rate)
    read = CODER.read(data, code.shape, rate)
    assert read.dtype == np.float32
    assert read.shape == code.shape
    assert (read == dequantize(quantize(code, rate), rate)).all()
    assert CODER.write(read, rate) == data


def test_is_coding_0_with_the_papers_rates() -> None:
    assert CODER.coding == 0
    assert CODER.rates == (2, 4, 8, 16, 32)
    assert not CODER.uses_references


def test_what_is_not_a_number_is_not_written() -> None:
    with pytest.raises(PacketError, match='not numbers') as caught:
        CODER.write(np.full((1, 1, 1), np.nan, np.float32), 4)
    assert caught.value.reason is RefusalReason.NOT_FINITE


def test_other_settings_are_refused() -> None:
    code = np.zeros((1, 2, 2), np.float32)
    with pytest.raises(ValueError, match='rate 3 is not one of 2, 4, 8, 16, 32'):
        CODER.write(code, 3)
    with pytest.raises(ValueError, match='rate 0 is not one of'):
        CODER.read(b'', (1, 0, 0), 0)
    with pytest.raises(ValueError, match='no reference'):
        CODER.write(code, 4, code)
    with pytest.raises(ValueError, match='no reference'):
        CODER.read(b'00', (1, 2, 2), 4, code)
    with pytest.raises(ValueError, match='take 2 bytes, but there are 3'):
        CODER.read(b'000', (1, 2, 2), 4)

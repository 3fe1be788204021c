"""How many frames of whom can be decoded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msfc.link.load import WINDOW, DecodeLoad, fair_part


def test_one_sender_gets_what_the_work_allows() -> None:
    load = DecodeLoad[str]()
    assert load.rate('a', 0.0) == 0.0
    for step in range(10):
        load.arrived('a', step * 0.1)
        load.worked(0.25, 1, step * 0.1)
    assert load.rate('a', 1.0) == pytest.approx(4.0)
    assert load.rate('a', 1.0 + 2 * WINDOW) == 0.0


def test_work_at_once_counts_by_its_frames() -> None:
    load = DecodeLoad[str]()
    load.worked(0.5, 4, 0.0)
    assert load.rate('a', 0.1) == pytest.approx(8.0)


def test_senders_share_what_the_work_allows() -> None:
    load = DecodeLoad[str]()
    for step in range(50):
        now = step * 0.1
        load.arrived('fast', now)
        if step % 5 == 0:
            load.arrived('slow', now)
        load.worked(0.1, 1, now)
    # Ten frames per second in all; the slow one sends two, and could have its half.
    assert load.rate('fast', now) == pytest.approx(8.0, rel=0.05)
    assert load.rate('slow', now) == pytest.approx(5.0, rel=0.05)
    assert load.rate('new', now) == pytest.approx(4.0, rel=0.05)


@given(st.floats(0.1, 1e3), st.lists(st.floats(0.0, 1e3), max_size=10))
def test_a_part_is_fair(capacity: float, others: list[float]) -> None:
    part = fair_part(capacity, others)
    assert part >= capacity / (len(others) + 1) * (1 - 1e-9)
    assert part >= capacity - sum(others) - 1e-6
    # Who wants more than that gets as much, who wants less that; together all there is.
    assert part + sum(min(want, part) for want in others) == pytest.approx(capacity)

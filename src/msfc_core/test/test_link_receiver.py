"""What a receiver reports, of arrivals whose delays are known."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msfc.link.receiver import MEMORY, LinkReceiver
from msfc.link.report import NUMBERS, LinkReport, ahead

PERIOD = 0.2


def receive(
    arrivals: list[tuple[float, float]], size: int = 1000, offset: float = 0.0
) -> LinkReceiver:
    """Return a receiver that has had messages: when each was sent, and its delay."""
    receiver = LinkReceiver(PERIOD)
    for sequence, (sent, delay) in enumerate(arrivals):
        receiver.note(sequence, sent + offset, sent + delay, size)
    return receiver


def test_nothing_has_come() -> None:
    report = LinkReceiver(PERIOD).report(5.0)
    assert (report.received, report.lost, report.delay_samples) == (0, 0, 0)
    assert (report.bitrate, report.delay, report.delay_trend) == (0.0, 0.0, 0.0)


def test_counts_go_on_from_report_to_report() -> None:
    receiver = LinkReceiver(PERIOD)
    receiver.note(7, 0.0, 0.1, 500)
    receiver.note(10, 0.3, 0.4, 500, lost=2)
    first = receiver.report(0.5)
    assert (first.number, first.received, first.received_up_to, first.lost) == (0, 2, 10, 2)
    receiver.note_late(-1)
    receiver.note_late()
    second = receiver.report(0.7)
    assert (second.number, second.received, second.received_up_to, second.lost) == (1, 4, 10, 1)


def test_more_come_late_than_were_missed() -> None:
    receiver = LinkReceiver(PERIOD)
    receiver.note_late(-1)
    assert receiver.report(0.0).lost == NUMBERS - 1
    assert ahead(receiver.report(0.0).lost, 0) == -1


@given(
    st.floats(5.0, 60.0),
    st.floats(-0.5, 1.0),
    st.floats(-1e6, 1e6),
)
def test_trend_is_the_slope_whatever_the_clocks_say(
    rate: float, slope: float, offset: float
) -> None:
    arrivals = [(i / rate, 2.0 + slope * i / rate) for i in range(round(2 * rate))]
    sent, delay = arrivals[-1]
    report = receive(arrivals, offset=offset).report(sent + delay)
    assert report.delay_trend == pytest.approx(slope, abs=1e-3)
    assert report.delay_samples >= 3


@given(st.sets(st.integers(0, 19), max_size=4), st.floats(0.1, 2.0))
def test_what_comes_late_by_itself_moves_neither_trend_nor_delay(
    late: set[int], by: float
) -> None:
    """As where the middleware repeats what was lost; two in ten, and never the last three."""
    arrivals = [(i * 0.05, 0.03 + (by if i in late - {17, 18, 19} else 0.0)) for i in range(20)]
    receiver = LinkReceiver(PERIOD)
    for sequence, (sent, delay) in enumerate(arrivals):
        receiver.note(sequence, sent, sent + delay, 1000)
    report = receiver.report(1.0)
    assert abs(report.delay_trend) < 0.01
    assert report.delay < 1e-9


@given(st.lists(st.integers(100, 60_000), min_size=3, max_size=30), st.floats(1e5, 1e7))
def test_bitrate_of_a_full_link_is_the_links(sizes: list[int], rate: float) -> None:
    receiver, now = LinkReceiver(PERIOD), 100.0
    for sequence, size in enumerate(sizes):
        now += 8 * size / rate
        receiver.note(sequence, 0.0, now, size)
    window = sum(8 * size / rate for size in sizes[-2:])
    if window < 1.0:
        assert receiver.bitrate(now) == pytest.approx(rate, rel=1e-6)


def test_a_report_tells_of_key_frames() -> None:
    report = LinkReceiver(PERIOD).report(0.0, acknowledged_key=7, keyframe_wanted=True)
    assert (report.acknowledged_key, report.keyframe_wanted) == (7, True)
    report = LinkReceiver(PERIOD).report(0.0)
    assert (report.acknowledged_key, report.keyframe_wanted) == (0, False)


def test_silence_counts_in_the_bitrate() -> None:
    receiver = receive([(i * 0.1, 0.0) for i in range(20)])
    assert receiver.bitrate(1.95) == pytest.approx(80_000, rel=1e-6)
    assert receiver.bitrate(2.9) < 50_000
    assert receiver.bitrate(10.0) == 0.0


def test_delay_is_above_the_smallest_of_the_last_minute() -> None:
    receiver = receive([(i * 0.1, 5.0 if i < 50 else 5.2) for i in range(100)])
    assert receiver.report(15.1).delay == pytest.approx(0.2)
    for i in range(100, 110 + round(MEMORY * 10)):
        receiver.note(i, i * 0.1, i * 0.1 + 5.2, 1000)
    assert receiver.report(i * 0.1 + 5.2).delay == pytest.approx(0.0)


def test_a_clock_that_is_set_back_is_no_queue() -> None:
    receiver = receive([(100.0 + i * 0.1, 0.05) for i in range(20)])
    receiver.note(20, 50.0, 102.1, 1000)
    report = receiver.report(102.2)
    assert report.delay == 0.0
    assert report.delay_samples == 0


def test_a_clock_that_is_set_forth_is_no_queue() -> None:
    receiver = receive([(100.0 + i * 0.1, 0.05) for i in range(20)])
    for i in range(20, 40):
        receiver.note(i, 150.0 + i * 0.1, 100.0 + i * 0.1 + 0.05, 1000)
    report = receiver.report(104.0)
    assert report.delay == 0.0
    assert report.delay_trend == pytest.approx(0.0, abs=1e-6)


def test_without_stamps_nothing_is_said_about_delay() -> None:
    receiver = LinkReceiver(PERIOD)
    for i in range(20):
        receiver.note(i, None, i * 0.1, 1000)
    report = receiver.report(2.0)
    assert (report.delay, report.delay_trend, report.delay_samples) == (0.0, 0.0, 0)
    assert report.bitrate == pytest.approx(80_000, rel=1e-6)


@given(
    st.lists(
        st.tuples(
            st.integers(0, NUMBERS - 1),
            st.none() | st.floats(-1e10, 1e10),
            st.floats(0.0, 1e6),
            st.integers(0, 10**7),
            st.integers(0, 3000),
        ),
        max_size=40,
    ),
    st.floats(0.0, 2e6),
)
def test_whatever_comes_a_report_can_be_made(
    notes: list[tuple[int, float | None, float, int, int]], now: float
) -> None:
    receiver = LinkReceiver(PERIOD)
    for sequence, sent, received, size, lost in sorted(notes, key=lambda note: note[2]):
        receiver.note(sequence, sent, received, size, lost)
    report = receiver.report(now)
    assert report.received == len(notes)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('number', -1),
        ('received', NUMBERS),
        ('bitrate', math.nan),
        ('bitrate', -1.0),
        ('delay', math.inf),
        ('delay_trend', math.nan),
        ('delay_samples', -1),
        ('decode_rate', -1.0),
        ('share', math.inf),
        ('period', 0.0),
        ('weight', 0.0),
    ],
)
def test_a_report_with_nonsense_is_refused(name: str, value: float) -> None:
    fields = vars(LinkReceiver(PERIOD).report(0.0)) | {name: value}
    with pytest.raises(ValueError, match=f'{name} is'):
        LinkReport(**fields)

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc.link.report import LinkReport
from msfc_demo.link_shape import LinkShape
from msfc_demo.paced_link import PACKET, PacedLink, packets, with_delay

SENDINGS = st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 20_000)), max_size=40)
"""Seconds after the one before, and bytes, of each message."""


def send(link, sendings):
    """Send all, waiting for nothing; return when each was sent, and what passed until the end."""
    now, passed, times = 0.0, [], []
    for number, (pause, size) in enumerate(sendings):
        now += pause
        passed += link.take(now)
        link.offer(number, size, now)
        times.append(now)
    while (due := link.due()) != float('inf'):
        now = max(now, due)
        passed += link.take(now)
    return times, passed


@given(SENDINGS, st.sampled_from([0.0, 0.05, 0.5]))
def test_each_message_has_one_fate(sendings, loss):
    shape = LinkShape(200e3, loss)
    times, passed = send(PacedLink(shape), sendings)
    assert sorted(one.item for one in passed) == list(range(len(sendings)))
    assert [one.sent for one in sorted(passed, key=lambda one: one.item)] == times
    for one in passed:
        if one.delay is not None:
            bits = 8 * sum(packets(sendings[one.item][1]))
            assert one.delay >= shape.delay + bits / shape.rate - 1e-6
            # The queue is never longer than it may be.
            assert one.delay <= shape.delay + 8 * shape.queue / shape.rate + 1e-6


@given(SENDINGS)
def test_what_arrives_is_in_order_and_no_more_than_the_link_takes(sendings):
    shape = LinkShape(200e3)
    _, passed = send(PacedLink(shape), sendings)
    arrived = [one for one in passed if one.delay is not None]
    assert [one.item for one in arrived] == sorted(one.item for one in arrived)
    if arrived:
        bits = sum(8 * sum(packets(sendings[one.item][1])) for one in arrived)
        seconds = max(one.sent + one.delay for one in arrived) - min(o.sent for o in arrived)
        assert bits <= shape.rate * (seconds - shape.delay) + 1e-3


def test_idle_link_delays_by_way_and_bits():
    link = PacedLink(LinkShape(64e3))
    link.offer('one', 1000, 5.0)
    assert link.take(5.0) == []
    (passed,) = link.take(6.0)
    assert passed.delay == pytest.approx(0.02 + 8 * (1000 + 192) / 64e3)


def test_full_queue_drops_whole_messages():
    link = PacedLink(LinkShape(64e3, queue=3000))
    for number in range(4):
        link.offer(number, 1000, 0.0)
    assert [one.item for one in link.take(0.0)] == [2, 3]
    assert [one.item for one in link.take(1.0)] == [0, 1]


def test_losses_are_those_of_packets():
    link = PacedLink(LinkShape(1e9, loss=0.1, queue=10**9))
    for number in range(4000):
        link.offer(number, 1000 if number % 2 else 10 * PACKET, 0.0)
    lost = [one.item for one in link.take(100.0) if one.delay is None]
    # Five standard deviations around 0.1 and 1 - 0.9 ** 10 of 2,000.
    assert abs(sum(number % 2 for number in lost) - 200) < 5 * 13.5
    assert abs(sum(1 - number % 2 for number in lost) - 1302) < 5 * 21.4


@given(st.integers(1, 100_000))
def test_packets_have_all_bytes(size):
    sizes = packets(size)
    assert sum(sizes) == size + 192 + 20 * (len(sizes) - 1)
    assert max(sizes[1:], default=0) <= PACKET + 20


def test_reports_get_the_delay_of_the_link():
    report = LinkReport(
        number=3,
        period=0.2,
        received=9,
        received_up_to=11,
        lost=2,
        bitrate=1e4,
        delay=0.0,
        delay_trend=0.0,
        delay_samples=5,
        decode_rate=3.0,
        acknowledged_key=7,
    )
    own = LinkReport(
        number=1,
        period=0.2,
        received=1,
        received_up_to=1,
        lost=0,
        bitrate=2e4,
        delay=0.3,
        delay_trend=0.1,
        delay_samples=6,
    )
    merged = with_delay(report, own)
    assert (merged.delay, merged.delay_trend, merged.delay_samples) == (0.3, 0.1, 6)
    assert (merged.number, merged.lost, merged.decode_rate) == (3, 2, 3.0)
    assert (merged.bitrate, merged.acknowledged_key) == (1e4, 7)

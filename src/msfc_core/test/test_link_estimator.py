"""The closed loop over a simulated link: what falls, rises, gets lost, competes, is silent."""

from __future__ import annotations

from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link_simulator import OVERHEAD, Edge, Sample, Tcp, World
from msfc.link.control import LinkLimits
from msfc.link.estimator import LinkEstimator, packets
from msfc.link.receiver import LinkReceiver
from msfc.link.report import LinkReport
from msfc.wire.message_size import PACKET_BYTES

RATES = [(0.0, 10e6), (15.0, 200e3), (45.0, 2e6)]
"""The link's rate: from when, and how much."""

DELAY = 0.02
END = 80.0


def between(edge: Edge, begin: float, end: float) -> list[Sample]:
    return [one for one in edge.samples if begin <= one.at < end]


def bitrate(samples: list[Sample], seconds: float) -> float:
    return sum(8 * one.size for one in samples if one.arrived is not None) / seconds


def idle_delay(sample: Sample, rate: float) -> float:
    """Return the delay of a message on a link without a queue."""
    return DELAY + 8 * (sample.size + OVERHEAD + 20 * (packets(sample.size) - 1)) / rate


def excess(samples: list[Sample], rate: float) -> float:
    """Return the median of the delays, each by that of its message on an idle link."""
    return median(one.delay / idle_delay(one, rate) for one in samples if one.arrived is not None)


@pytest.mark.parametrize('loss', [0.0, 0.05])
@pytest.mark.parametrize('fps', [5.0, 10.0, 20.0])
def test_follows_a_link_that_falls_and_rises(fps: float, loss: float) -> None:
    edge = Edge(fps=fps)
    world = World([edge], RATES, delay=DELAY, loss=loss)
    world.run(END)
    fallen, risen = between(edge, 18.0, 45.0), between(edge, 70.0, END)
    # No standing queue from 3 s after the fall on, and none starves.
    assert excess(fallen, 200e3) <= 1.5
    assert 60e3 <= bitrate(fallen, 27.0) <= 200e3
    # It is back where the camera's largest messages, or most of the link, are; where packets get
    # lost, where most messages arrive.
    if loss:
        assert sum(one.arrived is not None for one in risen) >= 0.85 * 10 * fps
    else:
        assert bitrate(risen, 10.0) >= 0.6 * min(8 * edge.sizes[-1] * fps, 2e6)
    assert excess(risen, 2e6) <= 1.5
    assert bool(world.lost_packets) == bool(loss)


@pytest.mark.parametrize('seed', range(3))
def test_messages_are_small_where_packets_get_lost(seed: int) -> None:
    """On a wide link: of messages of 7 packets 30 % would be lost."""
    edge = Edge(fps=10.0)
    World([edge], [(0.0, 10e6)], delay=DELAY, loss=0.05, seed=seed).run(60.0)
    sent = between(edge, 20.0, 60.0)
    assert len(sent) >= 0.95 * 400
    assert sum(one.arrived is None for one in sent) <= 0.15 * len(sent)
    assert median(one.size for one in sent) >= 1200


def test_without_the_loop_the_queue_stands() -> None:
    """What the test above would say if it did nothing."""
    edge = Edge(fps=30.0, sizes=(1200,), adaptive=False)
    World([edge], RATES, delay=DELAY).run(45.0)
    fallen = between(edge, 20.0, 45.0)
    assert excess(fallen, 200e3) > 10
    assert sum(one.arrived is None for one in fallen) > len(fallen) / 5


def test_stays_below_a_link_that_is_narrow_from_the_start() -> None:
    edge = Edge(fps=10.0, limits=LinkLimits(start=400e3))
    World([edge], [(0.0, 150e3)], delay=DELAY).run(30.0)
    assert excess(between(edge, 3.0, 30.0), 150e3) <= 1.5
    assert bitrate(between(edge, 3.0, 30.0), 27.0) >= 75e3


@pytest.mark.parametrize('rate', [1e6, 4e6])
def test_a_tcp_flow_does_not_starve_it(rate: float) -> None:
    edge = Edge(fps=10.0)
    world = World([edge], [(0.0, rate)], delay=DELAY, limit=round(rate / 8 * 0.2))
    tcp = Tcp(world, begin=10.0)
    world.run(70.0)
    kept = bitrate(between(edge, 30.0, 70.0), 40.0)
    taken = sum(8 * size for at, size in tcp.delivered if 30.0 <= at < 70.0) / 40.0
    assert kept >= 3 * LinkLimits().least
    assert taken >= 0.2 * rate


def test_a_tcp_flow_is_not_given_way_to_again_and_again() -> None:
    """Its queue halves and fills again, and is as long as it was found to be only at times."""
    edge = Edge(fps=10.0, sizes=(764, 1404, 2684, 5244, 10_364))
    world = World([edge], [(0.0, 2e6)], delay=DELAY, seed=3)
    Tcp(world, begin=5.0)
    world.run(60.0)
    assert bitrate(between(edge, 25.0, 60.0), 35.0) >= 300e3


def test_goes_down_when_reports_cease_and_up_again() -> None:
    edge = Edge(fps=10.0)
    world = World([edge], [(0.0, 2e6)], delay=DELAY, deaf=lambda now: 20.0 <= now < 35.0)
    world.run(50.0)
    told = dict(edge.estimates)
    least = LinkLimits().least
    before = [value for at, value in told.items() if 15.0 <= at < 20.0]
    deaf = [value for at, value in told.items() if 32.0 <= at < 35.0]
    after = [value for at, value in told.items() if 45.0 <= at < 50.0]
    assert min(before) > 500e3
    assert max(deaf) == least
    assert min(after) > 500e3
    # It sends on all the same, so that it is heard of as soon as that is possible.
    assert len(between(edge, 30.0, 35.0)) >= 3


def test_nobody_ever_reports() -> None:
    estimator = LinkEstimator(LinkLimits(start=300e3))
    assert estimator.bitrate(0.0) == 300e3
    estimator.sent(0, 1000, 10.0)
    assert estimator.bitrate(12.9) == 300e3
    assert not estimator.hears_nothing(12.9)
    assert estimator.bitrate(13.1) == 150e3
    assert estimator.hears_nothing(13.1)
    assert estimator.bitrate(100.0) == LinkLimits().least
    assert estimator.admits(100.0)


def report(number: int, up_to: int = 0, **fields: float) -> LinkReport:
    values = {
        'number': number, 'period': 0.2, 'received': up_to + 1, 'received_up_to': up_to,
        'lost': 0, 'bitrate': 100e3, 'delay': 0.0, 'delay_trend': 0.0, 'delay_samples': 10,
    }  # fmt: skip
    return LinkReport(**(values | fields))  # type: ignore[arg-type]


def test_nothing_goes_out_while_a_message_is_overdue() -> None:
    estimator = LinkEstimator()
    for number in range(10):
        estimator.sent(number, 1000, number * 0.1)
        estimator.note(report(number, number), number * 0.1 + 0.05)
    estimator.sent(10, 1000, 1.0)
    assert estimator.admits(1.1)
    assert not [t for t in (1.7, 1.8) if estimator.admits(1.0 + t - 1.0) and t < 1.6]
    estimator.sent(11, 1000, 1.5)
    assert not estimator.admits(1.7)
    # Now and then one goes out nevertheless: it may be the reports that are lost.
    assert estimator.admits(2.2)
    estimator.note(report(10, 11), 2.3)
    assert estimator.admits(2.3)


def test_a_message_that_is_overdue_cuts_the_estimate() -> None:
    estimator = LinkEstimator(LinkLimits(start=1e6))
    estimator.sent(0, 1000, 0.0)
    estimator.note(report(0, 0), 0.1)
    estimator.sent(1, 1000, 0.1)
    before = estimator.estimate
    for step in range(1, 6):
        estimator.note(report(step, 0), 0.1 + step * 0.2)
    assert estimator.estimate < before / 2


def test_old_reports_are_left_out_and_restarted_receivers_heard() -> None:
    estimator = LinkEstimator()
    estimator.note(report(500, share=50e3), 1.0)
    estimator.note(report(499, share=70e3), 1.1)
    assert estimator.bitrate(1.1) == 50e3
    estimator.note(report(0, share=60e3), 1.2)
    assert estimator.bitrate(1.2) == 60e3
    estimator.note(report(2**32 - 1, share=20e3), 1.3)
    assert estimator.bitrate(1.3) == 60e3


def test_a_share_bounds_what_is_sent() -> None:
    estimator = LinkEstimator(LinkLimits(start=500e3, least=30e3))
    estimator.note(report(0, share=80e3), 0.0)
    assert estimator.bitrate(0.0) == 80e3
    estimator.note(report(1, share=1e3), 0.2)
    assert estimator.bitrate(0.2) == 30e3
    estimator.note(report(2, share=0.0), 0.4)
    assert estimator.bitrate(0.4) >= 400e3


def test_losses_make_messages_small_but_not_those_of_a_share() -> None:
    estimator = LinkEstimator()
    for number in range(40):
        estimator.sent(number, 5000, number * 0.1)
        told = report(number, number, lost=number // 2)
        estimator.note(told, number * 0.1 + 0.05)
    assert estimator.loss == pytest.approx(1 - 0.5**0.25, abs=0.05)
    assert estimator.message_bytes() == PACKET_BYTES
    estimator.note(report(40, 39, lost=20, share=50e3), 4.1)
    assert estimator.message_bytes() == float('inf')


@given(
    st.lists(
        st.tuples(
            st.booleans(), st.integers(0, 2**32 - 1), st.floats(0.0, 5.0), st.floats(0.0, 1e9)
        ),
        max_size=60,
    )
)
def test_whatever_is_reported_the_bitrate_is_within_its_limits(
    steps: list[tuple[bool, int, float, float]],
) -> None:
    limits = LinkLimits()
    estimator, now, sequence = LinkEstimator(limits), 0.0, 0
    for sends, number, later, value in steps:
        now += later
        if sends:
            estimator.sent(sequence, number % 100_000, now)
            sequence += 1
        else:
            up_to = number % (sequence + 2)
            told = report(number, up_to, lost=number, bitrate=value, delay=value, share=value)
            estimator.note(told, now)
        assert limits.least <= estimator.bitrate(now) <= limits.most
        estimator.admits(now)


def test_an_edge_that_begins_anew_is_not_confused_by_reports_on_the_one_before() -> None:
    old, new, receiver = LinkEstimator(), LinkEstimator(), LinkReceiver(0.2)
    for number in range(500):
        old.sent(number, 1000, number * 0.1)
        receiver.note(number, number * 0.1, number * 0.1 + 0.02, 1000)
    new.sent(0, 1000, 50.0)
    new.note(receiver.report(50.1), 50.1)
    assert new.admits(50.1)
    assert new.bitrate(50.1) >= LinkLimits().start


@pytest.mark.parametrize(
    ('size', 'count'),
    [
        (100, 1),
        (PACKET_BYTES, 1),
        (PACKET_BYTES + 1, 2),
        (PACKET_BYTES + 1480, 2),
        (PACKET_BYTES + 1481, 3),
        (27_400, 19),
    ],
)
def test_packets_of_a_message(size: int, count: int) -> None:
    """Those of docs/network.md."""
    assert packets(size) == count

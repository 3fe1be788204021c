"""The parts of congestion control one by one: overuse, loss, the estimate's limits."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msfc.link.control import CongestionControl, LinkLimits, Observation
from msfc.link.loss import HIGHEST_FLOOR, MISSED, LossController, MessageSize, Verdict
from msfc.link.overuse import LEAST, MOST, START, OveruseDetector, Usage


def test_overuse_by_the_trend() -> None:
    detector = OveruseDetector()
    assert detector.judge(START * 2, 10, 0.0) is Usage.OVER
    assert detector.judge(-START * 2, 10, 0.2) is Usage.UNDER
    assert detector.judge(0.0, 10, 0.4) is Usage.NORMAL


def test_a_trend_that_falls_or_rests_on_little_is_no_overuse() -> None:
    detector = OveruseDetector()
    assert detector.judge(START * 4, 3, 0.0) is Usage.NORMAL
    assert detector.judge(START * 4, 10, 0.2) is Usage.OVER
    assert detector.judge(START * 3, 10, 0.4) is Usage.NORMAL


def test_threshold_adapts_to_how_much_the_delay_varies() -> None:
    detector = OveruseDetector()
    for step in range(50):
        detector.judge(START * 1.5 * (-1) ** step, 10, step * 0.2)
    assert detector.threshold > START * 1.3
    assert detector.judge(START * 1.3, 10, 10.0) is Usage.NORMAL
    for step in range(500):
        detector.judge(0.0, 10, 10.0 + step * 0.2)
    assert detector.threshold == pytest.approx(LEAST)


@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(0, 60), st.floats(0.0, 5.0)), max_size=50)
)
def test_threshold_stays_within_its_limits(steps: list[tuple[float, int, float]]) -> None:
    detector, now = OveruseDetector(), 0.0
    for trend, samples, later in steps:
        now += later
        detector.judge(trend, samples, now)
        assert LEAST <= detector.threshold <= MOST


def lose(controller: LossController, share: float, count: int, packets: int, seed: int) -> float:
    """Note messages of which a share of the packets is lost; return the product of all cuts."""
    rng, factor = random.Random(seed), 1.0
    for _ in range(count):
        lost = any(rng.random() < share for _ in range(packets))
        factor *= controller.note(1, int(lost), packets)
    return factor


def test_no_loss_lets_the_rate_rise() -> None:
    controller = LossController()
    assert lose(controller, 0.0, 500, 1, 0) == 1.0
    assert controller.verdict is Verdict.RISE


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize(('share', 'packets'), [(0.05, 1), (0.05, 4), (0.02, 20)])
def test_loss_that_does_not_go_with_the_rate_becomes_the_floor(
    share: float, packets: int, seed: int
) -> None:
    """Loss of packets is told from that of messages, and holds the rate for a while only."""
    controller = LossController()
    lose(controller, share, 2000 // packets, packets, seed)
    assert controller.floor == pytest.approx(share, abs=0.06)
    verdicts = []
    for block in range(20):
        lose(controller, share, -(-60 // packets), packets, 100 * seed + block)
        verdicts.append(controller.verdict)
    assert verdicts.count(Verdict.RISE) >= 12


def test_loss_that_goes_with_the_rate_is_cut_until_there_is_little() -> None:
    """A policer: what exceeds a rate is dropped, and nothing is delayed."""
    controller, rate, capacity, rng = LossController(), 3.0, 1.0, random.Random(1)
    for _ in range(3000):
        lost = rng.random() < max(0.0, 1.0 - capacity / rate)
        rate *= controller.note(1, int(lost), 1)
    assert rate < 1.15 * capacity
    assert rate > 0.5 * capacity
    assert controller.floor < 0.05


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(-5, 30), st.integers(0, 300)), max_size=60)
)
def test_losses_of_any_kind(notes: list[tuple[int, int, int]]) -> None:
    controller, size = LossController(), MessageSize()
    for messages, lost, packets in notes:
        factor = controller.note(messages, lost, max(packets, messages))
        assert 0.4 <= factor <= 1.0
        assert 0.0 <= controller.loss <= 1.0
        assert 0.0 <= controller.floor <= HIGHEST_FLOOR
        size.note(messages, lost, max(packets, messages))
        assert 0.0 <= size.loss <= 1.0
        assert size.most_packets() >= 1


def test_messages_have_so_many_packets_that_few_get_lost() -> None:
    """It goes up to the loss of the radio within some blocks, and down again."""
    size, rng, most = MessageSize(), random.Random(1), []
    assert math.isinf(size.most_packets())
    for share, messages in ((0.0, 100), (0.05, 1000), (0.0, 300)):
        for _ in range(messages):
            count = int(min(size.most_packets(), 8))
            lost = any(rng.random() < share for _ in range(count))
            size.note(1, int(lost), count)
            most.append(count)
    assert set(most[:100]) == {8}
    late = most[160:1100]
    # In 3 packets 14 % get lost, in 8 of them 34 %.
    assert 2.0 <= sum(late) / len(late) <= 4.0
    assert most[-1] == 8


@pytest.mark.parametrize(('share', 'most'), [(0.01, 16), (0.02, 8), (0.05, 3), (0.2, 1), (1.0, 1)])
def test_most_packets_of_a_message(share: float, most: int) -> None:
    size = MessageSize()
    size.loss = share
    assert size.most_packets() == most
    assert most == 1 or 1 - (1 - share) ** most <= MISSED < 1 - (1 - share) ** (most + 1)


observations = st.builds(
    Observation,
    bitrate=st.floats(0.0, 1e9),
    trend=st.floats(-1e3, 1e3),
    samples=st.integers(0, 60),
    delay=st.floats(0.0, 1e3),
    own=st.floats(0.0, 1e3),
    response=st.floats(0.01, 10.0),
    stalled=st.booleans(),
)


@given(st.lists(st.tuples(observations, st.floats(0.0, 10.0), st.integers(0, 5)), max_size=40))
def test_estimate_stays_within_its_limits_whatever_is_seen(
    steps: list[tuple[Observation, float, int]],
) -> None:
    limits = LinkLimits(start=100_000.0, least=20_000.0, most=1_000_000.0)
    control, now = CongestionControl(limits), 0.0
    for seen, later, lost in steps:
        now += later
        control.note_fates(5, lost, 10, now)
        control.step(seen, now)
        assert limits.least <= control.target <= control.estimate <= limits.most


def test_rises_faster_the_longer_nothing_is_wrong() -> None:
    control = CongestionControl(LinkLimits(start=100_000.0))
    before, ratios = control.estimate, []
    for step in range(50):
        wrong = step == 1
        seen = Observation(1e5 if wrong else 1e6, float(wrong), 10, 0.1 * wrong)
        control.step(seen, step * 0.2)
        ratios.append(control.estimate / before)
        before = control.estimate
    assert ratios[5] < 1.03
    assert ratios[-1] > 1.07


def test_cut_to_what_arrives_and_drains_what_stands() -> None:
    control = CongestionControl(LinkLimits(start=1e6))
    control.step(Observation(1e6, 0.0, 10, 0.0), 0.0)
    assert control.step(Observation(200_000.0, 0.5, 10, 0.4), 0.2)
    assert control.estimate == pytest.approx(170_000)
    assert control.target < 0.7 * control.estimate
    assert not control.step(Observation(200_000.0, 0.5, 10, 0.4), 0.4, may_cut=False)


def test_a_queue_that_stays_whatever_is_sent_is_that_of_others() -> None:
    control, targets = CongestionControl(LinkLimits(start=100_000.0)), []
    for step in range(100):
        seen = Observation(bitrate=100_000.0, trend=0.0, samples=10, delay=0.5)
        control.step(seen, step * 0.2)
        targets.append(control.target)
    assert min(targets) < 0.6 * 100_000
    assert targets[-1] >= 100_000


@pytest.mark.parametrize(
    'values', [(5.0, 10.0, 20.0), (30.0, 10.0, 20.0), (10.0, 0.0, 20.0), (1.0, 1.0, float('inf'))]
)
def test_limits_in_disorder_are_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match='within the least'):
        LinkLimits(*values)

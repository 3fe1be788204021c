"""The narrow place of a link: its rate, its limit, and flows that take turns."""

from __future__ import annotations

import pytest

from msfc.link.bottleneck import Bottleneck

RATE = 80_000.0
"""Bit/s: 10,000 bytes a second."""


def passed(link: Bottleneck[str], until: float) -> str:
    return ''.join(item for item, _ in link.take(until))


def test_first_in_first_out_at_its_rate() -> None:
    link: Bottleneck[str] = Bottleneck(RATE, 10_000)
    for name in 'abc':
        assert link.offer(name, 1000, 5.0)
    assert link.queued == 3000
    assert link.due() == pytest.approx(5.1)
    assert link.take(5.25) == [('a', pytest.approx(5.1)), ('b', pytest.approx(5.2))]
    link.set_rate(2 * RATE, 5.25)
    assert link.due() == pytest.approx(5.275)
    assert passed(link, 6.0) == 'c'
    assert link.queued == 0
    assert link.due() == float('inf')


def test_what_does_not_fit_is_dropped() -> None:
    link: Bottleneck[str] = Bottleneck(RATE, 2000)
    assert [link.offer(name, 900, 0.0) for name in 'abc'] == [True, True, False]
    assert link.dropped == 1
    assert passed(link, 1.0) == 'ab'
    assert link.offer('d', 2000, 1.0)
    assert not link.offer('e', 2001, 9.0)


def test_flows_take_turns_and_have_a_limit_each() -> None:
    link: Bottleneck[str] = Bottleneck(RATE, 6000)
    for _ in range(6):
        link.offer('t', 1500, 0.0, 'tcp')
    assert link.dropped == 2
    for name in 'abc':
        assert link.offer(name, 1500, 0.0, 'features')
    order = passed(link, 10.0)
    assert sorted(order) == sorted('ttttabc')
    # One packet is on its way already; from then on it is one each.
    assert order.replace('t', '') == 'abc'
    assert order.index('c') <= 5


def test_a_packet_of_a_new_flow_waits_only_for_the_one_on_its_way() -> None:
    link: Bottleneck[str] = Bottleneck(RATE, 60_000)
    for _ in range(30):
        link.offer('t', 1500, 0.0, 'tcp')
    for second in range(1, 4):
        link.take(float(second))
        link.offer('f', 500, float(second), 'features')
        arrival = next(at for item, at in link.take(second + 0.9) if item == 'f')
        assert arrival - second <= (1500 + 500) * 8 / RATE + 1e-9


def test_a_flow_that_has_gone_is_forgotten_and_comes_again() -> None:
    link: Bottleneck[str] = Bottleneck(RATE, 60_000)
    for second in range(20):
        link.offer('f', 500, float(second), second)
        assert passed(link, second + 0.9) == 'f'
    assert link.queued == 0
    assert len(link._flows) <= 2

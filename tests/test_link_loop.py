"""An adaptive edge and its cloud on two hosts, with a shaped link between them.

Delays are those of the datagrams on the link, measured by what carries them: how long the nodes
take does not count.

What was measured is printed:  pytest tests/test_link_loop.py -s | grep measured
"""

from __future__ import annotations

import statistics
import time

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from link_pair import LinkPair
from msfc_demo.shaped_link import tun_obstacle
from msfc_demo.two_hosts import obstacle
from tcp_flow import tcp_flow

WHY_NOT = obstacle('nice') or tun_obstacle()
pytestmark = [pytest.mark.dds, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]

RATE = 10.0
"""Images per second."""

WIDE, NARROW = 2e6, 200e3
"""Bit/s of the link."""

DELAY, LIMIT = 0.02, 60_000
"""Seconds that a packet travels, and bytes of the queue in front of the link."""

LARGE = 5000
"""Bytes from which on a message is large: it takes more than the narrow link at this rate."""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Return the folder of model and logs."""
    return tmp_path_factory.mktemp('link')


@pytest.fixture(scope='module')
def pair(folder):
    """Return an adaptive pair at work on a wide link."""
    with LinkPair(folder, adaptive=True) as pair:
        pair.hosts.shape(WIDE, 0.0, DELAY, LIMIT)
        pair.film(RATE)
        yield pair


def recover(pair):
    """Wait until the link is wide and large messages arrive."""
    pair.hosts.shape(WIDE, 0.0, DELAY, LIMIT)
    start = time.monotonic()
    pair.features()
    pair.wait(
        lambda: any(size >= LARGE and delay for _, size, delay in pair.features()),
        'large messages',
    )
    return time.monotonic() - start


def excess(sent, rate):
    """Return the median of the delays, each by that of its datagram on an idle link."""
    return statistics.median(
        delay / (DELAY + 8 * size / rate) for _, size, delay in sent if delay is not None
    )


def report(what, **figures):
    """Print a line of figures."""
    words = ', '.join(f'{name.replace("_", " ")} {value}' for name, value in figures.items())
    print(f'\nmeasured: {what}: {words}', flush=True)


def test_no_queue_stands_when_the_link_falls(pair):
    recover(pair)
    pair.hosts.shape(NARROW, 0.0, DELAY, LIMIT)
    start = time.monotonic()

    def drained():
        sent = [one for one in pair.features_for(2.0) if one[2] is not None]
        return len(sent) >= 5 and excess(sent, NARROW) <= 1.5

    pair.wait(drained, 'the queue to be empty')
    seconds = time.monotonic() - start
    looked = len(pair.hosts.samples())
    sent = pair.features_for(10.0)
    arrived = [one for one in sent if one[2] is not None]
    bits = sum(8 * size for _, size, _ in arrived)
    queued = [one['queued'] for one in pair.hosts.samples()[looked:]]
    rise = recover(pair)
    report(
        'link that falls to 200 kbit/s',
        empty_after=f'{seconds:.1f} s',
        delay_by_idle=f'{excess(arrived, NARROW):.2f}',
        median_delay=f'{1e3 * statistics.median(delay for *_, delay in arrived):.0f} ms',
        kbit_per_s=f'{bits / 10e3:.0f}',
        lost=len(sent) - len(arrived),
        large_again_after=f'{rise:.1f} s',
    )
    # Without the loop it is full: see the last test.
    assert statistics.median(queued) < LIMIT / 4
    # Within what the link carries in that time, with what was in the queue.
    assert 0 < bits <= NARROW * 10.0 + 8 * LIMIT


def test_losses_do_not_starve_it(pair):
    recover(pair)
    before = pair.hosts.carried()['lost']
    pair.hosts.shape(WIDE, 0.05, DELAY, LIMIT)
    pair.features_for(20.0)
    sent = pair.features_for(10.0)
    lost = pair.hosts.carried()['lost'] - before
    arrived = [one for one in sent if one[2] is not None]
    report(
        '5 % of the packets lost',
        packets_lost=lost,
        messages=len(sent),
        arrived=len(arrived),
        estimate=f'{pair.value("edge", "link_estimate") / 1e3:.0f} kbit/s',
    )
    assert lost
    assert arrived
    assert pair.value('edge', 'link_estimate') >= 50e3


def test_reports_that_cease_are_told_and_little_is_sent(pair):
    recover(pair)
    # Nothing comes through, either way.
    pair.hosts.shape(WIDE, 1.0, DELAY, LIMIT)
    pair.wait(
        lambda: 'no report on the link' in pair.status('edge')['message'], 'the edge to say so'
    )
    pair.wait(lambda: pair.value('edge', 'link_bitrate') <= 10e3, 'the least bitrate')
    recover(pair)
    pair.wait(
        lambda: 'no report on the link' not in pair.status('edge')['message'], 'reports again'
    )


def test_a_tcp_flow_does_not_silence_it(pair):
    recover(pair)
    with tcp_flow(pair.hosts):
        before = pair.hosts.samples()[-1]
        pair.wait(lambda: pair.hosts.samples()[-1]['tcp'] - before['tcp'] > 100_000, 'TCP to send')
        pair.features_for(20.0)
        sent = pair.features_for(10.0)
    arrived = [one for one in sent if one[2] is not None]
    report(
        'TCP beside it at 2 Mbit/s',
        messages=len(sent),
        arrived=len(arrived),
        kbit_per_s=f'{sum(8 * size for _, size, _ in arrived) / 10e3:.0f}',
        median_delay=f'{1e3 * statistics.median(delay for *_, delay in arrived):.0f} ms',
    )
    assert arrived


def test_without_the_loop_the_queue_stands(folder):
    """What these tests would measure if the loop did nothing."""
    with LinkPair(folder, adaptive=False) as pair:
        pair.hosts.shape(WIDE, 0.0, DELAY, LIMIT)
        pair.film(RATE)
        recover(pair)
        pair.hosts.shape(NARROW, 0.0, DELAY, LIMIT)
        pair.features_for(5.0)
        before = pair.hosts.carried()['dropped']
        looked = len(pair.hosts.samples())
        pair.features_for(10.0)
        queued = [one['queued'] for one in pair.hosts.samples()[looked:]]
        dropped = pair.hosts.carried()['dropped'] - before
    report('loop off', median_queue=f'{statistics.median(queued):.0f} B', dropped=dropped)
    assert dropped
    assert statistics.median(queued) > LIMIT / 2

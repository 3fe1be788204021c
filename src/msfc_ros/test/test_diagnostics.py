import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_ros.diagnostics import (
    ERROR,
    HUNG,
    OK,
    WARN,
    Finding,
    clock_findings,
    make_status,
    work_findings,
)
from msfc_ros.statistics import BASELINE, WINDOW, Statistics
from ros_fixtures import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def statistics(clock):
    return Statistics(clock)


def run_frames(statistics, clock, rate=10, seconds=5):
    for _ in range(round(rate * seconds)):
        clock.now += 1 / rate
        statistics.count('received')
        statistics.frame({})


def only(findings):
    (finding,) = findings
    return finding.level, finding.text


def test_work_that_goes_well(statistics, clock):
    run_frames(statistics, clock, seconds=100)
    assert work_findings(statistics, 0.1) == []


def test_nothing_received(statistics, clock):
    assert work_findings(statistics, 0) == []
    clock.now += WINDOW
    assert only(work_findings(statistics, 0)) == (WARN, 'nothing received for 10 s')
    run_frames(statistics, clock)
    assert work_findings(statistics, 0) == []
    clock.now += 34
    assert only(work_findings(statistics, 0)) == (WARN, 'nothing received for 34 s')


def test_refusals_among_good_messages(statistics, clock):
    run_frames(statistics, clock)
    for _ in range(2):
        statistics.count('received')
        statistics.refuse('bad_size')
    statistics.refuse('bad_time')
    assert only(work_findings(statistics, 0)) == (
        WARN,
        '3 messages refused (bad_size 2, bad_time 1)',
    )
    clock.now += WINDOW / 2 + 1
    run_frames(statistics, clock)
    assert work_findings(statistics, 0) == []


@pytest.mark.parametrize('reason', ['foreign_model', 'internal_error'])
def test_every_message_refused(statistics, clock, reason):
    clock.now += 1
    statistics.count('received')
    statistics.refuse(reason)
    assert only(work_findings(statistics, 0)) == (ERROR, f'every message refused ({reason} 1)')
    # While another is at work it is not clear yet.
    assert only(work_findings(statistics, 0.5))[0] == WARN


def test_stale(statistics):
    for _ in range(3):
        statistics.count('received')
        statistics.count('stale')
    assert only(work_findings(statistics, 0)) == (WARN, '3 messages older than max_age')


def test_stuck(statistics, clock):
    run_frames(statistics, clock)
    assert work_findings(statistics, HUNG) == []
    assert only(work_findings(statistics, HUNG + 1)) == (ERROR, 'at work on one message for 31 s')


def test_idle_is_no_fault(statistics, clock):
    run_frames(statistics, clock, seconds=WINDOW + BASELINE)
    for _ in range(20):
        clock.now += 1
        statistics.count('received')
        statistics.count('idle')
    assert only(work_findings(statistics, 0)) == (OK, 'idle: nobody subscribes')


def test_losses(statistics, clock):
    run_frames(statistics, clock, rate=10, seconds=10)
    statistics.count('lost', 11)
    assert work_findings(statistics, 0) == []
    statistics.count('lost', 1)
    assert only(work_findings(statistics, 0)) == (WARN, '12 of 112 messages lost on the way')


@pytest.mark.parametrize('event', ['repeated', 'reordered'])
def test_messages_that_are_no_news(statistics, clock, event):
    run_frames(statistics, clock, rate=10, seconds=9)
    for _ in range(10):
        statistics.count('received')
        statistics.count(event)
    assert work_findings(statistics, 0) == []
    statistics.count('received')
    statistics.count(event)
    assert only(work_findings(statistics, 0)) == (
        WARN,
        '11 of 101 messages no newer than those before',
    )


def test_fallen_rate(statistics, clock):
    run_frames(statistics, clock, rate=10, seconds=WINDOW + BASELINE)
    run_frames(statistics, clock, rate=6, seconds=WINDOW)
    assert work_findings(statistics, 0) == []
    run_frames(statistics, clock, rate=3, seconds=WINDOW)
    level, text = only(work_findings(statistics, 0))
    assert level == WARN
    assert text.endswith('to 3.00 Hz')
    # After a while it is what is usual.
    run_frames(statistics, clock, rate=3, seconds=BASELINE)
    assert work_findings(statistics, 0) == []


def test_clocks_that_agree(statistics):
    for age in (5.0, 80.0, 2000.0):
        statistics.sample('arrival_age_ms', age)
        statistics.sample('transit_ms', age / 10)
    assert clock_findings(statistics) == []


@pytest.mark.parametrize(
    ('name', 'values', 'words'),
    [
        ('transit_ms', (-1510, -1500), 'the sender is at least 1.5 s ahead'),
        ('transit_ms', (1500, 1900), 'messages seem 1.5 s on the way'),
        ('arrival_age_ms', (-30, -20), 'images have stamps 0.02 s ahead of this host'),
        ('arrival_age_ms', (86400e3, 86401e3), 'images are 8.64e+04 s old as they come'),
    ],
)
def test_clocks_that_differ(statistics, clock, name, values, words):
    for value in values:
        statistics.sample(name, value)
    level, text = only(clock_findings(statistics))
    assert level == WARN
    assert text.startswith(words)
    assert 'synchronise the clocks' in text
    # One that cannot be explained so is not enough: then it is the network, or jitter.
    statistics.sample(name, 500 if values[0] > 0 else 1)
    assert clock_findings(statistics) == []
    clock.now += WINDOW
    assert clock_findings(statistics) == []


def test_no_stamp(statistics):
    statistics.count('unstamped')
    assert only(clock_findings(statistics)) == (WARN, 'images have no stamp')


def test_status_has_the_worst_first():
    findings = [Finding(OK, 'fine'), Finding(ERROR, 'bad'), Finding(WARN, 'odd')]
    status = make_status('robot1/n: t', 'active', findings, {'a': '1', 'b': 'x'}, 'cpu')
    assert (status.level, status.message) == (ERROR, 'active: bad; odd; fine')
    assert (status.name, status.hardware_id) == ('robot1/n: t', 'cpu')
    assert [(item.key, item.value) for item in status.values] == [('a', '1'), ('b', 'x')]


def test_status_without_findings():
    status = make_status('n: t', 'inactive', [], {})
    assert (status.level, status.message) == (OK, 'inactive')


def test_rate_of_a_disabled_node_may_fall(statistics, clock):
    run_frames(statistics, clock, seconds=100)
    for _ in range(100):
        clock.now += 0.1
        statistics.count('received')
        statistics.count('disabled')
    assert work_findings(statistics, 0) == []

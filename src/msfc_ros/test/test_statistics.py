import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from diagnostic_msgs.msg import DiagnosticStatus

from msfc_ros.statistics import QUIET, WINDOW, Statistics


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def statistics(clock):
    return Statistics(clock)


def test_rate(statistics, clock):
    assert statistics.rate() == 0
    for _ in range(5):
        statistics.frame({})
        clock.now += 0.25
    assert statistics.rate() == pytest.approx(4.0)
    clock.now += QUIET
    assert statistics.rate() == 0


def test_means_are_over_the_last_frames(statistics):
    statistics.frame({'age_ms': 1e6})
    for _ in range(WINDOW):
        statistics.frame({'age_ms': 2.5})
    assert statistics.values()['age_ms'] == '2.5'


def test_counts(statistics):
    for event in ('received', 'received', 'idle'):
        statistics.count(event)
    assert statistics.refuse('bad_size') == 1
    assert statistics.refuse('bad_size') == 2
    assert statistics.refuse('foreign_model') == 1
    values = statistics.values()
    assert (values['received'], values['idle'], values['refused']) == ('2', '1', '3')
    assert (values['refused_bad_size'], values['refused_foreign_model']) == ('2', '1')
    assert statistics.refused == {'bad_size': 2, 'foreign_model': 1}


def test_status_warns_of_refusals_for_a_while(statistics, clock):
    assert statistics.status('n: t', 'active').level == DiagnosticStatus.OK
    statistics.refuse('bad_size')
    status = statistics.status('n: t', 'active', 'cpu')
    assert status.level == DiagnosticStatus.WARN
    assert (status.name, status.hardware_id) == ('n: t', 'cpu')
    assert status.message == 'active, refusing messages'
    clock.now += 11
    assert statistics.status('n: t', 'active').level == DiagnosticStatus.OK

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_ros.statistics import BASELINE, CAPACITY, WINDOW, Statistics
from ros_fixtures import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def statistics(clock):
    return Statistics(clock)


def run_frames(statistics, clock, rate, seconds, values=()):
    for _ in range(round(rate * seconds)):
        clock.now += 1 / rate
        statistics.frame(dict(values))


def test_rate(statistics, clock):
    assert statistics.rate() == 0
    run_frames(statistics, clock, 4, 1.25)
    assert statistics.rate() == pytest.approx(4.0)
    run_frames(statistics, clock, 4, 30)
    assert statistics.rate() == pytest.approx(4.0)


def test_a_pause_is_no_slow_rate_afterwards(statistics, clock):
    run_frames(statistics, clock, 4, 5)
    clock.now += 3600
    assert statistics.rate() == 0
    run_frames(statistics, clock, 4, WINDOW)
    assert statistics.rate() == pytest.approx(4.0)


def test_the_first_frame_is_not_extrapolated(statistics, clock):
    clock.now += 0.01
    statistics.frame({})
    assert statistics.rate() == pytest.approx(1.0)


def test_means_are_over_the_last_seconds(statistics, clock):
    statistics.frame({'age_ms': 1e6})
    clock.now += WINDOW
    run_frames(statistics, clock, 10, 1, {'age_ms': 2.5})
    assert statistics.values()['age_ms'] == '2.5'
    clock.now += WINDOW
    assert 'age_ms' not in statistics.values()


def test_bytes_per_second(statistics, clock):
    run_frames(statistics, clock, 10, 20, {'message_bytes': 1400})
    values = statistics.values()
    assert values['message_bytes'] == '1400'
    assert float(values['message_bytes_per_second']) == pytest.approx(14000, rel=0.02)
    clock.now += WINDOW
    assert statistics.values()['message_bytes_per_second'] == '0'


def test_counts(statistics, clock):
    for event in ('received', 'received', 'idle'):
        statistics.count(event)
    statistics.count('lost', 5)
    statistics.count('lost', -1)
    assert statistics.refuse('bad_size') == 1
    assert statistics.refuse('bad_size') == 2
    assert statistics.refuse('foreign_model') == 1
    clock.now += 3600
    values = statistics.values()
    assert (values['received'], values['idle'], values['lost']) == ('2', '1', '4')
    assert values['refused'] == '3'
    assert (values['refused_bad_size'], values['refused_foreign_model']) == ('2', '1')
    assert statistics.refused == {'bad_size': 2, 'foreign_model': 1}
    assert statistics.recently_refused() == {}
    assert statistics.recent('lost') == 0


def test_recent(statistics, clock):
    statistics.count('received', 3)
    statistics.refuse('bad_size')
    clock.now += WINDOW - 1
    statistics.count('received')
    assert (statistics.recent('received'), statistics.recent('never')) == (4, 0)
    assert statistics.recently_refused() == {'bad_size': 1}
    clock.now += 1
    assert statistics.recent('received') == 1
    assert statistics.values()['input_hz'] == '0.10'


def test_silence(statistics, clock):
    clock.now += 2
    assert statistics.silence('received') == 2
    statistics.count('received')
    clock.now += 3
    assert statistics.silence('received') == 3


def test_reset_keeps_the_counts_only(statistics, clock):
    run_frames(statistics, clock, 4, 5, {'age_ms': 2.5})
    statistics.count('received')
    statistics.refuse('bad_size')
    statistics.reset()
    values = statistics.values()
    assert 'age_ms' not in values
    assert (values['rate_hz'], values['input_hz']) == ('0.00', '0.00')
    assert (values['received'], values['refused']) == ('1', '1')
    assert statistics.recently_refused() == {}
    clock.now += 2
    assert statistics.silence('received') == 2


def test_usual_rate(statistics, clock):
    run_frames(statistics, clock, 10, WINDOW)
    assert statistics.usual_rate() is None
    run_frames(statistics, clock, 10, BASELINE)
    assert statistics.usual_rate() == pytest.approx(10, rel=0.01)
    run_frames(statistics, clock, 2, WINDOW)
    assert statistics.rate() == pytest.approx(2)
    assert statistics.usual_rate() == pytest.approx(10, rel=0.01)
    run_frames(statistics, clock, 2, BASELINE)
    assert statistics.usual_rate() == pytest.approx(2, rel=0.01)


def test_memory_is_bounded(statistics):
    for _ in range(CAPACITY + 10):
        statistics.count('received')
        statistics.frame({'age_ms': 1.0})
        statistics.refuse('bad_size')
    assert statistics.recent('received') == CAPACITY
    assert len(statistics.recent_values('age_ms')) == CAPACITY
    assert statistics.refused == {'bad_size': CAPACITY + 10}

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_ros.statistics import WINDOW
from msfc_ros.time_line import JUMP, TimeLine, WallClock
from ros_fixtures import ManualClock

SECOND = 10**9


@pytest.fixture
def clock():
    return ManualClock()


def test_any_stamp_counts_while_nothing_jumps(clock):
    line = TimeLine(clock)
    for stamp in (1, 5 * SECOND, 900 * SECOND):
        assert line.has(stamp, 100 * SECOND)


def test_simulated_time_that_has_not_begun(clock):
    assert not TimeLine(clock).has(7 * SECOND, 0)


@pytest.mark.parametrize(
    ('start', 'now', 'old'),
    [
        (5, 8, 100),  # back: an image of before seems to come from the future
        (500, 503, 100),  # forth: it seems to be old
    ],
)
def test_what_was_stamped_before_a_jump_has_no_age(clock, start, now, old):
    line = TimeLine(clock)
    line.jump(start * SECOND)
    clock.now += WINDOW / 2
    assert not line.has(old * SECOND, now * SECOND)
    for stamp in (start, now):
        assert line.has(stamp * SECOND, now * SECOND)
    # What is still so later is worth being told of.
    clock.now += WINDOW
    assert line.has(old * SECOND, now * SECOND)


def test_wall_clock():
    wall, steady = ManualClock(), ManualClock()
    clock = WallClock(wall, steady)
    for seconds in (1, 100):
        wall.now += seconds
        steady.now += seconds
        assert not clock.has_jumped()
    wall.now += 2 * JUMP
    assert clock.has_jumped()
    assert not clock.has_jumped()
    wall.now -= 2 * JUMP
    assert clock.has_jumped()

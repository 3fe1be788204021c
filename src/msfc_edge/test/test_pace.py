import random

import pytest

from msfc_edge.pace import Pace


def times(rate, seconds=100, jitter=0.2):
    """Return when the frames of a camera come, each up to a part of a period early or late."""
    rng = random.Random(0)
    return [(n + rng.uniform(-jitter, jitter)) / rate for n in range(rate * seconds)]


@pytest.mark.parametrize(
    ('camera', 'limit', 'expected'),
    [
        (30, 10, 10),
        (30, 12, 12),
        (30, 7, 7),
        (30, 29.9, 29.9),
        (30, 30, 30),
        (5, 10, 5),
        (9, 0, 9),
    ],
)
def test_rate_on_average(camera, limit, expected):
    pace = Pace(limit)
    admitted = sum(pace.admits(now) for now in times(camera))
    assert admitted / 100 == pytest.approx(expected, rel=0.005)


def test_never_more_in_a_second_than_the_limit_and_two():
    pace = Pace(7)
    admitted = [now for now in times(30) if pace.admits(now)]
    for start in admitted:
        assert sum(start <= now < start + 1 for now in admitted) <= 9


def test_pause_is_not_made_up_for():
    pace = Pace(1.0)
    assert [pace.admits(now) for now in (0.0, 0.5, 60.0, 60.1, 60.9)] == [
        True, False, True, False, False,
    ]  # fmt: skip


def test_change_holds_from_the_next_frame():
    pace = Pace(0.01)
    assert pace.admits(0.0)
    assert not pace.admits(1.0)
    pace.rate = 10.0
    assert not pace.admits(1.01)
    assert pace.admits(1.2)
    pace.rate = 0.0
    assert pace.admits(1.201)
    assert pace.admits(1.202)
    pace.rate = 1.0
    assert sum(pace.admits(1.203 + n / 10) for n in range(20)) <= 3


def test_restart_admits_at_once():
    pace = Pace(0.001)
    assert pace.admits(0.0)
    assert not pace.admits(1.0)
    pace.restart()
    assert pace.admits(1.0)

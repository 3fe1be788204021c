"""The queueing model of a service, against a simulation of what it describes."""

from __future__ import annotations

import heapq

import pytest

from msfc.serving.capacity import Replica, fit_replica, predict, replicas_for


def simulate(robots: int, rate: float, replicas: int, replica: Replica) -> tuple[float, float]:
    """Return answers a second and mean age of robots that send their newest frame.

    Frames come at a steady rate, phases are even; who is free takes all that wait, up to a batch.
    """
    end, warm = 400 / rate, 100 / rate
    events = [(index / (rate * robots), index) for index in range(robots)]
    heapq.heapify(events)
    waiting: list[tuple[float, int]] = []
    free = [0.0] * replicas
    ages: list[float] = []
    period = 1 / rate
    while events:
        now, robot = heapq.heappop(events)
        if now > end:
            break
        if robot >= 0:
            # The newest frame: the one before may have been taken while this robot waited.
            first = robot / (rate * robots)
            stamp = first + int((now - first) * rate + 1e-9) * period
            waiting.append((stamp, robot))
        for index, at in enumerate(free):
            if at <= now and waiting:
                batch, waiting = waiting[: replica.max_batch], waiting[replica.max_batch :]
                done = now + replica.seconds(len(batch))
                free[index] = done
                heapq.heappush(events, (done, -1))
                for stamp, other in batch:
                    if warm <= done < end:
                        ages.append(done - stamp)
                    heapq.heappush(events, (max(done, stamp + period), other))
    return len(ages) / (end - warm), sum(ages) / max(len(ages), 1)


@pytest.mark.parametrize(
    ('robots', 'replicas'),
    [(1, 1), (8, 1), (8, 4), (64, 1), (64, 2), (64, 8), (1000, 8), (1000, 60)],
)
@pytest.mark.parametrize('replica', [Replica(0.1, 0.02, 8), Replica(0.0, 0.05, 16)])
def test_the_model_is_close_to_what_it_describes(
    robots: int, replicas: int, replica: Replica
) -> None:
    answered, age = simulate(robots, 5.0, replicas, replica)
    found = predict(robots, 5.0, replicas, replica)
    assert found.answered == pytest.approx(answered, rel=0.15)
    assert found.age == pytest.approx(age, rel=0.25)
    assert 0 < found.busy <= 1.0 + 1e-9


def test_a_line_is_found_again() -> None:
    true = Replica(0.05, 0.01, 16)
    found = fit_replica({size: true.seconds(size) for size in (1, 2, 4, 16)})
    assert (found.fixed, found.each) == (pytest.approx(0.05), pytest.approx(0.01))
    assert found.capacity == pytest.approx(16 / 0.21)
    assert found.batch_at(1000) == 16
    assert found.batch_at(1) == 1
    # Of noise neither part gets negative.
    assert fit_replica({1: 0.1, 2: 0.3}).fixed == 0
    assert fit_replica({1: 0.3, 2: 0.1}).each == 0
    assert fit_replica({4: 0.4}) == Replica(0.0, 0.1, 4)
    with pytest.raises(ValueError, match='no batch'):
        fit_replica({})


def test_a_fleet_s_replicas() -> None:
    replica = Replica(0.0, 0.01, 8)
    assert replicas_for(1000, 5.0, replica, busy=1.0) == 50
    assert replicas_for(1000, 5.0, replica) == 72

"""What a service of several replicas can do: a queueing model of few numbers.

A robot has at most one request under way and replaces a frame that waits by a newer one, as the
gateway does. A replica decodes what waits for it at once, up to a number, and the time of such a
batch is a line over its size. docs/fleet.md derives the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Replica:
    """The time of a batch: a line over its size.

    Attributes:
        fixed: seconds of a batch, whatever its size.
        each: seconds more for each request in it.
        max_batch: requests in a batch at most.
    """

    fixed: float
    each: float
    max_batch: int

    def seconds(self, batch: float) -> float:
        """Return the time of a batch of a size."""
        return self.fixed + self.each * batch

    @property
    def capacity(self) -> float:
        """Requests a second, where there are always enough."""
        return self.max_batch / self.seconds(self.max_batch)

    def batch_at(self, arrivals: float) -> float:
        """Return the size of the batches where so many requests come a second.

        While one is decoded, those of the next come: ``b = arrivals * (fixed + each * b)``.
        """
        left = 1.0 - arrivals * self.each
        if left <= 0.0:
            return float(self.max_batch)
        return min(max(1.0, arrivals * self.fixed / left), float(self.max_batch))


@dataclass(frozen=True)
class Prediction:
    """What becomes of a fleet's frames.

    Attributes:
        answered: frames a second that get a result, of all robots together.
        age: mean seconds from the frame's stamp to its result.
        busy: part of the time that a replica is at work.
        batch: mean size of a batch.
    """

    answered: float
    age: float
    busy: float
    batch: float


def fit_replica(seconds: Mapping[int, float]) -> Replica:
    """Return the line through the times of batches, by least squares of their relative errors.

    Args:
        seconds: time of a batch by its size.

    Raises:
        ValueError: there is none.
    """
    if not seconds:
        raise ValueError('no batch was measured')
    largest = max(seconds)
    if len(seconds) == 1:
        return Replica(0.0, seconds[largest] / largest, largest)
    weights = {size: 1.0 / time**2 for size, time in seconds.items()}
    total = sum(weights.values())
    mean_size = sum(weights[size] * size for size in seconds) / total
    mean_time = sum(weights[size] * seconds[size] for size in seconds) / total
    spread = sum(weights[size] * (size - mean_size) ** 2 for size in seconds)
    slope = sum(
        weights[size] * (size - mean_size) * (seconds[size] - mean_time) for size in seconds
    ) / spread
    # Neither can be negative; where noise says so, the line goes through the origin, or is flat.
    each = min(max(slope, 0.0), mean_time / mean_size)
    return Replica(max(mean_time - each * mean_size, 0.0), each, largest)


def predict(
    robots: int, rate: float, replicas: int, replica: Replica, overhead: float = 0.0
) -> Prediction:
    """Return what becomes of the frames of a fleet.

    Args:
        robots: how many there are, each with one request under way at most.
        rate: frames a second of each.
        replicas: how many there are.
        replica: each of them.
        overhead: seconds of a request outside of its replica.
    """
    offered = robots * rate
    # While the replicas decode, those that had their answers last come again: they are the next
    # batch. So robots that always have a frame are spread over the replicas and one batch more.
    most = min(max(1.0, robots / (replicas + 1)), float(replica.max_batch))
    capacity = replicas * most / replica.seconds(most)
    if offered <= capacity:
        batch = min(replica.batch_at(offered / replicas), most)
        work = replica.seconds(batch)
        busy = offered / replicas * work / batch
        # Who finds all at work, and nobody does because of himself, waits for half of the rest.
        wait = busy**replicas * (1 - 1 / robots) * work / (2 * replicas)
        return Prediction(offered, overhead + work + wait, busy, batch)
    # A closed system: every robot has a request under way, so robots = answered * response.
    answered = min(capacity, robots / (replica.seconds(most) + overhead))
    response = robots / answered
    # What is sent is the newest frame: half a period old on average.
    return Prediction(answered, response + 0.5 / rate, answered / capacity, most)


def replicas_for(robots: int, rate: float, replica: Replica, busy: float = 0.7) -> int:
    """Return how many replicas a fleet needs, so that each is busy for a part of the time."""
    return math.ceil(robots * rate / (replica.capacity * busy))

"""How many frames of each sender a receiver can work on, so that others are not sent at all."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Key = TypeVar('Key', bound=Hashable)

WINDOW = 5.0
"""Seconds over which work and arrivals are measured."""

FEWEST = 3
"""Frames that it takes to know how long one takes."""

CAPACITY = 1000
"""Frames, and pieces of work, that are remembered at most."""


class DecodeLoad(Generic[Key]):
    """Follows what arrives and how long the work on it takes; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._work: deque[tuple[float, float, int]] = deque(maxlen=CAPACITY)
        self._arrivals: dict[Key, deque[float]] = {}

    def arrived(self, sender: Key, now: float) -> None:
        """Take note of a frame that has arrived, whatever will become of it."""
        with self._lock:
            self._arrivals.setdefault(sender, deque(maxlen=CAPACITY)).append(now)

    def worked(self, seconds: float, frames: int, now: float) -> None:
        """Take note of work that is done.

        Args:
            seconds: that it took.
            frames: that were worked on at once.
            now: the time in seconds.
        """
        with self._lock:
            self._work.append((now, seconds, frames))

    def rate(self, sender: Key, now: float) -> float:
        """Return the frames of a sender that can be worked on, per second; 0 if not known.

        It is what there would be for it if it had any number of them, the others as many as they
        have, and nobody more than others that want more.
        """
        with self._lock:
            work = [(took, frames) for at, took, frames in self._work if at > now - WINDOW]
            others = [
                sum(at > now - WINDOW for at in arrivals) / WINDOW
                for key, arrivals in self._arrivals.items()
                if key != sender
            ]
        seconds, frames = sum(took for took, _ in work), sum(count for _, count in work)
        if frames < FEWEST or seconds <= 0.0:
            return 0.0
        return fair_part(frames / seconds, others)


def fair_part(capacity: float, others: Iterable[float]) -> float:
    """Return what one gets of a capacity who wants any amount of it, by max-min fairness.

    Args:
        capacity: of all together.
        others: what the others want.
    """
    wanted = sorted(others)
    left, count = capacity, len(wanted) + 1
    for want in wanted:
        if want * count >= left:
            break
        left, count = left - want, count - 1
    return left / count

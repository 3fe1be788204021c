"""The narrow place of a link, for links that are made: a queue that is drained at a rate."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar('T')


class Bottleneck(Generic[T]):
    """A queue of packets that is drained at a rate; what does not fit in is dropped.

    Args:
        rate: in bit/s; may be set with :meth:`set_rate`.
        limit: bytes that the queue holds at most.

    Attributes:
        limit: the same; may be set.
        dropped: packets that did not fit.
        queued: bytes in the queue.
    """

    def __init__(self, rate: float, limit: int) -> None:
        self._rate = rate
        self.limit = limit
        self._queue: deque[tuple[T, int]] = deque()
        self._left = 0.0
        self._at = 0.0
        self.queued = 0
        self.dropped = 0

    @property
    def rate(self) -> float:
        """Bit/s at which it is drained."""
        return self._rate

    def set_rate(self, rate: float, now: float) -> None:
        """Drain at another rate; :meth:`take` has to be called for the time before."""
        if self._queue:
            self._left -= (now - self._at) * self._rate
        self._rate, self._at = rate, now

    def offer(self, item: T, size: int, now: float) -> bool:
        """Queue a packet; return whether it fits."""
        if self.queued + size > self.limit:
            self.dropped += 1
            return False
        if not self._queue:
            self._left, self._at = 8.0 * size, now
        self._queue.append((item, size))
        self.queued += size
        return True

    def due(self) -> float:
        """Return when the next packet has passed; infinite if there is none."""
        return self._at + max(self._left, 0.0) / self._rate if self._queue else float('inf')

    def take(self, now: float) -> list[tuple[T, float]]:
        """Return the packets that have passed until now, and when each had."""
        passed = []
        while (at := self.due()) <= now:
            item, size = self._queue.popleft()
            self.queued -= size
            passed.append((item, at))
            self._at = at
            self._left = 8.0 * self._queue[0][1] if self._queue else 0.0
        return passed

"""The narrow place of a link, for links that are made: a queue that is drained at a rate."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar('T')

QUANTUM = 1514
"""Bytes that a flow may send in its turn, as in Linux's fq_codel at an MTU of 1,500."""


class Bottleneck(Generic[T]):
    """A queue of packets that is drained at a rate; what does not fit in is dropped.

    Packets whose flow is not told are one flow, first in, first out. Several flows have a queue
    each and take turns, by deficit round robin with the new ones first: the scheduler of FQ-CoDel
    (RFC 8290, section 4.2), without its CoDel.

    Args:
        rate: in bit/s; may be set with :meth:`set_rate`.
        limit: bytes that the queue of a flow holds at most.

    Attributes:
        limit: the same; may be set.
        dropped: packets that did not fit.
        queued: bytes in all queues.
    """

    def __init__(self, rate: float, limit: int) -> None:
        self._rate = rate
        self.limit = limit
        self._flows: dict[Hashable, _Flow[T]] = {}
        self._new: deque[Hashable] = deque()
        self._old: deque[Hashable] = deque()
        self._passing: tuple[T, int] | None = None
        self._passed: _Flow[T] = _Flow()
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
        if self._passing is not None:
            self._left -= (now - self._at) * self._rate
        self._rate, self._at = rate, now

    def offer(self, item: T, size: int, now: float, flow: Hashable = None) -> bool:
        """Queue a packet; return whether it fits.

        Args:
            item: the packet.
            size: its bytes.
            now: the time in seconds.
            flow: what it is part of.
        """
        queue = self._flows.get(flow)
        if (queue.queued if queue else 0) + size > self.limit:
            self.dropped += 1
            return False
        if queue is None:
            queue = self._flows[flow] = _Flow()
            self._new.append(flow)
        queue.packets.append((item, size))
        queue.queued += size
        self.queued += size
        if self._passing is None:
            self._pass_next(now)
        return True

    def due(self) -> float:
        """Return when the next packet has passed; infinite if there is none."""
        if self._passing is None:
            return float('inf')
        return self._at + max(self._left, 0.0) / self._rate

    def take(self, now: float) -> list[tuple[T, float]]:
        """Return the packets that have passed until now, and when each had."""
        passed = []
        while self._passing is not None and (at := self.due()) <= now:
            item, size = self._passing
            self._passed.queued -= size
            self.queued -= size
            passed.append((item, at))
            self._pass_next(at)
        return passed

    def _pass_next(self, now: float) -> None:
        """Begin with the packet whose turn it is."""
        self._passing = None
        while self._new or self._old:
            turns = self._new or self._old
            key = turns.popleft()
            flow = self._flows[key]
            if flow.deficit <= 0:
                flow.deficit += QUANTUM
                self._old.append(key)
            elif flow.packets:
                turns.appendleft(key)
                self._passing, self._passed = flow.packets.popleft(), flow
                self._left, self._at = 8.0 * self._passing[1], now
                flow.deficit -= self._passing[1]
                return
            elif turns is self._new:
                # Not gone at once, or it would be new, and first, with each packet.
                self._old.append(key)
            else:
                del self._flows[key]


class _Flow(Generic[T]):
    """The queue of one flow, and the bytes that are left of its turn."""

    def __init__(self) -> None:
        self.packets: deque[tuple[T, int]] = deque()
        self.queued = 0
        self.deficit = QUANTUM

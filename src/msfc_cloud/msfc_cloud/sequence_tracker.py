"""What the cloud knows of one edge's messages: which number comes next, what is missing.

Numbers are judged as RFC 3550, appendix A.1, does for RTP, with the camera's stamps as a second
witness, since an edge that was restarted counts from 0 again and is wanted back at once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum

NUMBERS = 2**32
"""Sequence numbers are taken modulo this."""

MAX_GAP = 3000
"""Numbers that may be missing in a row; beyond it the sender is taken to count anew."""

MAX_LATE = 100
"""Numbers that a message may be late by, others having overtaken it."""

MAX_LATE_SECONDS = 2.0
"""Seconds that a message's image may be older than one that has overtaken it."""


class Order(Enum):
    """How a message stands to those before it.

    Attributes:
        FIRST: nothing came before it.
        NEXT: newer than all before it; some may be missing in between.
        RESTARTED: the first of a sender that counts anew: one that was restarted, or a recording
            that is played again.
        LATE: overtaken by others, and missed so far.
        REPEATED: here before, or too old to have been overtaken.
    """

    FIRST = 'first'
    NEXT = 'next'
    RESTARTED = 'restarted'
    LATE = 'late'
    REPEATED = 'repeated'

    @property
    def is_news(self) -> bool:
        """Whether a message that stands so is newer than what came before it."""
        return self in (Order.FIRST, Order.NEXT, Order.RESTARTED)


@dataclass(frozen=True)
class Arrival:
    """What a message's number tells.

    Attributes:
        order: how it stands to those before it.
        lost: messages missing between it and those before; -1 if it is late and was one of them.
        dropped: messages right before it that are of the same new count and were taken for
            repeated: 1 or 0.
    """

    order: Order
    lost: int = 0
    dropped: int = 0


class SequenceTracker:
    """Follows the sequence numbers of the messages on one topic.

    A message that is not newer than all before it is not worth decoding: what was published
    already is newer, or the same. The exception is a sender that counts anew:

    * its number does not go on, but its image is newer than the newest: it was restarted;
    * two messages in a row whose numbers follow each other and that cannot be late, because the
      number is too far off or the image too old: a recording is played again, the clock was
      set back, or the message before them was damaged. Of the two only the second is taken.

    Args:
        name: resolved name of the topic.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._newest: int | None = None
        self._newest_stamp = 0
        self._candidate: int | None = None
        self._span = 0
        self._seen: deque[int] = deque(maxlen=MAX_LATE)

    def note(self, sequence: int, stamp: int) -> Arrival:
        """Take note of a message that has come.

        Args:
            sequence: its number, 0 to 2**32 - 1.
            stamp: its image's stamp in nanoseconds; equal ones tell nothing.
        """
        if self._newest is None:
            return self._begin(sequence, stamp, Order.FIRST)
        ahead = _difference(sequence, self._newest)
        newer = stamp - self._newest_stamp
        if 0 < ahead <= MAX_GAP + 1:
            self._span = min(self._span + ahead, MAX_LATE)
            self._take(sequence, stamp)
            return Arrival(Order.NEXT, ahead - 1)
        late = _may_be_late(ahead, newer)
        follows = self._candidate == sequence and not late
        if newer > 0 or follows:
            self._begin(sequence, stamp, Order.RESTARTED)
            return Arrival(Order.RESTARTED, dropped=int(follows))
        # What may be late begins no new count: its repeated successor would seem to go on with it.
        self._candidate = None if late else (sequence + 1) % NUMBERS
        if sequence in self._seen or not late:
            return Arrival(Order.REPEATED)
        self._seen.append(sequence)
        # Before the first one nothing was missed.
        return Arrival(Order.LATE, -1 if -ahead <= self._span else 0)

    def _begin(self, sequence: int, stamp: int, order: Order) -> Arrival:
        self._seen.clear()
        self._span = 0
        self._take(sequence, stamp)
        return Arrival(order)

    def _take(self, sequence: int, stamp: int) -> None:
        self._newest, self._newest_stamp, self._candidate = sequence, stamp, None
        self._seen.append(sequence)


def _difference(number: int, other: int) -> int:
    """Return how far a number is ahead of another, -2**31 to 2**31 - 1."""
    return (number - other + NUMBERS // 2) % NUMBERS - NUMBERS // 2


def _may_be_late(ahead: int, newer: int) -> bool:
    """Return whether a message can be one that others have overtaken.

    Args:
        ahead: its number relative to the newest.
        newer: its stamp relative to the newest's, in nanoseconds.
    """
    return -MAX_LATE < ahead < 0 and -MAX_LATE_SECONDS * 1e9 < newer < 0

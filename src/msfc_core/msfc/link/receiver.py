"""The receiver's side: what has arrived, how fast, and how its delay changes.

The clocks of sender and receiver need not agree: of the one-way delay, receive time less sender's
stamp, only changes are used. They may also run at speeds that differ as those of computers do,
since nothing is compared over more than :data:`MEMORY` seconds.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from msfc.link.report import NUMBERS, LinkReport

MEMORY = 60.0
"""Seconds of which the smallest delay is the one that the others are compared with: so many that a
queue which grows slowly does not become the measure itself."""

WINDOW = 1.0
"""Seconds whose messages give the trend and the bitrate."""

FEWEST, SLOWEST = 6, 3.0
"""Messages that it takes at least, and how many seconds back it looks for them."""

MOST = 60
"""Messages that the trend is taken of at most; the work grows with their square."""

LATEST = 3
"""Messages whose smallest delay is that of now, so that a single late one tells nothing."""

CLOCK_TOLERANCE = 0.05
"""Seconds by which a stamp may be older than one before it."""


@dataclass(frozen=True)
class _Arrival:
    sent: float
    received: float
    size: int

    @property
    def delay(self) -> float:
        return self.received - self.sent


class LinkReceiver:
    """Makes reports of what arrives from one sender.

    Args:
        period: seconds between two reports.
    """

    def __init__(self, period: float) -> None:
        self.period = period
        self._number = 0
        self._received = 0
        self._lost = 0
        self._newest = 0
        self._arrivals: deque[_Arrival] = deque()
        self._smallest = Smallest()

    def note(
        self, sequence: int, sent: float | None, received: float, size: int, lost: int = 0
    ) -> None:
        """Take note of a message that has arrived and that is newer than all before it.

        Args:
            sequence: its number.
            sent: the sender's stamp in seconds, of when it was handed to the network; None if
                there is none, and then nothing is said about delays.
            received: when it came, by this host's steady clock in seconds.
            size: bytes of the whole message.
            lost: messages missing between it and the one before.
        """
        self._count(lost)
        self._newest = sequence % NUMBERS
        stamp = float('nan') if sent is None else sent
        if self._arrivals and self._arrivals[-1].sent - stamp > CLOCK_TOLERANCE:
            self.forget()  # the sender's clock was set back, or it is another sender
        arrival = _Arrival(stamp, received, size)
        self._arrivals.append(arrival)
        self._smallest.note(arrival.delay, received)
        while self._arrivals[0].received < received - SLOWEST:
            self._arrivals.popleft()

    def note_late(self, lost: int = 0) -> None:
        """Take note of a message that others have overtaken.

        Args:
            lost: -1 if it was counted as lost.
        """
        self._count(lost)

    def forget(self) -> None:
        """Compare with nothing before, as the sender counts anew."""
        self._arrivals.clear()
        self._smallest = Smallest()

    def _count(self, lost: int) -> None:
        self._received = (self._received + 1) % NUMBERS
        self._lost = (self._lost + lost) % NUMBERS

    def report(
        self,
        now: float,
        decode_rate: float = 0.0,
        share: float = 0.0,
        weight: float = 1.0,
        acknowledged_key: int = 0,
        keyframe_wanted: bool = False,
    ) -> LinkReport:
        """Return a report of what has arrived until now.

        Args:
            now: the time by this host's steady clock, in seconds.
            decode_rate: frames per second that can be decoded; 0 if that is not known.
            share: of the budget for all senders, in bit/s; 0 if there is none.
            weight: of the sender among them.
            acknowledged_key: number of the key frame that came last; 0 if there is none.
            keyframe_wanted: whether one is missing.
        """
        number, self._number = self._number, (self._number + 1) % NUMBERS
        recent = self._recent(now)
        trend, samples = delay_trend(recent)
        return LinkReport(
            number=number,
            period=self.period,
            received=self._received,
            received_up_to=self._newest,
            lost=self._lost,
            bitrate=arrival_bitrate(recent, now),
            delay=self._delay(now),
            delay_trend=trend,
            delay_samples=samples,
            decode_rate=decode_rate,
            share=share,
            weight=weight,
            acknowledged_key=acknowledged_key,
            keyframe_wanted=keyframe_wanted,
        )

    def bitrate(self, now: float) -> float:
        """Return what has arrived lately, in bit/s."""
        return arrival_bitrate(self._recent(now), now)

    def mean_size(self) -> float:
        """Return the mean bytes of the latest messages; 0 if there were none."""
        return sum(a.size for a in self._arrivals) / max(len(self._arrivals), 1)

    def _recent(self, now: float) -> list[_Arrival]:
        """Return the latest arrivals: those of the window, or a few if these are seldom."""
        recent: list[_Arrival] = []
        for arrival in reversed(self._arrivals):
            age = now - arrival.received
            if age > SLOWEST or (age > WINDOW and len(recent) >= FEWEST) or len(recent) >= MOST:
                break
            recent.append(arrival)
        return recent[::-1]

    def _delay(self, now: float) -> float:
        """Return the smallest delay of the latest messages above the smallest that is known."""
        delays = [a.delay for a in self._arrivals]
        latest = [a.delay for a in self._arrivals if a.received >= now - self.period]
        if len(latest) < LATEST:
            latest = delays[-LATEST:]
        smallest = self._smallest.value(now)
        # Without stamps delays are no numbers.
        if not latest or math.isinf(smallest) or math.isnan(latest[-1]):
            return 0.0
        return max(0.0, min(latest) - smallest)


class Smallest:
    """The smallest delay of the last :data:`MEMORY` seconds, kept by the second."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, float]] = deque()

    def note(self, delay: float, at: float) -> None:
        """Take note of a delay at a time, both in seconds."""
        second = int(at)
        if self._seconds and self._seconds[-1][0] == second:
            # In this order a delay that is no number is left out.
            self._seconds[-1] = second, min(self._seconds[-1][1], delay)
        else:
            self._seconds.append((second, min(math.inf, delay)))

    def value(self, now: float) -> float:
        """Return it; infinite if there were no delays."""
        while self._seconds and self._seconds[0][0] < now - MEMORY - 1.0:
            self._seconds.popleft()
        return min((delay for _, delay in self._seconds), default=math.inf)


def arrival_bitrate(arrivals: list[_Arrival], now: float) -> float:
    """Return what arrives in bit/s.

    Of n messages, n - 1 have come in the time from the first to the last; so a link that is full
    is measured exactly, whatever the size of the messages. Silence counts as soon as it is longer
    than the pauses before it.

    Args:
        arrivals: the latest ones, oldest first.
        now: the time.
    """
    if len(arrivals) < 2:
        return 0.0
    first, last = arrivals[0].received, arrivals[-1].received
    pause = max(b.received - a.received for a, b in pairwise(arrivals))
    span = max(last, now - pause) - first
    return 8.0 * sum(a.size for a in arrivals[1:]) / span if span > 0.0 else 0.0


def delay_trend(arrivals: list[_Arrival]) -> tuple[float, int]:
    """Return by how much the delay grows per second of sending, and of how many messages.

    The median of the slopes between all pairs (Theil, 1950; Sen, 1968), where WebRTC's trendline
    filter takes the least squares: what comes late since it was repeated does not move it as long
    as it is less than three in ten.

    Args:
        arrivals: the latest ones, oldest first.
    """
    if len(arrivals) < 3:
        return 0.0, 0
    sent = np.array([a.sent for a in arrivals])
    delays = np.array([a.delay for a in arrivals])
    first, second = np.triu_indices(len(arrivals), 1)
    spans: NDArray[np.float64] = sent[second] - sent[first]
    apart = spans > 1e-3
    if not np.isfinite(sent).all() or not apart.any():
        return 0.0, 0
    slopes = (delays[second] - delays[first])[apart] / spans[apart]
    return float(np.median(slopes)), len(arrivals)

"""The sender's side: how much it may send, by what the receiver reports.

:mod:`msfc.link.control` follows the link; here is what only the sender knows: what is on its way,
and that reports have ceased.

* No message goes out while one is overdue (:meth:`LinkEstimator.admits`). That bounds what is on
  its way, as SCReAM's congestion window does (RFC 8298, section 4.1.2): a link that stalls, or
  has suddenly a hundredth of its rate, gets no more to queue up.
* When reports cease, the target is halved every second, down to the least, as nobody knows what
  becomes of what is sent. It is up again as soon as they come back.
* Where packets get lost on the radio, messages should be smaller, so that most arrive
  (:meth:`LinkEstimator.message_bytes`); GCC has nothing of the kind, as it sends packets.
* With a *share* of a budget, in the report, no more than that is sent. The receiver judges what
  all senders of the budget have in common (:mod:`msfc.link.shares`), losses too.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from msfc.link.control import CongestionControl, LinkLimits, Observation
from msfc.link.loss import MessageSize
from msfc.link.overuse import Usage
from msfc.link.receiver import LATEST, Smallest
from msfc.link.report import LinkReport, ahead
from msfc.wire.message_size import PACKET_BYTES

SMOOTHING = 0.125
"""Weight of a new value in the time until messages are reported (RFC 6298)."""

RESPONSE = 0.1
"""Seconds that are added to it for how long the link takes to respond, as in GCC's draft."""

OVERDUE = 0.4
"""Seconds, beside the time between two reports, after which a message is overdue at least; else
twice as long as messages usually take until they are reported."""

SILENCE = 1.0
"""Seconds without a report, and at least three of its periods, after which the target is halved;
and after each that follows."""

FIRST_SILENCE = 3.0
"""The same before the first report: the receiver may have to be found yet."""

IMPRECISION = 0.05
"""Seconds of delay that say nothing where the delay common to all senders was taken out."""

REORDERED = 100
"""Reports that an old one may be behind the newest; beyond it the receiver was restarted."""

FLYING = 10_000
"""Messages that are remembered at most."""

FURTHER_PACKET = 1480
"""Bytes of a message in each packet but the first at an MTU of 1,500."""


@dataclass(frozen=True)
class _Sent:
    sequence: int
    at: float
    size: int


class LinkEstimator:
    """Says how much to send to a receiver that reports.

    Args:
        limits: where it starts and what it stays within.

    Attributes:
        report: the last report; None before the first.
    """

    def __init__(self, limits: LinkLimits | None = None) -> None:
        self._limits = limits or LinkLimits()
        self._control = CongestionControl(self._limits)
        self._size = MessageSize()
        self.report: LinkReport | None = None
        self._reported = 0.0
        self._begin: float | None = None
        self._flying: deque[_Sent] = deque(maxlen=FLYING)
        self._latest: deque[int] = deque(maxlen=LATEST)
        self._shortest = Smallest()
        self._usual = 0.0
        self._cut_after: int | None = None
        self._cut_at = float('-inf')

    # -- what happens --

    def sent(self, sequence: int, size: int, now: float) -> None:
        """Take note of a message that is sent.

        Args:
            sequence: its number.
            size: its bytes.
            now: the time by a steady clock, in seconds.
        """
        if self._begin is None:
            self._begin = now
        self._flying.append(_Sent(sequence, now, size))

    def note(self, report: LinkReport, now: float) -> None:
        """Take note of a report that has come; one that others have overtaken is left out.

        Args:
            report: the report.
            now: the time by a steady clock, in seconds.
        """
        before = self.report
        newer = 1 if before is None else ahead(report.number, before.number)
        if -REORDERED < newer <= 0 and report.number:
            return
        self.report, self._reported = report, now
        landed = self._land(report, now)
        # None that is lost is counted in the first report, which may be on senders before.
        lost = ahead(report.lost, before.lost) if before is not None and newer > 0 else None
        if lost is not None and landed:
            self._size.note(len(landed), lost, sum(packets(one.size) for one in landed))
        if landed and self._cut_after is not None:
            if ahead(landed[0].sequence, self._cut_after) <= 0:
                landed = []  # sent before the cut, so that nothing of it is to be learnt
            else:
                self._cut_after = None
        if lost is not None and landed and not report.share:
            whole = sum(packets(one.size) for one in landed)
            self._control.note_fates(len(landed), lost, whole, now)
        seen = Observation(
            bitrate=report.bitrate,
            trend=report.delay_trend,
            samples=report.delay_samples,
            delay=report.delay,
            own=self._own_delay(now) + (IMPRECISION if report.share else 0.0),
            response=max(self._usual, report.period) + RESPONSE,
            stalled=self._stalls(now),
        )
        if self._control.step(seen, now, may_cut=self._cut_after is None) and self._flying:
            self._cut_after, self._cut_at = self._flying[-1].sequence, now

    # -- what it comes to --

    def bitrate(self, now: float) -> float:
        """Return what to send at a time, in bit/s."""
        target = self._control.target
        if self.report is not None and self.report.share > 0.0:
            target = min(target, self.report.share)
        silence = self.silence(now) - self._patience()
        if silence > 0.0:
            target *= 0.5 ** (1 + int(min(silence / SILENCE, 100.0)))
        return min(max(target, self._limits.least), self._limits.most)

    def message_bytes(self) -> float:
        """Return how large a message should be at most, so that it arrives; may be infinite.

        With a share it is: a sender of more weight could not use its own otherwise.
        """
        if self.report is not None and self.report.share > 0.0:
            return math.inf
        return PACKET_BYTES + FURTHER_PACKET * (self._size.most_packets() - 1.0)

    def admits(self, now: float) -> bool:
        """Return whether a message may be sent at a time: not while others are overdue.

        One that is sent nevertheless each time that the latest is overdue as well tells whether
        the link is back.
        """
        if self.report is None or not self._flying:
            return True
        overdue = self._overdue(self.report)
        return now - self._flying[0].at < overdue or now - self._flying[-1].at >= overdue

    def silence(self, now: float) -> float:
        """Return the seconds since the last report, or else since the first message."""
        if self.report is not None:
            return now - self._reported
        return now - self._begin if self._begin is not None else 0.0

    def hears_nothing(self, now: float) -> bool:
        """Return whether reports have ceased, so that less is sent."""
        return self.silence(now) > self._patience()

    @property
    def estimate(self) -> float:
        """What the link takes, in bit/s."""
        return self._control.estimate

    @property
    def usage(self) -> Usage:
        """How the link is used, by the last report."""
        return self._control.usage

    @property
    def loss(self) -> float:
        """Share of packets that were lost lately, 0 to 1."""
        return self._size.loss

    # -- steps --

    def _patience(self) -> float:
        if self.report is None:
            return FIRST_SILENCE
        return max(SILENCE, 3.0 * self.report.period)

    def _overdue(self, report: LinkReport) -> float:
        return max(OVERDUE, 2.0 * self._usual) + report.period

    def _stalls(self, now: float) -> bool:
        """Return whether a message is overdue that was sent since the last cut, or long ago."""
        if not self._flying or self.report is None:
            return False
        overdue = self._overdue(self.report)
        return now - max(self._flying[0].at, self._cut_at) >= overdue

    def _land(self, report: LinkReport, now: float) -> list[_Sent]:
        """Take out the messages whose fate a report tells, and return them."""
        landed: list[_Sent] = []
        known = any(one.sequence == report.received_up_to for one in self._flying)
        if not report.received or not known:
            return landed  # nothing new, or nothing of what was sent since a restart
        while self._flying and ahead(self._flying[0].sequence, report.received_up_to) <= 0:
            landed.append(self._flying.popleft())
        taken = now - landed[-1].at
        self._usual += (SMOOTHING if self._usual else 1.0) * (taken - self._usual)
        self._latest.extend(one.size for one in landed)
        self._shortest.note(min(8.0 * one.size for one in landed) / self._control.estimate, now)
        return landed

    def _own_delay(self, now: float) -> float:
        """Return how much longer the latest messages take by themselves than others have lately.

        On a link of the estimated rate, that of now and that of then. As of their delays, the
        smallest of the latest counts.
        """
        if not self._latest:
            return 0.0
        return 8.0 * min(self._latest) / self._control.estimate - self._shortest.value(now)


def packets(size: int) -> int:
    """Return how many packets a message of some bytes goes in."""
    return 1 + max(0, -(-(size - PACKET_BYTES) // FURTHER_PACKET))

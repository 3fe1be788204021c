"""Is what gets lost lost because too much is sent? And if not, how large may a message be?

The loss-based controller of draft-ietf-rmcat-gcc-02, section 6: below 2 % lost the rate may rise,
up to 10 % it stays, beyond that it falls by half of what is lost. It differs in three points, as
the messages here are few and large, and radios lose some whatever the rate:

* What is judged is the loss of *packets*. A message is lost with any of its packets, so large ones
  more often; where one in k comes through, (1 - p)^k does.
* It is judged over a block of messages, so many that a single one does not decide.
* Loss that stays when the rate has been cut is none that cutting helps against: it becomes the
  *floor* above which loss counts. (WebRTC's later ``LossBasedBweV2`` has such an inherent loss
  too, found by maximum likelihood.) To find out, a rate that is held for two blocks is cut once.

Against loss that has nothing to do with the rate smaller messages help: a message is lost with any
of its packets (:class:`MessageSize`).
"""

from __future__ import annotations

import math
from enum import Enum

LITTLE, MUCH = 0.02, 0.10
"""Shares of packets lost, above the floor: below the first the rate may rise, above the second it
falls."""

PACKETS = 60
"""Packets of a block."""

SURE, EARLY = 6, 20
"""Messages lost and packets sent with which a block ends before."""

CHANCE = 1.0
"""Messages lost in a block that say nothing, beside those that the floor explains and the standard
deviation of these."""

TRIAL = 0.85
"""What the rate is multiplied by to see whether less gets lost; cuts are not smaller."""

HIGHEST_FLOOR = 0.25
"""Loss beyond it is never taken for one that has nothing to do with the rate."""

FORGETTING = 0.3
"""Part of the way that the floor moves to the loss of a block without too much of it."""

MISSED = 0.15
"""Part of the messages that may get lost; those of one packet may lose more."""

SMOOTHING = 0.2
"""Weight of a new block in the loss of packets by which the size of messages goes."""


class Verdict(Enum):
    """What loss allows: the rate may rise, has to stay, or was cut."""

    RISE = 'rise'
    STAY = 'stay'
    CUT = 'cut'


class LossController:
    """Judges losses block by block.

    Attributes:
        verdict: what the last block said.
        loss: share of packets lost in it, 0 to 1.
        floor: share that gets lost whatever the rate.
        blocks: verdicts so far.
    """

    def __init__(self) -> None:
        self.verdict = Verdict.RISE
        self.loss = 0.0
        self.floor = 0.0
        self.blocks = 0
        self._held = 0
        self._trial: tuple[float, float] | None = None
        self._clear()

    def _clear(self) -> None:
        self._sent = self._lost = self._packets = 0

    def note(self, messages: int, lost: int, packets: int) -> float:
        """Take note of messages whose fate is known.

        Args:
            messages: how many were sent.
            lost: how many of them were lost; below 0 if some came that were taken for lost.
            packets: what they were sent in.

        Returns:
            What to multiply the rate by. After less than 1 the messages that were sent before the
            cut should not be noted.
        """
        self._sent += messages
        self._lost += lost
        self._packets += packets
        early = self._lost >= SURE and self._packets >= EARLY
        if not self._sent or (self._packets < PACKETS and not early):
            return 1.0
        self.loss = packet_loss(self._sent, self._lost, self._packets)
        sent, lost, each = self._sent, self._lost, self._packets / self._sent
        self._clear()
        self.blocks += 1
        self._conclude_trial()
        explained = sent * (1.0 - (1.0 - self.floor) ** each)
        return self._judge(by_chance=lost <= CHANCE + explained + explained**0.5)

    def _judge(self, by_chance: bool) -> float:
        excess = max(0.0, self.loss - self.floor) / (1.0 - self.floor)
        if excess < LITTLE or by_chance:
            self.verdict, self._held = Verdict.RISE, 0
            if self.floor:
                moved = self.floor + FORGETTING * (self.loss - self.floor)
                self.floor = min(moved, HIGHEST_FLOOR)
            return 1.0
        if excess <= MUCH and not self._held:
            self.verdict, self._held = Verdict.STAY, 1
            return 1.0
        self.verdict, self._held = Verdict.CUT, 0
        factor = min(TRIAL, 1.0 - 0.5 * excess)
        self._trial = self.loss, factor
        return factor

    def _conclude_trial(self) -> None:
        """Raise the floor if a cut has not helped as it would have if the link were full."""
        if self._trial is None:
            return
        (before, factor), self._trial = self._trial, None
        full = max(self.floor, 1.0 - (1.0 - before) / factor)
        if self.loss > (before + full) / 2:
            self.floor = min((before + self.loss) / 2, HIGHEST_FLOOR)


class MessageSize:
    """Says in how many packets a message should go, so that few messages get lost.

    Attributes:
        loss: share of packets lost lately, 0 to 1.
    """

    def __init__(self) -> None:
        self.loss = 0.0
        self._blocks = 0
        self._sent = self._lost = self._packets = 0

    def note(self, messages: int, lost: int, packets: int) -> None:
        """Take note of messages whose fate is known, see :meth:`LossController.note`."""
        self._sent += messages
        self._lost += lost
        self._packets += packets
        if not self._sent or self._packets < PACKETS:
            return
        self._blocks += 1
        new = packet_loss(self._sent, self._lost, self._packets)
        self.loss += max(SMOOTHING, 1.0 / self._blocks) * (new - self.loss)
        self._sent = self._lost = self._packets = 0

    def most_packets(self) -> float:
        """Return in how many, at least 1; infinite while next to nothing is lost."""
        if self.loss >= 1.0:
            return 1.0
        each = -math.log1p(-self.loss)
        most = -math.log1p(-MISSED) / each if each > 0.0 else math.inf
        return max(1.0, float(math.floor(most))) if most < PACKETS else math.inf


def packet_loss(messages: int, lost: int, packets: int) -> float:
    """Return the share of packets that was lost, if each was for itself.

    Args:
        messages: how many were sent, at least 1.
        lost: how many of them were lost.
        packets: what they were sent in, as many each.
    """
    gone = min(max(lost / messages, 0.0), 1.0)
    return 1.0 - (1.0 - gone) ** (messages / packets)

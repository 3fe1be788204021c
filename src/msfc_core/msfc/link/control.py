"""Congestion control: how much a link takes, by delay and loss.

After draft-ietf-rmcat-gcc-02 (Google's congestion control, as in WebRTC): the trend of the one-way
delay says whether too much is sent (:mod:`msfc.link.overuse`), an AIMD controller follows (section
5.5), losses have a say (:mod:`msfc.link.loss`). Where it differs:

* A camera sends ten messages a second, not hundreds of packets. The trend is that of the last
  second, found by the receiver, and the controller acts once a report.
* Messages differ in size, and larger ones take longer. So a trend counts only once the delay is
  longer than that explains.
* A cut to 0.85 of what arrives takes seconds to empty a queue. So beside the estimate there is the
  *target*, which is lower as long as a queue stands (:data:`DRAIN`), as SCReAM scales by the delay
  of the queue (RFC 8298, section 4.1.2): the queue is gone after about a second. A queue
  that stays all the same is that of others (:data:`OTHERS`).
* There is no padding to probe with. In its place the estimate rises faster the longer nothing has
  been wrong (:data:`FAST`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from msfc.link.loss import LossController, Verdict
from msfc.link.overuse import OveruseDetector, Usage

BETA = 0.85
"""What of the bitrate that arrives is taken for the estimate when the link is overused."""

SLOW, FAST = 1.08, 1.5
"""How much the estimate may rise per second: right after a cut, as in the draft, and once nothing
has been wrong for :data:`CALM` seconds."""

CALM = 5.0

LEAST_RISE = 4_000.0
"""Bit/s by which the estimate rises per second at least."""

HEADROOM, MARGIN = 3.0, 10_000.0
"""The estimate does not rise above so many times what arrives, and so many bit/s more. The draft
has 1.5; but packed symbols come in rates each of which doubles the bytes of the one below it, a
slow camera leaves part of what it may send unused, and the next rate has to come within reach."""

NEAR = 3.0
"""Standard deviations of the rates at which the link was overused within which one is near them;
there the estimate rises by half a packet per :data:`RESPONSE`, beyond them they are forgotten."""

SMOOTHING = 0.05
"""Weight of a new one in their mean and variance, as in the draft."""

DEVIATIONS = 0.05, 0.2
"""Least and most standard deviation of those rates, as a part of their mean."""

FRAMES, LARGEST_PACKET = 30.0, 9_600.0
"""Frames per second and bits of a packet by which the draft reckons that packet."""

STANDING = 0.025
"""Seconds of delay, beside what the size of the messages explains, that are no standing queue."""

DRAIN = 1.0
"""Seconds in which a queue is to be emptied."""

LEAST_PART = 0.1
"""Part of the estimate that is sent even so."""

STAY = 5.0
"""Seconds for which loss holds the estimate; where little is sent the next verdict takes long."""

PRESSURE = 0.1
"""Part of the estimate by which less is sent for every second that a queue goes on standing."""

SERIOUS = 0.5
"""Part of the estimate below which a queue of this sender's would have to shrink."""

OTHERS = 3.0
"""Seconds of that, and twice the delay, after which a queue that has not shrunk by half is
taken for that of others. The same holds when cuts in as many seconds as :data:`FORGETTING` have
halved the estimate, and the delay at the last is more than half of that at the first."""

FORGETTING = 30.0

LEAVING, DOUBTING = 5.0, 90.0
"""Time constants with which the queue of others is forgotten, in seconds: when it has become
shorter, and in any case, as it may have become this sender's."""

SWING = 1.25
"""How much longer the queue of others may get by itself."""

LONGEST = 1.0
"""Seconds between two steps that count at most."""


@dataclass(frozen=True)
class LinkLimits:
    """Where an estimate starts, and what it stays within, in bit/s.

    Raises:
        ValueError: if these are not in order.
    """

    start: float = 200_000.0
    least: float = 10_000.0
    most: float = 20_000_000.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.most) and 0.0 < self.least <= self.start <= self.most):
            raise ValueError(
                f'a start of {self.start:g} bit/s has to be within the least, {self.least:g}, and '
                f'the most, {self.most:g}, and all of them above 0'
            )


@dataclass(frozen=True)
class Observation:
    """What is seen of a link at a time.

    Attributes:
        bitrate: what arrives, in bit/s; 0 if that is not known.
        trend: of the one-way delay, in seconds per second.
        samples: messages that it is taken of.
        delay: above the smallest lately, in seconds.
        own: part of the delay that is due to the size of the messages.
        response: seconds that the link takes to answer to another rate.
        stalled: whether messages are overdue.
    """

    bitrate: float
    trend: float
    samples: int
    delay: float
    own: float = 0.0
    response: float = 0.3
    stalled: bool = False

    @property
    def excess(self) -> float:
        """Delay of a standing queue, in seconds; below 0 for none."""
        return self.delay - self.own - STANDING


class CongestionControl:
    """Follows what a link takes.

    Args:
        limits: where it starts and what it stays within.

    Attributes:
        estimate: what the link takes, in bit/s.
        target: what to send, in bit/s: less than that while a queue is emptied.
        usage: how the link is used, by the last observation.
        loss: judges losses.
    """

    def __init__(self, limits: LinkLimits | None = None) -> None:
        self._limits = limits or LinkLimits()
        self.estimate = self.target = self._limits.start
        self.usage = Usage.NORMAL
        self.loss = LossController()
        self._detector = OveruseDetector()
        self._peaks = _Peaks()
        self._at: float | None = None
        self._wrong = float('-inf')
        self._loss_factor = 1.0
        self._stay_until = float('-inf')
        self._others = _Others()
        self._draining: _Draining | None = None

    def note_fates(self, messages: int, lost: int, packets: int, now: float) -> None:
        """Take note of messages of which it is known whether they have arrived.

        Args:
            messages: how many.
            lost: how many of them have not; below 0 if some have that were taken for lost.
            packets: what they were sent in.
            now: the time in seconds.
        """
        blocks = self.loss.blocks
        self._loss_factor = self.loss.note(messages, lost, packets)
        if self.loss.blocks > blocks:
            stays = self.loss.verdict is Verdict.STAY
            self._stay_until = now + STAY if stays else float('-inf')

    def step(self, seen: Observation, now: float, may_cut: bool = True) -> bool:
        """Go on to the next estimate.

        Args:
            seen: of the link.
            now: the time in seconds.
            may_cut: whether what is seen tells of the time since the last cut.

        Returns:
            Whether the estimate was cut.
        """
        seconds = 0.0 if self._at is None else min(max(now - self._at, 0.0), LONGEST)
        self._at = now
        self.usage = self._detector.judge(seen.trend, seen.samples, now)
        loss_factor, self._loss_factor = self._loss_factor, 1.0
        before = self.estimate
        # A trend alone may be that of larger messages.
        self._others.note(seen.delay, seconds)
        over = self.usage is Usage.OVER and self._queue(seen) > 0.0 and may_cut
        if over or seen.stalled:
            self._peaks.note(seen.bitrate)
            self._others.note_cut(before, seen.excess, now)
            self._cut(min(BETA * (seen.bitrate or before), before), now)
        elif loss_factor < 1.0:
            self._cut(before * loss_factor, now)
        elif self._may_rise(seen, now):
            self._rise(seen, seconds, now)
        cut = self._wrong == now
        part = self._drain(seen, now)
        self.target = max(self.estimate * part, self._limits.least)
        return cut

    def _cut(self, estimate: float, now: float) -> None:
        self.estimate = max(estimate, self._limits.least)
        self._wrong = now

    def _may_rise(self, seen: Observation, now: float) -> bool:
        return (
            self.usage is Usage.NORMAL
            and now >= self._stay_until
            and seen.bitrate > 0.0
            and self._queue(seen) <= 0.0
        )

    def _rise(self, seen: Observation, seconds: float, now: float) -> None:
        if self._peaks.near(seen.bitrate):
            packet = min(self.estimate / FRAMES, LARGEST_PACKET)
            risen = self.estimate + 0.5 * packet * seconds / seen.response
        else:
            if self._peaks.below(seen.bitrate):
                self._peaks = _Peaks()
            calm = min(max(now - self._wrong, 0.0) / CALM, 1.0)
            risen = self.estimate * (SLOW + calm * (FAST - SLOW)) ** seconds
        risen = max(risen, self.estimate + LEAST_RISE * seconds)
        highest = max(HEADROOM * seen.bitrate + MARGIN, self.estimate)
        self.estimate = min(risen, highest, self._limits.most)

    def _queue(self, seen: Observation) -> float:
        """Return the delay of a queue that is this sender's, in seconds; below 0 for none."""
        return seen.excess - SWING * self._others.delay

    def _drain(self, seen: Observation, now: float) -> float:
        """Return what part of the estimate to send, so that no queue of this sender's stands.

        The longer it stands, the less, until it is gone or has proved to be that of others.
        """
        if self._queue(seen) <= 0.0:
            self._draining = None
            return 1.0
        if self._draining is None or seen.excess < 0.5 * self._draining.excess:
            self._draining = _Draining(seen.excess, now)
        draining = self._draining
        # What was sent before goes on to arrive for as long as the queue is.
        draining.excess = max(draining.excess, seen.excess)
        part = 1.0 - self._queue(seen) / DRAIN - PRESSURE * (now - draining.since)
        if part <= SERIOUS and draining.serious_since is None:
            draining.serious_since = now
        if draining.serious_since is not None:
            proof = max(OTHERS, 2.0 * draining.excess)
            if now - draining.serious_since > proof:
                self._others.found(seen.excess)
                self._draining = None
                return 1.0
        return max(part, LEAST_PART)


class _Others:
    """The delay of a queue that stands whatever this sender does.

    As with loss: what stays when much less is sent has other reasons, and who goes on giving way
    to a flow that fills every queue starves.
    """

    def __init__(self) -> None:
        self.delay = 0.0
        self._peak = 0.0
        self._cut: tuple[float, float, float] | None = None

    def note(self, delay: float, seconds: float) -> None:
        """Take note of a delay some seconds after the one before; forget who has left."""
        self._peak = max(delay, self._peak * math.exp(-seconds / LEAVING))
        kept = self.delay * math.exp(-seconds / DOUBTING)
        self.delay = min(kept, max(self._peak - STANDING, 0.0))

    def note_cut(self, bitrate: float, excess: float, now: float) -> None:
        """Take note of a cut: after several the queue should be another one."""
        if self._cut is not None:
            first, before, at = self._cut
            if now - at <= FORGETTING and excess >= 0.5 * before:
                before = max(before, excess)
                if bitrate > SERIOUS * first or now - at <= max(OTHERS, 2.0 * before):
                    self._cut = first, before, at
                    return
                self.found(excess)
        self._cut = bitrate, excess, now

    def found(self, delay: float) -> None:
        """Take a delay for that of others, and what it was lately: a TCP flow halves its queue."""
        self.delay = max(self.delay, delay, self._peak - STANDING)


@dataclass
class _Draining:
    """A queue that is being emptied: how long it was at most, since when, when in earnest."""

    excess: float
    since: float
    serious_since: float | None = None


class _Peaks:
    """The bitrates at which the link was overused: mean and deviation of their logarithms.

    The draft's are those of the bitrates, the variance normalised by the mean.
    """

    def __init__(self) -> None:
        self._mean: float | None = None
        self._variance = 0.0

    def note(self, bitrate: float) -> None:
        if bitrate <= 0.0:
            return
        distance = self._distance(bitrate)
        if self._mean is None or abs(distance) > NEAR:
            self._mean, self._variance = math.log(bitrate), 0.01
            return
        difference = math.log(bitrate) - self._mean
        self._mean += SMOOTHING * difference
        self._variance += SMOOTHING * (difference**2 - self._variance)

    def near(self, bitrate: float) -> bool:
        """Return whether a bitrate is near those at which the link was overused."""
        return self._mean is not None and abs(self._distance(bitrate)) <= NEAR

    def below(self, bitrate: float) -> bool:
        """Return whether all of those are below a bitrate."""
        return self._mean is not None and self._distance(bitrate) > NEAR

    def _distance(self, bitrate: float) -> float:
        """Return how far above their mean a bitrate is, in standard deviations."""
        if self._mean is None:
            return 0.0
        least, most = DEVIATIONS
        return (math.log(bitrate) - self._mean) / min(max(self._variance**0.5, least), most)

"""How many bytes a message may have, and the best rate that keeps to it.

Two budgets, both kept exactly: ``max_message_bytes`` for each message, and a bitrate, by a token
bucket. Bytes are those of the whole serialised message; what DDS, UDP and IP put around it comes
on top. Importing this module imports neither torch nor ROS.

For each frame::

    choice = controller.choose(frame, rates, frame_id)
    if choice.rate is not None:
        packet = frame.packet(choice.rate, sequence)
        ...                                     # publish it
        controller.spend(choice.message_bytes)

At any time, from any thread, :attr:`RateController.budget`, :attr:`RateController.link_bitrate`,
:attr:`RateController.link_message_bytes` and :attr:`RateController.share` may be set.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from msfc.wire.message_size import PACKET_BYTES, compressed_feature_bytes

AUTOMATIC = -1
"""The ``max_message_bytes`` that stands for one packet, where that is possible."""

LEAST_BYTES = compressed_feature_bytes(1, '')
"""No message is smaller: one with a byte of payload and no name of the camera's frame."""

BURST_SECONDS = 0.25
"""What a burst is by default, in seconds of the bitrate."""

GUESSES = 2
"""Rates that are tried for their expected bytes before those that halve what is left."""


@dataclass(frozen=True)
class Budget:
    """What may be sent.

    Attributes:
        max_message_bytes: no message is larger. 0 is no limit. -1 is :data:`AUTOMATIC`: one packet
            at an MTU of 1,500 (:data:`~msfc.wire.message_size.PACKET_BYTES`) where a rate is
            chosen from several, lengths depend on what is seen, and the cheapest rate can be
            expected to fit; else no limit. It never stops what is as large as always.
        target_bitrate: bits of messages per second, over any second but for the burst; 0 is none.
        burst: bytes that may go at once after a pause, so no message is larger. In any second at
            most ``target_bitrate / 8 + burst`` bytes are sent. 0 takes a quarter of a second's
            bytes, but at least one packet, and one message at the cheapest rate.

    Raises:
        ValueError: if a value is none of these, or leaves no room for any message.
    """

    max_message_bytes: int = AUTOMATIC
    target_bitrate: float = 0.0
    burst: int = 0

    def __post_init__(self) -> None:
        if self.max_message_bytes < AUTOMATIC:
            raise ValueError(
                f'max_message_bytes is {self.max_message_bytes}, but has to be a number of '
                'bytes, 0 for no limit, or -1 for one packet'
            )
        for name in ('max_message_bytes', 'burst'):
            if 0 < getattr(self, name) < LEAST_BYTES:
                raise ValueError(
                    f'{name} is {getattr(self, name)}, but the smallest message has '
                    f'{LEAST_BYTES} bytes'
                )
        if not (math.isfinite(self.target_bitrate) and self.target_bitrate >= 0):
            raise ValueError(
                f'target_bitrate is {self.target_bitrate}, but has to be a number of bits per '
                'second, or 0 for none'
            )
        if self.burst < 0:
            raise ValueError(f'burst is {self.burst}, but has to be a number of bytes, or 0')


class SkipReason(str, Enum):
    """Why a frame is not sent, in one word; what diagnostics count by."""

    MESSAGE_LIMIT = 'message_limit'
    BURST = 'burst'
    BITRATE = 'bitrate'

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Choice:
    """What becomes of a frame.

    Attributes:
        rate: the rate to send it at; None to skip it.
        message_bytes: of the message at that rate; of a frame that is skipped, at the cheapest,
            or 0 if not even an empty message would have fitted.
        allowed_bytes: that the message may have; infinite without a budget.
        reason: why the frame is skipped, in one word; None if it is not.
        sentence: the same in words; empty if it is not.
    """

    rate: int | None
    message_bytes: int
    allowed_bytes: float
    reason: SkipReason | None = None
    sentence: str = ''

    @property
    def used(self) -> float:
        """The part of the allowed bytes that the message has; 0 without a budget."""
        return self.message_bytes / self.allowed_bytes if self.allowed_bytes else math.inf


class Payloads(Protocol):
    """What is asked of a frame: an :class:`~msfc.pipeline.edge.EdgeFrame`."""

    @property
    def fixed_length(self) -> bool:
        """Whether a payload's length is known before it is written."""

    def expected_bytes(self, rate: int) -> float:
        """Return the length that payloads of this size and rate usually have."""

    def payload_bytes(self, rate: int) -> int:
        """Return the exact length of this frame's payload, which may have to be written."""


class TokenBucket:
    """Bytes that may be sent now, at a rate over time; see RFC 2697 for its kind.

    In any t seconds no more than ``rate * t + depth`` bytes can be taken, as long as nobody takes
    more than there are. It begins full. It is not thread-safe.

    Args:
        clock: a steady time in seconds.
        rate: bytes per second.
        depth: bytes that gather at most.
    """

    def __init__(self, clock: Callable[[], float], rate: float, depth: float) -> None:
        self._clock = clock
        self._rate = rate
        self.depth = self._level = depth
        self._at = clock()

    def change(self, rate: float, depth: float) -> None:
        """Go on at another rate, with what has gathered so far but for what is beyond the depth.

        Args:
            rate: bytes per second.
            depth: bytes that gather at most.
        """
        level = self.level()
        self._rate, self.depth, self._level = rate, depth, min(level, depth)

    def level(self) -> float:
        """Return the bytes that may be taken now; below 0 where too much was taken."""
        now = self._clock()
        gathered = max(now - self._at, 0.0) * self._rate
        self._level = min(self._level + gathered, self.depth)
        self._at = now
        return self._level

    def take(self, count: int) -> None:
        """Take some bytes."""
        self._level = self.level() - count


class RateController:
    """Keeps the messages of one edge within a budget, and each as good as fits.

    Args:
        clock: a steady time in seconds.
        budget: what may be sent.
    """

    def __init__(self, clock: Callable[[], float], budget: Budget | None = None) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._budget = budget or Budget()
        self._link_bitrate: float | None = None
        self._link_message_bytes = math.inf
        self._share = 1.0
        self._bucket: TokenBucket | None = None
        self._cheapest = 0
        self._ratio = 1.0
        self._adjust()

    @property
    def budget(self) -> Budget:
        """What may be sent; may be set."""
        return self._budget

    @budget.setter
    def budget(self, budget: Budget) -> None:
        with self._lock:
            self._budget = budget
            self._cheapest = 0
            self._adjust()

    @property
    def link_bitrate(self) -> float | None:
        """What the link is found to take, in bits of messages per second; None if not known.

        May be set. The smaller of this and the budget's own ``target_bitrate`` counts.
        """
        return self._link_bitrate

    @link_bitrate.setter
    def link_bitrate(self, bitrate: float | None) -> None:
        if bitrate is not None and not (math.isfinite(bitrate) and bitrate > 0):
            raise ValueError(f'a link takes some bits per second, not {bitrate}')
        with self._lock:
            self._link_bitrate = bitrate
            self._adjust()

    @property
    def link_message_bytes(self) -> float:
        """The bytes that a message should have at most, so that it arrives; infinite for any.

        May be set. It is no limit but a wish: at the cheapest rate a message may be larger.
        """
        return self._link_message_bytes

    @link_message_bytes.setter
    def link_message_bytes(self, size: float) -> None:
        if not size > 0:
            raise ValueError(f'a message has some bytes, not {size}')
        self._link_message_bytes = size

    @property
    def share(self) -> float:
        """The part of both bitrates that is this edge's own, above 0 and up to 1; may be set."""
        return self._share

    @share.setter
    def share(self, share: float) -> None:
        if not 0 < share <= 1:
            raise ValueError(f'a share is above 0 and at most 1, not {share}')
        with self._lock:
            self._share = share
            self._adjust()

    @property
    def bitrate(self) -> float | None:
        """The bits of messages per second that count now; None without any."""
        target, link = self._budget.target_bitrate, self._link_bitrate
        rates = [rate for rate in (target or None, link) if rate is not None]
        return self._share * min(rates) if rates else None

    def _adjust(self) -> None:
        """Make the bucket that of the present settings."""
        bitrate = self.bitrate
        if bitrate is None:
            self._bucket = None
            return
        rate = bitrate / 8
        depth = self._budget.burst or max(BURST_SECONDS * rate, PACKET_BYTES, self._cheapest)
        if self._bucket is None:
            self._bucket = TokenBucket(self._clock, rate, depth)
        else:
            self._bucket.change(rate, depth)

    def choose(self, frame: Payloads, rates: Sequence[int], frame_id: str = '') -> Choice:
        """Return the best rate at which a frame's message fits now, or why there is none.

        Lengths are exact. They are taken to rise with the rate: where a code's do not, the
        answer fits and the next better rate does not. A frame is skipped if the cheapest rate
        does not fit. Nothing is spent; see :meth:`spend`.

        Args:
            frame: the frame; of its payloads as few are written as the search needs.
            rates: those to choose from, cheapest first; one alone is kept or skipped.
            frame_id: of the camera, in the message's header.

        Raises:
            ValueError: if there are no rates or one is unknown.
            PacketError: if the frame's code has values that are not numbers.
        """
        if not rates:
            raise ValueError('there is no rate to choose')
        around = compressed_feature_bytes(0, frame_id)
        with self._lock:
            bounds = self._bounds(self._message_limit(frame, rates, around))
        allowed = min(bounds.values())
        if allowed <= around:
            return _skip(bounds, 0, around + 1, rates[0])
        wanted = min(allowed, self._link_message_bytes)
        free = wanted == math.inf
        best = rates[-1] if free else self._search(frame, rates, wanted - around)
        if best is not None:
            return Choice(best, around + frame.payload_bytes(best), wanted)
        cheapest = around + frame.payload_bytes(rates[0])
        if cheapest <= allowed:
            return Choice(rates[0], cheapest, allowed)
        with self._lock:
            self._make_room(cheapest, bounds)
        return _skip(bounds, cheapest, cheapest, rates[0])

    def spend(self, message_bytes: int) -> None:
        """Note that a message has been sent.

        Args:
            message_bytes: of the whole serialised message.
        """
        with self._lock:
            if self._bucket is not None:
                self._bucket.take(message_bytes)

    def _bounds(self, message_limit: float) -> dict[SkipReason, float]:
        """Return what bounds a message now, in whole bytes."""
        bounds = {SkipReason.MESSAGE_LIMIT: message_limit}
        if self._bucket is not None:
            bounds[SkipReason.BURST] = math.floor(self._bucket.depth)
            bounds[SkipReason.BITRATE] = max(math.floor(self._bucket.level()), 0)
        return bounds

    def _make_room(self, message_bytes: int, bounds: dict[SkipReason, float]) -> None:
        """Let a default burst have such a message: it then goes as soon as the bitrate allows."""
        own = self._budget.burst == 0 and message_bytes <= bounds[SkipReason.MESSAGE_LIMIT]
        if own and message_bytes > bounds.get(SkipReason.BURST, math.inf):
            self._cheapest = bounds[SkipReason.BURST] = message_bytes
            self._adjust()

    def _message_limit(self, frame: Payloads, rates: Sequence[int], around: int) -> float:
        limit = self._budget.max_message_bytes
        if limit != AUTOMATIC:
            return limit or math.inf
        if frame.fixed_length or len(rates) < 2:
            return math.inf
        fits = around + frame.expected_bytes(rates[0]) <= PACKET_BYTES
        return PACKET_BYTES if fits else math.inf

    def _search(self, frame: Payloads, rates: Sequence[int], most: float) -> int | None:
        """Return the best rate whose payload has at most so many bytes, if any has."""
        low, high = -1, len(rates)  # the one fits, the other does not
        tries = 0
        while high - low > 1:
            at = (low + high) // 2
            if tries < GUESSES:
                at = self._guess(frame, rates, range(low + 1, high), most)
            tries += 1
            length, expected = frame.payload_bytes(rates[at]), frame.expected_bytes(rates[at])
            if expected > 0:
                self._ratio = length / expected
            low, high = (at, high) if length <= most else (low, at)
        return rates[low] if low >= 0 else None

    def _guess(self, frame: Payloads, rates: Sequence[int], places: range, most: float) -> int:
        """Return the best place that should fit, going by the length written last."""
        for place in reversed(places):
            if frame.expected_bytes(rates[place]) * self._ratio <= most:
                return place
        return places[0]


def _skip(bounds: dict[SkipReason, float], message_bytes: int, needed: int, rate: int) -> Choice:
    """Return the answer for a frame whose cheapest message does not fit.

    Args:
        bounds: of messages now, in bytes; one is below ``needed``.
        message_bytes: of the message; 0 if that is not known.
        needed: bytes that it has at least.
        rate: the cheapest rate.
    """
    reason = next(reason for reason, bound in bounds.items() if needed > bound)
    size = f'{message_bytes}' if message_bytes else f'more than {needed - 1}'
    bound = int(bounds[reason])
    why = {
        SkipReason.MESSAGE_LIMIT: f'max_message_bytes is {bound}',
        SkipReason.BURST: f'a burst has at most {bound}',
        SkipReason.BITRATE: f'the bitrate leaves {bound} now',
    }[reason]
    return Choice(
        None, message_bytes, min(bounds.values()), reason,
        f'at rate {rate} the message has {size} bytes, but {why}',
    )  # fmt: skip

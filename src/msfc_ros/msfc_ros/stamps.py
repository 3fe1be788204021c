"""Stamps of headers, as numbers. Imports no torch, so that a camera starts fast."""

from __future__ import annotations

from collections.abc import Mapping

from std_msgs.msg import Header

LONGEST_WAIT = 1.0
"""Seconds that a message may have waited for its callback; if it seems longer, the host's clock
was set meanwhile."""


def age(now: int, header: Header) -> float:
    """Return the seconds between a header's stamp and now.

    The stamp may be any that a message can carry; :class:`rclpy.time.Time` takes no negative one.

    Args:
        now: the time in nanoseconds.
        header: a message's header.
    """
    return (now - nanoseconds(header)) * 1e-9


def nanoseconds(header: Header) -> int:
    """Return a header's stamp in nanoseconds."""
    return int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec)


def is_stamped(header: Header) -> bool:
    """Return whether a header has a stamp at all; 0 is how messages are made."""
    return nanoseconds(header) != 0


def sent_and_received(
    info: Mapping[str, int], steady: float, system: int
) -> tuple[float | None, float]:
    """Return when a message was sent and received, in seconds.

    Args:
        info: what the middleware knows of the message.
        steady: the time by a steady clock, in seconds.
        system: the same time by the host's clock, in nanoseconds.

    Returns:
        When it was sent, by the sender's host's clock, None if the middleware does not know; and
        when it was received, by the steady clock.
    """
    sent, received = info.get('source_timestamp', 0), info.get('received_timestamp', 0)
    waited = (system - received) * 1e-9
    if not 0.0 <= waited <= LONGEST_WAIT:
        waited = 0.0
    return sent * 1e-9 if sent > 0 else None, steady - waited


def stamp_text(header: Header) -> str:
    """Return a header's stamp as it is written in logs."""
    return f'{header.stamp.sec}.{header.stamp.nanosec:09d}'

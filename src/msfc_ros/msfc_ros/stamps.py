"""Stamps of headers, as numbers. Imports no torch, so that a camera starts fast."""

from __future__ import annotations

from std_msgs.msg import Header


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


def stamp_text(header: Header) -> str:
    """Return a header's stamp as it is written in logs."""
    return f'{header.stamp.sec}.{header.stamp.nanosec:09d}'

"""Letting through so many frames per second and no more."""

from __future__ import annotations

SLACK = 2.0
"""Periods that a frame may be late and the next one still be due as if it had not been; after
a longer pause what was not used is not made up for."""


class Pace:
    """Admits frames at no more than a rate, on average exactly at it where more come.

    A frame is due once a period has passed since the one before was *due*, not since it came: a
    camera's frames are never quite where they should be, and of 30 per second, 10 would become
    7.5 whenever the third is a little early.

    Args:
        rate: frames per second; 0 admits all. It may be set at any time.
    """

    def __init__(self, rate: float = 0.0) -> None:
        self.rate = rate
        self._due = float('-inf')

    def restart(self) -> None:
        """Admit the next frame at once."""
        self._due = float('-inf')

    def admits(self, now: float) -> bool:
        """Return whether a frame may pass that comes now, in seconds of a steady clock."""
        rate = self.rate
        if rate <= 0.0:
            return True
        period = 1.0 / rate
        # A slower rate before must not hold up a faster one now.
        self._due = min(self._due, now + period)
        if now < self._due:
            return False
        on_time = now - self._due < SLACK * period
        self._due = (self._due if on_time else now) + period
        return True

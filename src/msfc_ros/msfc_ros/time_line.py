"""Which stamps can be compared with the time: after a clock has jumped, some cannot."""

from __future__ import annotations

import time
from collections.abc import Callable

from msfc_ros.statistics import WINDOW

JUMP = 1.0
"""Seconds by which a clock has to leave its course for it to be a jump."""

TOLERANCE = 0.5
"""Seconds that stamps may lie outside the time since a jump: not all nodes see it at once."""


class TimeLine:
    """Follows a clock that may be set back or forth, as in a simulation that begins anew.

    What was stamped before a jump has no age by the clock after it: for some seconds only stamps
    count that the clock has shown since.

    Args:
        clock: gives the time in seconds, steadily; another one for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = 0
        self._since = float('-inf')

    def jump(self, now: int) -> None:
        """Take note of a jump.

        Args:
            now: the time after it in nanoseconds.
        """
        self._start, self._since = now, self._clock()

    def has(self, stamp: int, now: int) -> bool:
        """Return whether a stamp can be compared with the time.

        Args:
            stamp: in nanoseconds.
            now: the time in nanoseconds; 0 is a simulated one that has not begun.
        """
        if now == 0:
            return False
        if self._clock() - self._since > WINDOW:
            return True
        slack = TOLERANCE * 1e9
        return self._start - slack <= stamp <= now + slack


class WallClock:
    """Notices when the host's clock is set.

    Args:
        wall: gives the time in seconds; another one for tests.
        steady: gives the time in seconds, steadily; another one for tests.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall, self._steady = wall, steady
        self._offset = wall() - steady()

    def has_jumped(self) -> bool:
        """Return whether it was set since it was last asked."""
        before, self._offset = self._offset, self._wall() - self._steady()
        return abs(self._offset - before) > JUMP

"""Measuring stages."""

from __future__ import annotations

import time
from collections.abc import Callable


class Stopwatch:
    """Measures stages one after the other.

    Args:
        wait: called before each look at the clock; returns when all work queued so far is done.
    """

    def __init__(self, wait: Callable[[], None] | None = None) -> None:
        self._wait = wait
        self._last = self._now()

    def lap(self) -> float:
        """Return the seconds since the last lap or the start."""
        now = self._now()
        seconds, self._last = now - self._last, now
        return seconds

    def _now(self) -> float:
        if self._wait is not None:
            self._wait()
        return time.perf_counter()

"""Signals that ask a process to end in good order, once or twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType

GRACE = 2.0
"""Seconds in which the same signal again is taken for the same request. A terminal signals the
whole group of processes, and the launch system its children besides; systemd does likewise."""


class StopSignals:
    """Handles signals from now on; the first of each kind is a request to end.

    One that comes again within :data:`GRACE` seconds changes nothing. Later, whoever asks does not
    want to wait any longer, and the signal ends the process at once.

    Args:
        numbers: of the signals.
        on_request: called in the main thread with the number of the first of each.
        clock: gives the time in seconds, steadily; another one for tests.
    """

    def __init__(
        self,
        numbers: Sequence[int],
        on_request: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_request = on_request
        self._clock = clock
        self._first: dict[int, float] = {}
        self._before = {number: signal.signal(number, self._handle) for number in numbers}

    @property
    def came(self) -> bool:
        """Whether there was a request."""
        return bool(self._first)

    def restore(self) -> None:
        """Handle the signals as before, unless a request came: then its repeats may yet come."""
        if self.came:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = self._clock()
        first = self._first.get(number)
        if first is None:
            self._first[number] = now
            self._on_request(number)
        elif now - first > GRACE:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

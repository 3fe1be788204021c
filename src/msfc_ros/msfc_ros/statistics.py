"""Counts, rates and mean durations of a node, and their way into ``/diagnostics``."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

WINDOW = 100
"""Frames over which means and rates are taken."""

QUIET = 3.0
"""Seconds without a frame after which a rate is reported as 0."""


class Statistics:
    """Thread-safe counts of events and running means of quantities.

    Args:
        clock: gives the time in seconds; another one for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._values: dict[str, deque[float]] = {}
        self._done: deque[float] = deque(maxlen=WINDOW)
        self._last_refusal: float | None = None

    def count(self, event: str) -> None:
        """Count an event."""
        with self._lock:
            self._counts[event] += 1

    def refuse(self, reason: str) -> int:
        """Count a refused message and return how many there were for this reason."""
        with self._lock:
            self._refused[reason] += 1
            self._last_refusal = self._clock()
            return self._refused[reason]

    def frame(self, values: Mapping[str, float]) -> None:
        """Note a finished frame and its quantities, in the units that they are shown in."""
        with self._lock:
            self._done.append(self._clock())
            for name, value in values.items():
                self._values.setdefault(name, deque(maxlen=WINDOW)).append(value)

    @property
    def refused(self) -> dict[str, int]:
        """How many messages were refused, by reason."""
        with self._lock:
            return dict(self._refused)

    def rate(self) -> float:
        """Return the finished frames per second, 0 if there was none for a while."""
        with self._lock:
            if len(self._done) < 2 or self._clock() - self._done[-1] > QUIET:
                return 0.0
            return (len(self._done) - 1) / max(self._done[-1] - self._done[0], 1e-9)

    def values(self) -> dict[str, str]:
        """Return everything as text, as diagnostics want it: counts, rate, means."""
        shown = {'rate_hz': f'{self.rate():.2f}'}
        with self._lock:
            shown.update({name: str(count) for name, count in sorted(self._counts.items())})
            shown['refused'] = str(self._refused.total())
            shown.update({f'refused_{r}': str(n) for r, n in sorted(self._refused.items())})
            for name, recent in self._values.items():
                shown[name] = f'{sum(recent) / len(recent):.6g}'
        return shown

    def status(self, name: str, state: str, hardware: str = '') -> DiagnosticStatus:
        """Return a diagnostic status.

        Args:
            name: name of the task, with the node's name.
            state: state of the node in one word.
            hardware: what the work is done on.

        Returns:
            WARN while messages are refused (and ten seconds after), else OK.
        """
        with self._lock:
            refusal = self._last_refusal
        if refusal is not None and self._clock() - refusal < 10.0:
            level, message = DiagnosticStatus.WARN, f'{state}, refusing messages'
        else:
            level, message = DiagnosticStatus.OK, state
        return DiagnosticStatus(
            level=level,
            name=name,
            message=message,
            hardware_id=hardware,
            values=[KeyValue(key=key, value=value) for key, value in self.values().items()],
        )

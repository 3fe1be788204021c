"""Counts, rates and means of a node: what ``/diagnostics`` shows and judges by.

Counts are since the node was made. Everything else is of the last :data:`WINDOW` seconds, so that
a pause shows as a pause and no value outlives what it tells of.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping

WINDOW = 10.0
"""Seconds over which rates and means are taken."""

BASELINE = 60.0
"""Seconds before these over which the rate is taken that the present one is compared with."""

CAPACITY = 32768
"""Entries of one kind that are kept; beyond it rates and means are of the latest ones only."""

FIRST_RATE = 1.0
"""Seconds after the start before which no rate is extrapolated."""

RATED = ('message_bytes', 'payload_bytes')
"""Quantities of a frame whose sum per second is shown too, as ``<name>_per_second``."""

FRAMES = 'frames'
"""Name of the series of finished frames."""


def in_ms(durations: Mapping[str, float]) -> str:
    """Return durations, in seconds by name, as text in milliseconds for the log."""
    return ', '.join(f'{name} {seconds * 1e3:.1f}' for name, seconds in durations.items())


class _Series:
    """Numbers with the time of each, the last few minutes of them at most."""

    def __init__(self) -> None:
        self._entries: deque[tuple[float, float]] = deque(maxlen=CAPACITY)

    def add(self, now: float, number: float, keep: float) -> None:
        self._entries.append((now, number))
        while self._entries[0][0] < now - keep:
            self._entries.popleft()

    def between(self, start: float, end: float) -> list[float]:
        return [number for at, number in self._entries if start < at <= end]

    def clear(self) -> None:
        self._entries.clear()


class Statistics:
    """Thread-safe counts of events and recent values of quantities.

    Args:
        clock: gives the time in seconds; another one for tests.
        whole: what this is a part of; all that is noted here is noted there too.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, whole: Statistics | None = None
    ) -> None:
        self._clock = clock
        self._whole = whole
        self._parts: list[Statistics] = []
        if whole is not None:
            whole._parts.append(self)
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._events: defaultdict[str, _Series] = defaultdict(_Series)
        self._refusals: defaultdict[str, _Series] = defaultdict(_Series)
        self._values: defaultdict[str, _Series] = defaultdict(_Series)
        self._latest: dict[str, float] = {}
        self._start = clock()

    def reset(self) -> None:
        """Forget everything but the counts, as a node does that begins anew."""
        with self._lock:
            for series in (self._events, self._refusals, self._values):
                series.clear()
            self._latest.clear()
            self._start = self._clock()

    def forget(self, *names: str) -> None:
        """Forget the values of quantities, here and in the parts of this."""
        with self._lock:
            for name in names:
                self._values.pop(name, None)
        for part in self._parts:
            part.forget(*names)

    # -- what happens --

    def count(self, event: str, number: int = 1) -> None:
        """Count an event, or several; a negative number takes back what was counted too much."""
        with self._lock:
            self._counts[event] += number
            self._note_event(event, number)
        if self._whole is not None:
            self._whole.count(event, number)

    def refuse(self, reason: str) -> int:
        """Count a refused message and return how many there were for this reason."""
        with self._lock:
            self._refused[reason] += 1
            self._refusals[reason].add(self._clock(), 1, WINDOW)
            number = self._refused[reason]
        if self._whole is not None:
            self._whole.refuse(reason)
        return number

    def sample(self, name: str, value: float) -> None:
        """Note a value of a quantity, in the unit that it is shown in."""
        with self._lock:
            self._values[name].add(self._clock(), value, WINDOW)
        if self._whole is not None:
            self._whole.sample(name, value)

    def frame(self, values: Mapping[str, float | None]) -> None:
        """Note a finished frame and its quantities, in the units that they are shown in.

        Args:
            values: the quantities, by name; None for one that is not known.
        """
        with self._lock:
            self._note_event(FRAMES, 1)
            for name, value in values.items():
                if value is None:
                    continue
                self._values[name].add(self._clock(), value, WINDOW)
        if self._whole is not None:
            self._whole.frame(values)

    def _note_event(self, event: str, number: int) -> None:
        now = self._clock()
        self._events[event].add(now, number, WINDOW + BASELINE)
        self._latest[event] = now

    # -- what it comes to --

    @property
    def refused(self) -> dict[str, int]:
        """How many messages were refused, by reason."""
        with self._lock:
            return dict(self._refused)

    def elapsed(self) -> float:
        """Return the seconds since the beginning or the last :meth:`reset`."""
        return self._clock() - self._start

    def silence(self, event: str) -> float:
        """Return the seconds since an event came last, or since the beginning."""
        with self._lock:
            return self._clock() - self._latest.get(event, self._start)

    def recent(self, event: str) -> int:
        """Return how often an event came in the last :data:`WINDOW` seconds."""
        with self._lock:
            return int(sum(self._recent(self._events, event)))

    def recently_refused(self) -> dict[str, int]:
        """Return how many messages were refused in these seconds, by reason."""
        with self._lock:
            numbers = {name: len(self._recent(self._refusals, name)) for name in self._refusals}
        return {name: number for name, number in numbers.items() if number}

    def recent_values(self, name: str) -> list[float]:
        """Return the values of a quantity that were noted in these seconds, oldest first."""
        with self._lock:
            return self._recent(self._values, name)

    def rate(self, event: str = FRAMES) -> float:
        """Return how often per second an event came; without a name, finished frames."""
        with self._lock:
            return self._per_second(self._recent(self._events, event))

    def usual_rate(self) -> float | None:
        """Return the finished frames per second before the last :data:`WINDOW` seconds.

        Returns:
            The rate over the :data:`BASELINE` seconds before them, or as many of these as there
            were; None if there were fewer than :data:`WINDOW`.
        """
        with self._lock:
            now = self._clock()
            end = now - WINDOW
            start = max(self._start, end - BASELINE)
            if end - start < WINDOW:
                return None
            return sum(self._events[FRAMES].between(start, end)) / (end - start)

    def values(self) -> dict[str, str]:
        """Return everything as text, as diagnostics want it: rates, counts, means."""
        shown = {'rate_hz': f'{self.rate():.2f}'}
        with self._lock:
            if 'received' in self._counts:
                received = self._recent(self._events, 'received')
                shown['input_hz'] = f'{self._per_second(received):.2f}'
            shown.update({name: str(count) for name, count in sorted(self._counts.items())})
            shown['refused'] = str(self._refused.total())
            shown.update({f'refused_{r}': str(n) for r, n in sorted(self._refused.items())})
            for name in self._values:
                if recent := self._recent(self._values, name):
                    shown[name] = f'{sum(recent) / len(recent):.6g}'
                if name in RATED:
                    shown[f'{name}_per_second'] = f'{self._per_second(recent):.6g}'
        return shown

    def _recent(self, series: Mapping[str, _Series], name: str) -> list[float]:
        now = self._clock()
        return series[name].between(now - WINDOW, now) if name in series else []

    def _per_second(self, recent: list[float]) -> float:
        seconds = min(max(self._clock() - self._start, FIRST_RATE), WINDOW)
        return sum(recent) / seconds

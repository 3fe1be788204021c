"""Does the delay grow because more is sent than the link takes?

The overuse detector of draft-ietf-rmcat-gcc-02, section 5.4, with its adaptive threshold (Carlucci
et al., "Analysis and design of the Google Congestion Control for WebRTC", MMSys 2016): with a
fixed one either a long queue is never noticed, or a flow that reacts to loss only, as TCP's, takes
everything.

It differs in what it is asked: not once a packet, some hundred times a second, but once a report.
So a trend is enough by itself, and has not to last for 10 ms; and the threshold moves by
the exponential of the time that has passed, as steps of the draft's size would overshoot.
"""

from __future__ import annotations

import math
from enum import Enum

UP, DOWN = 0.5, 5.5
"""Seconds in which the threshold goes most of the way up or down to the trend that is seen. Down
as in the draft, 1 / 0.00018 ms; up not in its 0.1 s, as that is less than the time between two
reports, and each would blind it to the next one."""

START = 0.052
"""Threshold at the start, in seconds per second: the draft's 12.5 ms are compared with a slope
times 60 deltas times the gain of 4 (WebRTC's trendline estimator)."""

LEAST, MOST = 0.04, 2.5
"""The threshold stays within these: the draft's 6 ms and 600 ms."""

OUTLIER = 0.0625
"""A trend that exceeds the threshold by more does not move it: the draft's 15 ms."""

LONGEST = 1.0
"""Seconds that count at most for moving the threshold."""

FEWEST = 4
"""Messages of which a trend has to be taken for it to count."""


class Usage(Enum):
    """How the link is used.

    Attributes:
        NORMAL: the delay stays.
        OVER: it grows: more is sent than the link takes.
        UNDER: it shrinks: a queue is getting shorter.
    """

    NORMAL = 'normal'
    OVER = 'over'
    UNDER = 'under'


class OveruseDetector:
    """Compares the trend of the delay with a threshold that adapts to how much it varies."""

    def __init__(self) -> None:
        self.threshold = START
        self._before = 0.0
        self._at: float | None = None

    def judge(self, trend: float, samples: int, now: float) -> Usage:
        """Judge a trend.

        Args:
            trend: of the one-way delay, in seconds per second.
            samples: messages that it is taken of.
            now: the time in seconds.
        """
        if samples < FEWEST:
            return Usage.NORMAL
        before, self._before = self._before, trend
        usage = Usage.NORMAL
        # A queue that grows ever more slowly is on its way to vanish by itself.
        if trend > self.threshold and trend >= before:
            usage = Usage.OVER
        elif trend < -self.threshold:
            usage = Usage.UNDER
        self._adapt(abs(trend), now)
        return usage

    def _adapt(self, size: float, now: float) -> None:
        at, self._at = self._at, now
        if at is None or size > self.threshold + OUTLIER:
            return
        seconds = min(max(now - at, 0.0), LONGEST)
        part = 1.0 - math.exp(-seconds / (UP if size > self.threshold else DOWN))
        self.threshold += part * (size - self.threshold)
        self.threshold = min(max(self.threshold, LEAST), MOST)

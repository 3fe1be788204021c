"""When a node that ended is started again."""

from __future__ import annotations

DELAY = 0.2
"""Seconds before a node that ran well is started again; its imports take two more."""

STEADY = 20.0
"""Seconds that a node has to run to count as one that ran well."""

FIRST_WAIT, LONGEST_WAIT = 2.0, 60.0
"""Seconds of waiting after the second early end in a row, and at most; it doubles each time."""


class Restarts:
    """Delays between the runs of one node.

    A node that ends soon after each of its starts, such as one whose model is missing, is started
    ever more rarely; one that ran well comes back at once.
    """

    def __init__(self) -> None:
        self.early = 0
        """Early ends in a row."""

    def delay(self, seconds: float) -> float:
        """Return how many seconds to wait for the next start after a run of so many seconds."""
        self.early = self.early + 1 if seconds < STEADY else 0
        if self.early < 2:
            return DELAY
        # The exponent is bounded: a node may fail for months.
        return min(FIRST_WAIT * 2.0 ** min(self.early - 2, 16), LONGEST_WAIT)

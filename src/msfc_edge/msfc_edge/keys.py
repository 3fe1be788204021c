"""Key frames: what the cloud acknowledges is referred to, what it asks for anew is sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from msfc.link.report import LinkReport
from msfc.pipeline.references import KeyFrames
from msfc_edge.reports import LinkReports
from msfc_ros.diagnostics import WARN, Finding
from msfc_ros.node import ManagedNode
from msfc_ros.parameters import LiveParameters

try:
    from std_srvs.srv import Trigger
except ImportError:
    Trigger = None

__all__ = ['UNANSWERED', 'EdgeKeys', 'Trigger']

MOST_FRAMES = 100_000
"""The largest interval."""

PATIENCE = 3.0
"""Seconds without a report, and at least three of its periods, after which nothing is referred to:
longer than a radio that changes its access point is silent."""

UNANSWERED = 'unanswered_keys'
"""Kind of the finding that nobody acknowledges key frames."""


class EdgeKeys:
    """The parameter ``key_interval`` of a node and its service ``~/request_keyframe``.

    Frames are coded against a key frame only while reports come: whoever cannot be heard cannot
    say that it lacks that frame.

    Args:
        node: the node.
        live: where parameters are declared that can be changed live.
        reports: of the cloud.
        clock: a steady time in seconds; another one for tests.

    Raises:
        ValueError: if the parameter has a value that it cannot have.
    """

    def __init__(
        self,
        node: ManagedNode,
        live: LiveParameters,
        reports: LinkReports,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._reports = reports
        self._clock = clock
        self._keys: KeyFrames | None = None
        self._active = False
        # When a report was last heard, or else a frame first waited for one.
        self._since: float | None = None
        self._patience = PATIENCE
        self._interval: int = live.declare(
            'key_interval',
            0,
            'Frames from one key frame to the next, against which the others are coded where that '
            'is less, once the cloud has acknowledged it. 0: every message decodes alone.',
            self._set_interval,
            limits=(0, MOST_FRAMES),
            check=self._check_interval,
        )
        if Trigger is not None:
            node.create_service(Trigger, '~/request_keyframe', self._requested)

    @property
    def interval(self) -> int:
        """Frames from one key frame to the next; 0 for none."""
        return self._interval

    # -- life cycle --

    def take_keys(self, keys: KeyFrames) -> None:
        """Take over the key frames of a pipeline.

        Raises:
            ValueError: if there are to be some and its coding has none.
        """
        self._keys = keys
        # After the line above: what is asked for meanwhile is checked there or here.
        keys.interval = self._interval

    def forget_keys(self) -> None:
        """Take any interval again, as there is no model."""
        self._keys = None

    def begin(self) -> None:
        """Know of no key frame before: numbers begin anew."""
        self._active = True
        if self._keys is not None:
            self._keys.restart()
        if self._interval:
            self._listen()

    def end(self) -> None:
        """Hear no more; the reports have ended, or will end, by themselves."""
        self._active = False

    def _listen(self) -> None:
        self._since, self._patience = None, PATIENCE
        self._reports.listen(self._heard)

    def _check_interval(self, interval: int) -> None:
        if self._keys is not None:
            self._keys.check_interval(interval)

    def _set_interval(self, interval: int) -> None:
        before, self._interval = self._interval, interval
        keys = self._keys
        if keys is not None:
            if not before:
                keys.restart()  # those that were known are from long ago
            keys.interval = interval
        if self._active and interval and not before:
            self._listen()
        elif self._active and before and not interval:
            self._reports.cease(self._heard)

    # -- what happens --

    def _heard(self, report: LinkReport) -> None:
        self._since = self._clock()
        self._patience = max(PATIENCE, 3.0 * report.period)
        keys = self._keys
        if keys is None:
            return
        if report.keyframe_wanted:
            self._node.statistics.count('keyframes_wanted')
            keys.request()
        else:
            keys.acknowledge(report.acknowledged_key)

    def before_choice(self) -> None:
        """Refer to nothing while no reports come, before a frame is coded."""
        keys = self._keys
        if not self._interval or keys is None:
            return
        if self._since is None:
            self._since = self._clock()
        if keys.acknowledged and self._silence() > self._patience:
            keys.request()

    def _silence(self) -> float:
        return 0.0 if self._since is None else self._clock() - self._since

    def _requested(self, request: Any, response: Any) -> Any:
        keys = self._keys
        if not self._active or keys is None:
            response.message = 'the node is not active'
        elif not self._interval:
            response.message = 'key_interval is 0: every message decodes alone'
        else:
            self._node.statistics.count('keyframes_wanted')
            keys.request()
            response.success, response.message = True, 'the next frame is a key frame'
        return response

    # -- what is told --

    def findings(self) -> list[Finding]:
        """Return what there is to tell of key frames, for the diagnostics."""
        silence = self._silence()
        if not self._interval or silence <= self._patience:
            return []
        text = f'no report on the link for {silence:.0f} s: every frame is coded alone'
        return [Finding(WARN, text, UNANSWERED)]

    def values(self) -> dict[str, str]:
        """Return what is shown of key frames, for the diagnostics."""
        keys = self._keys
        if not self._interval or keys is None:
            return {}
        return {'acknowledged_key': str(keys.acknowledged)}

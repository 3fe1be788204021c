"""The edge's end of the closed loop: reports come in, budget and pace follow."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from msfc.link.control import LinkLimits
from msfc.link.estimator import LinkEstimator
from msfc.link.report import LinkReport
from msfc.pipeline.rate_control import RateController, TokenBucket
from msfc_edge.reports import LinkReports
from msfc_ros.diagnostics import OK, WARN, Finding
from msfc_ros.node import ManagedNode
from msfc_ros.parameters import LiveParameters, declare

OVERDUE, CLOUD_BUSY = 'overdue', 'cloud_busy'
"""Why an image is skipped before it is worked on; ``skipped_REASON`` counts it."""

CLOUD_BURST = 2.0
"""Images that the cloud may get at once: one to work on, one that waits. Cameras are not steady,
and what comes on average no faster than it is decoded is not to be skipped."""

DEAF = 'deaf'
"""Kind of the finding that no reports come."""


class EdgeLink:
    """The parameters ``adaptive`` and ``link.*`` of a node, and what follows from reports.

    Args:
        node: the node.
        live: where parameters are declared that can be changed live.
        reports: of the cloud.
        controller: is told what the link takes.
        clock: a steady time in seconds; another one for tests.

    Raises:
        ValueError: if a parameter has a value that it cannot have.
    """

    def __init__(
        self,
        node: ManagedNode,
        live: LiveParameters,
        reports: LinkReports,
        controller: RateController,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._reports = reports
        self._controller = controller
        self._clock = clock
        self._lock = threading.Lock()
        self._active = self._adapts = False
        self._adaptive: bool = live.declare(
            'adaptive',
            False,
            'Send what the link takes and the cloud can decode, by the reports of the cloud: less '
            'than target_bitrate where it has to be. Where reports cease, the least.',
            self._set_adaptive,
        )
        self._limits = self._declare_limits()
        self._estimator = LinkEstimator(self._limits)
        self._decodable: TokenBucket | None = None

    def _declare_limits(self) -> LinkLimits:
        default = LinkLimits()
        names = {'start': 'start with', 'min': 'send at least', 'max': 'send at most'}
        values = [
            declare(
                self._node,
                f'link.{name}_bitrate',
                value,
                f'Bits of messages per second to {names[name]}, with adaptive.',
                limits=(1.0, 1e12),
                read_only=True,
            )
            for name, value in zip(
                names, (default.start, default.least, default.most), strict=True
            )
        ]
        return LinkLimits(*values)

    # -- life cycle --

    def begin(self) -> None:
        """Begin to listen, if the node is to adapt."""
        self._active = True
        if self._adaptive:
            self._listen()

    def end(self) -> None:
        """Forget the link; the reports have ended, or will end, by themselves."""
        self._active = False
        self._forget()

    def _listen(self) -> None:
        with self._lock:
            self._estimator = LinkEstimator(self._limits)
            self._decodable = None
        self._controller.link_bitrate = self._limits.start
        self._adapts = True
        self._reports.listen(self._heard)

    def _forget(self) -> None:
        self._adapts = False
        self._controller.link_bitrate = None
        self._controller.link_message_bytes = math.inf

    def _set_adaptive(self, adaptive: bool) -> None:
        changed, self._adaptive = adaptive != self._adaptive, adaptive
        if not (changed and self._active):
            return
        if adaptive:
            self._listen()
        else:
            self._forget()
            self._reports.cease(self._heard)

    # -- what happens --

    def _heard(self, report: LinkReport) -> None:
        with self._lock:
            self._estimator.note(report, self._clock())
            self._note_load(report.decode_rate)
        self._follow()

    def _note_load(self, decode_rate: float) -> None:
        if not decode_rate:
            self._decodable = None
        elif self._decodable is None:
            self._decodable = TokenBucket(self._clock, decode_rate, CLOUD_BURST)
        else:
            self._decodable.change(decode_rate, CLOUD_BURST)

    def refuses(self) -> str:
        """Return why an image that has just come is not worked on; nothing if it is."""
        if not self._adapts:
            return ''
        now = self._clock()
        with self._lock:
            if not self._estimator.admits(now):
                return OVERDUE
            if self._estimator.hears_nothing(now):
                self._decodable = None  # it may be another cloud by now
            if self._decodable is not None:
                if self._decodable.level() < 1.0:
                    return CLOUD_BUSY
                self._decodable.take(1)
        return ''

    def before_choice(self) -> None:
        """Let the budget follow the link, before a rate is chosen."""
        if self._adapts:
            self._follow()

    def sent(self, sequence: int, size: int) -> None:
        """Take note of a message that is sent.

        Args:
            sequence: its number.
            size: its bytes.
        """
        if self._adapts:
            with self._lock:
                self._estimator.sent(sequence, size, self._clock())

    def _follow(self) -> None:
        with self._lock:
            bitrate = self._estimator.bitrate(self._clock())
            size = self._estimator.message_bytes()
        if self._adapts:
            self._controller.link_bitrate = bitrate
            self._controller.link_message_bytes = size

    # -- what is told --

    def findings(self) -> list[Finding]:
        """Return what there is to tell of the link, for the diagnostics."""
        if not self._adapts:
            return []
        now, found = self._clock(), []
        with self._lock:
            if self._estimator.hears_nothing(now):
                silence = self._estimator.silence(now)
                text = f'no report on the link for {silence:.0f} s: little is sent'
                found.append(Finding(WARN, text, DEAF))
        busy = self._node.statistics.recent(f'skipped_{CLOUD_BUSY}')
        if busy:
            found.append(Finding(OK, f'{busy} images skipped as the cloud is busy'))
        return found

    def values(self) -> dict[str, str]:
        """Return what is shown of the link, for the diagnostics."""
        if not self._adapts:
            return {}
        now = self._clock()
        with self._lock:
            estimator, report = self._estimator, self._estimator.report
            shown = {
                'link_bitrate': estimator.bitrate(now),
                'link_estimate': estimator.estimate,
                'link_loss': estimator.loss,
            }
            if estimator.message_bytes() < math.inf:
                shown['link_message_bytes'] = estimator.message_bytes()
            usage = estimator.usage.value
        if report is None:
            return _texts(shown)
        shown |= {
            'link_delay_ms': report.delay * 1e3,
            'link_delay_trend': report.delay_trend,
            'report_age_s': estimator.silence(now),
        }
        if report.decode_rate:
            shown['decode_rate_hz'] = report.decode_rate
        if report.share:
            shown['link_share'] = report.share
        return _texts(shown) | {'link_usage': usage}


def _texts(values: dict[str, float]) -> dict[str, str]:
    return {name: f'{value:.6g}' for name, value in values.items()}

"""The cloud's reports to its edges: what arrives, what it can decode, whose share is how much."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rclpy.clock import Clock, ClockType
from std_msgs.msg import Header

from msfc.link.load import DecodeLoad
from msfc.link.report import LinkReport
from msfc.link.shares import SharedLink
from msfc_cloud.camera import Camera
from msfc_ros.node import ManagedNode
from msfc_ros.parameters import LiveParameters, declare


class LinkReporter:
    """Reports on the link to every edge that listens.

    Args:
        node: the node.
        live: where parameters are declared that can be changed live.
        cameras: of the edges.

    Attributes:
        load: what arrives and how long the work on it takes.
        period: seconds between two reports.
    """

    def __init__(self, node: ManagedNode, live: LiveParameters, cameras: Sequence[Camera]) -> None:
        self._node = node
        self._cameras = {camera.features_topic: camera for camera in cameras}
        self._timer: Any = None
        self._last: dict[str, LinkReport] = {}
        self.load = DecodeLoad[str]()
        self.period: float = declare(
            node,
            'report_period',
            0.2,
            'Time between two reports on the link to an edge that listens to them, in seconds.',
            limits=(0.05, 5.0),
            read_only=True,
        )
        self._shared: SharedLink[str] | None = None
        budget = live.declare(
            'link_budget',
            0.0,
            'Bits of messages per second that all edges may send together, where they share one '
            'radio: each that adapts gets its part by its weight, of less where the radio takes '
            'less. 0 is no budget: each has a link of its own.',
            self._set_budget,
            limits=(0.0, 1e12),
        )
        self._set_budget(budget)

    def begin(self) -> None:
        """Begin to report, with nothing known of the time before."""
        self.load = DecodeLoad()
        if self._shared is not None:
            self._shared = SharedLink(self._shared.most)
        self._timer = self._node.create_timer(
            self.period, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def end(self) -> None:
        """Report no more."""
        timer, self._timer = self._timer, None
        if timer is not None:
            self._node.destroy_timer(timer)
        self._last = {}

    def values(self, camera: Camera) -> Mapping[str, str]:
        """Return what was reported last to a camera's edge, for the diagnostics."""
        report = self._last.get(camera.features_topic)
        if report is None:
            return {}
        shown = {
            'link_bitrate': report.bitrate,
            'link_delay_ms': report.delay * 1e3,
            'link_delay_trend': report.delay_trend,
        }
        if report.decode_rate:
            shown['decode_rate_hz'] = report.decode_rate
        if report.share:
            shown['link_share'] = report.share
        return {name: f'{value:.6g}' for name, value in shown.items()}

    def _set_budget(self, budget: float) -> None:
        self._shared = SharedLink(budget) if budget else None

    def _report(self) -> None:
        now = time.monotonic()
        reports, sizes = {}, {}
        for topic, camera in self._cameras.items():
            if camera.listeners('link_report'):
                rate = self.load.rate(topic, now)
                reports[topic] = camera.link.report(
                    now,
                    rate,
                    weight=camera.weight,
                    acknowledged_key=camera.keys.acknowledged,
                    keyframe_wanted=camera.keys.wanted,
                )
                sizes[topic] = camera.link.mean_size()
        if self._shared is not None:
            reports = self._shared.share(reports, sizes, now)
        self._last = reports
        header = Header(stamp=self._node.get_clock().now().to_msg())
        for topic, report in reports.items():
            self._cameras[topic].publish_report(report, header)

"""The cloud's reports: one subscription for all parts of the node that want them."""

from __future__ import annotations

import threading
from collections.abc import Callable

from msfc_msgs.msg import LinkReport as LinkReportMessage

from msfc.link.report import LinkReport
from msfc_ros.messages import report_from_message
from msfc_ros.node import ManagedNode
from msfc_ros.parameters import declare
from msfc_ros.qos import Subscription, declare_qos
from msfc_ros.statistics import Statistics

Hearer = Callable[[LinkReport], None]


class LinkReports:
    """The subscription, there while somebody listens.

    Args:
        node: the node.

    Raises:
        ValueError: if a parameter has a value that it cannot have.
    """

    def __init__(self, node: ManagedNode) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._hearers: list[Hearer] = []
        self._subscription: Subscription | None = None
        self._topic: str = declare(
            node, 'link_report_topic', 'link_report', 'Topic of the reports.', read_only=True
        )
        self._qos = declare_qos(node, 'link_report', 'the reports on the link', 'best_effort')
        # Not one of the images, of which the node keeps count.
        self._refused = Statistics()

    def listen(self, hear: Hearer) -> None:
        """Let somebody hear each report from now on."""
        with self._lock:
            self._hearers.append(hear)
            if self._subscription is None:
                self._subscription = self._node.subscribe(
                    LinkReportMessage, self._topic, self._qos, self._heard
                )

    def cease(self, hear: Hearer) -> None:
        """Let somebody hear no more; without anybody the subscription ends."""
        with self._lock:
            self._hearers.remove(hear)
            subscription = self._subscription
            if not self._hearers and subscription is not None:
                self._subscription = None
                self._node.unsubscribe(subscription)

    def end(self) -> None:
        """Forget who listens; the node has ended, or will end, all subscriptions."""
        with self._lock:
            self._hearers.clear()
            self._subscription = None

    def _heard(self, message: LinkReportMessage) -> None:
        try:
            report = report_from_message(message)
        except ValueError as error:
            self._node.refuse('bad_report', str(error), self._topic, self._refused)
            self._node.statistics.count('bad_reports')
            return
        self._node.statistics.count('reports')
        for hear in tuple(self._hearers):
            hear(report)

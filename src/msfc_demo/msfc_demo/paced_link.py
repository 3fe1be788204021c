"""A narrow link without root: messages are held back, and lost, as if they were on one.

:class:`PacedLink` is the link, in a time that is handed in. :class:`PacedRelay` puts it between
the two nodes: what the edge sends and what the cloud reports pass through it.
"""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from msfc_msgs.msg import CompressedFeature
from msfc_msgs.msg import LinkReport as LinkReportMessage
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message

from msfc.link.bottleneck import Bottleneck
from msfc.link.receiver import LinkReceiver
from msfc.link.report import LinkReport
from msfc_demo.link_shape import LinkShape
from msfc_ros.messages import report_from_message, report_to_message

PACKET = 1480
"""Bytes of a message in a packet at an MTU of 1,500."""

AROUND, AROUND_FURTHER = 192, 20
"""Bytes around a message on the network, in its first packet and in each that follows."""

EDGE_SIDE, CLOUD_SIDE = 'edge_side', 'cloud_side'
"""Namespaces of what the edge sends, before the link, and of what the cloud reports."""

RELIABLE = QoSProfile(
    depth=10, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE
)

REPORT_PERIOD = 0.2
"""Seconds between two reports of the cloud, by default."""

LOOK = 0.05
"""Seconds after which the relay looks around at the latest."""

T = TypeVar('T')


def packets(size: int) -> list[int]:
    """Return the bytes on the network of each packet of a message of some bytes."""
    parts = range(0, max(size, 1), PACKET)
    return [min(PACKET, size - start) + (AROUND_FURTHER if start else AROUND) for start in parts]


@dataclass(frozen=True)
class Passed(Generic[T]):
    """A message at the end of a link.

    Attributes:
        item: the message.
        sent: when it was sent, in seconds.
        delay: seconds until it had arrived whole; None if it never does.
    """

    item: T
    sent: float
    delay: float | None


class PacedLink(Generic[T]):
    """A link for whole messages, of whose packets each has its own fate.

    Args:
        shape: what it is like.
        seed: of what is lost.
    """

    def __init__(self, shape: LinkShape, seed: int = 0) -> None:
        self._shape = shape
        self._random = random.Random(seed)
        self._queue: Bottleneck[_OnItsWay[T]] = Bottleneck(shape.rate, shape.queue)
        self._travelling: list[tuple[float, int, _OnItsWay[T]]] = []
        self._order = itertools.count()
        self._lost: list[Passed[T]] = []

    def offer(self, item: T, size: int, now: float) -> None:
        """Send a message of some bytes."""
        self._drain(now)
        sizes = packets(size)
        message = _OnItsWay(item, now, len(sizes))
        for size_on_link in sizes:
            # Lost on the radio: it takes its place in the queue all the same.
            message.lost |= self._random.random() < self._shape.loss
            message.lost |= not self._queue.offer(message, size_on_link, now)
        if message.lost:
            self._lost.append(Passed(item, now, None))

    def due(self) -> float:
        """Return when there is something to take; infinite if there is nothing on its way."""
        if self._lost:
            return float('-inf')
        arrival = self._travelling[0][0] if self._travelling else float('inf')
        return min(arrival, self._queue.due() + self._shape.delay)

    def take(self, now: float) -> list[Passed[T]]:
        """Return what has arrived until now, and what is known to be lost."""
        self._drain(now)
        passed, self._lost = self._lost, []
        while self._travelling and self._travelling[0][0] <= now:
            at, _, message = heapq.heappop(self._travelling)
            passed.append(Passed(message.item, message.sent, at - message.sent))
        return passed

    def _drain(self, now: float) -> None:
        for message, at in self._queue.take(now):
            message.missing -= 1
            if not message.missing and not message.lost:
                arrival = at + self._shape.delay
                heapq.heappush(self._travelling, (arrival, next(self._order), message))


@dataclass
class _OnItsWay(Generic[T]):
    item: T
    sent: float
    missing: int
    lost: bool = False


@dataclass(frozen=True)
class Relayed:
    """What became of a message of the edge.

    Attributes:
        stamp: seconds and nanoseconds of its header.
        delay: seconds on the link; None if it was lost.
    """

    stamp: tuple[int, int]
    delay: float | None


class PacedRelay:
    """A link between the edge's topics and the cloud's; a thread of its own keeps it in time.

    The cloud tells delays by the time at which a message was published, and that is now the
    relay's. So the relay puts its own into the reports.

    Args:
        shape: what the link is like.
        on_passed: called from its thread with what became of each message.
    """

    def __init__(self, shape: LinkShape, on_passed: Callable[[Relayed], None]) -> None:
        self._on_passed = on_passed
        self._delay = shape.delay
        self._link = PacedLink[bytes](shape)
        self._loss = shape.loss
        self._random = random.Random(1)
        self._reports: list[tuple[float, LinkReportMessage]] = []
        self._receiver = LinkReceiver(REPORT_PERIOD)
        self._node = node = Node('link')
        node.create_subscription(
            CompressedFeature, f'{EDGE_SIDE}/features', self._take_features, RELIABLE, raw=True
        )
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        node.create_subscription(
            LinkReportMessage, f'{CLOUD_SIDE}/link_report', self._take_report, best_effort
        )
        self._features = node.create_publisher(CompressedFeature, 'features', RELIABLE)
        self._report = node.create_publisher(LinkReportMessage, 'link_report', best_effort)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name='link')
        self._thread.start()

    def close(self) -> None:
        """End it; what is on its way never arrives."""
        self._ended.set()
        self._thread.join()
        self._executor.shutdown()
        self._node.destroy_node()

    def _run(self) -> None:
        while not self._ended.is_set():
            due = min(self._link.due(), self._reports[0][0] if self._reports else float('inf'))
            pause = min(max(due - time.monotonic(), 0.0), LOOK)
            self._executor.spin_once(timeout_sec=pause)
            self._let_out()

    def _take_features(self, data: bytes) -> None:
        self._link.offer(data, len(data), time.monotonic())

    def _take_report(self, message: LinkReportMessage) -> None:
        now = time.monotonic()
        merged = with_delay(report_from_message(message), self._receiver.report(now))
        if self._random.random() >= self._loss:
            self._reports.append((now + self._delay, report_to_message(merged, message.header)))

    def _let_out(self) -> None:
        now = time.monotonic()
        for passed in self._link.take(now):
            message: Any = deserialize_message(passed.item, CompressedFeature)
            stamp = message.header.stamp.sec, message.header.stamp.nanosec
            delay = None
            if passed.delay is not None:
                # As it is, should this process have been busy.
                delay = time.monotonic() - passed.sent
                self._features.publish(passed.item)
                self._receiver.note(
                    message.sequence, passed.sent, passed.sent + delay, len(passed.item)
                )
            self._on_passed(Relayed(stamp, delay))
        while self._reports and self._reports[0][0] <= now:
            self._report.publish(self._reports.pop(0)[1])


def with_delay(report: LinkReport, own: LinkReport) -> LinkReport:
    """Return a report of the cloud with what another says of delays."""
    return replace(
        report,
        delay=own.delay,
        delay_trend=own.delay_trend,
        delay_samples=own.delay_samples,
    )

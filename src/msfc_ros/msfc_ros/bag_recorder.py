"""Records compressed features into a bag, as they come from the middleware."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msfc_msgs.msg import CompressedFeature
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.validate_topic_name import validate_topic_name

from msfc.bags.definitions import FEATURES
from msfc.bags.writing import BagWriter
from msfc_ros.qos import Subscription
from msfc_ros.signal_context import tool_context

DISCOVERY_PERIOD = 0.5
"""Seconds between two looks for topics."""

SILENCE = 5.0
"""Seconds after which it says that there is nothing to record yet."""

QOS = QoSProfile(
    depth=100,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.BEST_AVAILABLE,
)
"""Deep, as messages may wait while the disk is slow."""


class Recorder(Node):
    """Subscribes to topics of compressed features and writes what comes.

    Args:
        writer: the bag.
        topics: names of the topics; by default every one of the type.
        limit: messages after which it records no more; 0 for no limit.
    """

    def __init__(self, writer: BagWriter, topics: Sequence[str] = (), limit: int = 0) -> None:
        super().__init__('msfc_bag_recorder')
        self._writer = writer
        self._topics = tuple(self.resolve_topic_name(topic) for topic in topics)
        self._limit = limit
        self._recorded: set[str] = set()
        self._recordings: list[Subscription] = []
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DISCOVERY_PERIOD, self._tick, clock=steady)
        self._patience = self.create_timer(SILENCE, self._tell_what_is_missing, clock=steady)

    @property
    def complete(self) -> bool:
        """Whether the limit is reached."""
        return bool(self._limit) and self._writer.count >= self._limit

    def discover(self) -> None:
        """Subscribe to what has appeared."""
        for topic, kinds in self.get_topic_names_and_types():
            wanted = topic in self._topics if self._topics else FEATURES in kinds
            if not wanted or topic in self._recorded:
                continue
            publishers = self.get_publishers_info_by_topic(topic)
            if not publishers:
                continue
            self._recorded.add(topic)
            if FEATURES not in kinds:
                self.get_logger().error(f'{topic} is {", ".join(kinds)}, not {FEATURES}')
                continue
            self._writer.add_topic(topic, FEATURES)
            self._recordings.append(
                Subscription(self, CompressedFeature, topic, QOS, self._callback(topic), raw=True)
            )
            self.get_logger().info(f'recording {topic}')

    def take_what_has_come(self, executor: SingleThreadedExecutor) -> None:
        """Record what the middleware has already received."""
        idle = 0
        # The two timers may be due as well.
        while not self.complete and idle < 3:
            before = self._writer.count
            executor.spin_once(timeout_sec=0)
            idle = idle + 1 if self._writer.count == before else 0

    def _tell_what_is_missing(self) -> None:
        self.destroy_timer(self._patience)
        missing = [topic for topic in self._topics if topic not in self._recorded]
        if missing or not self._recorded:
            what = ', '.join(missing) or f'a topic of type {FEATURES}'
            self.get_logger().warning(f'nobody publishes {what} yet: waiting')

    def _tick(self) -> None:
        self.discover()
        for recording in self._recordings:
            recording.follow()
        # Also while nothing comes.
        self._writer.flush_if_due()

    def _callback(self, topic: str) -> Callable[[bytes, dict[str, Any]], None]:
        # rclpy counts the arguments to know whether the callback wants the second one.
        def write(data: bytes, info: dict[str, Any]) -> None:
            if not self.complete:
                received = int(info['received_timestamp'])
                self._writer.write(topic, received or time.time_ns(), data)

        return write


def record(
    output: Path, topics: Sequence[str] = (), frames: int = 0, duration: float = 0.0
) -> int:
    """Record until SIGINT or SIGTERM, or a limit.

    Args:
        output: bag to make.
        topics: topics to record; by default every one of the type, whenever it appears.
        frames: messages after which it ends; 0 for no limit.
        duration: seconds after which it ends; 0 for no limit.

    Returns:
        How many messages were recorded.

    Raises:
        ValueError: if the bag exists, or a topic's name is not valid.
        OSError: if it cannot be written; what was written up to then can be read.
    """
    with tool_context() as stop:
        for topic in topics:
            validate_topic_name(topic)
        with BagWriter(output) as writer:
            node = Recorder(writer, topics, frames)
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            end = time.monotonic() + duration if duration else float('inf')
            try:
                while not stop.is_set() and not node.complete and time.monotonic() < end:
                    executor.spin_once(timeout_sec=0.1)
                node.take_what_has_come(executor)
            finally:
                executor.shutdown()
                node.destroy_node()
            return writer.count

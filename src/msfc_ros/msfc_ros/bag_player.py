"""Plays compressed features from a bag, for a cloud node to decode."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msfc_msgs.msg import CompressedFeature, InstanceArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message

from msfc.bags.definitions import output_topic
from msfc.bags.key_ledger import KeyLedger
from msfc.bags.reading import BagMessage, FeatureBag
from msfc_ros.signal_context import tool_context

QOS = QoSProfile(
    depth=10, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE
)

RESULT_PATIENCE = 20.0
"""Seconds that the instances of a message are waited for."""

FAREWELL = 0.5
"""Seconds that the middleware gets to deliver the last messages."""


class Player(Node):
    """Publishes the messages of a bag.

    Args:
        bag: the features.
        to: topic to publish on; empty for each message's own.
        each: whether the instances of each message are waited for.
        restamp: whether headers get the time of publishing.
    """

    def __init__(self, bag: FeatureBag, to: str, each: bool, restamp: bool) -> None:
        super().__init__('msfc_bag_player')
        self._restamp = restamp
        self._names = {topic: to or topic for topic in bag.topics}
        names = sorted(set(self._names.values()))
        self._out = {
            name: self.create_publisher(CompressedFeature, name, QOS) for name in names
        }
        self._awaited: tuple[int, int] | None = None
        self._answers = [output_topic(name, 'instances') for name in names] if each else []
        for name in self._answers:
            self.create_subscription(InstanceArray, name, self.note_result, QOS)
        self._each = each
        self._ledgers = {topic: KeyLedger() for topic in bag.topics}

    @property
    def missing(self) -> str:
        """Who is not there yet, in words; empty if everybody is."""
        unheard = [name for name, out in self._out.items() if not out.get_subscription_count()]
        if unheard:
            return f'nobody subscribed to {", ".join(unheard)}'
        silent = [name for name in self._answers if not self.count_publishers(name)]
        return f'nobody publishes {", ".join(silent)}' if silent else ''

    @property
    def waits(self) -> bool:
        """Whether the instances of each message are waited for."""
        return self._each

    @property
    def answered(self) -> bool:
        """Whether nothing is waited for."""
        return self._awaited is None

    def send(self, message: BagMessage) -> bool:
        """Publish a message; return whether it was one."""
        try:
            features = deserialize_message(message.data, CompressedFeature)
        except RuntimeError as error:
            self.get_logger().warning(
                f'left out {len(message.data)} bytes on {message.topic} that are no message of '
                f'this type: {error}'
            )
            return False
        ledger = self._ledgers[message.topic]
        if not ledger.note(features.sequence, features.reference) and ledger.orphans == 1:
            self.get_logger().warning(
                f'number {features.sequence} on {message.topic} is coded against key frame '
                f'{features.reference}, which is not before it in the bag: no receiver can '
                'decode it, nor others of the kind'
            )
        if self._restamp:
            features.header.stamp = self.get_clock().now().to_msg()
        if self._each:
            self._awaited = (features.header.stamp.sec, features.header.stamp.nanosec)
        publisher = self._out[self._names[message.topic]]
        publisher.publish(features if self._restamp else message.data)
        return True

    def give_up(self) -> None:
        """Wait no longer."""
        self._awaited = None

    def note_result(self, message: InstanceArray) -> None:
        """Take note of instances, which may be those that are waited for."""
        stamp = message.header.stamp
        if self._awaited == (stamp.sec, stamp.nanosec):
            self._awaited = None


def play(
    path: Path,
    topics: Sequence[str] = (),
    to: str = '',
    speed: float = 1.0,
    rate: float = 0.0,
    each: bool = False,
    restamp: bool = False,
    loop: bool = False,
    wait: float = 30.0,
) -> int:
    """Play a bag until its end, SIGINT or SIGTERM.

    Args:
        path: the bag.
        topics: the topics to play; by default all of compressed features.
        to: topic to publish on; empty for each message's own.
        speed: how many times as fast as it was recorded.
        rate: messages per second in place of the recorded times; 0 for these.
        each: send a message when the instances of the last have come, at no pace.
        restamp: give headers the time of publishing.
        loop: begin again at the end.
        wait: seconds to wait at most for subscribers and, with ``each``, who answers.

    Returns:
        How many messages were published.

    Raises:
        BagError: if the bag has no compressed features.
        ValueError: if nobody subscribes in time or, with ``each``, publishes instances; or the bag
            could not be read to its end.
    """
    with FeatureBag(path, topics) as bag, tool_context() as stop:
        node = Player(bag, to, each, restamp)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        performance = _Performance(bag, node, executor, stop)
        try:
            performance.wait_for_listeners(wait)
            while True:
                performance.once(speed, rate)
                if not loop or stop.is_set() or not performance.sent:
                    break
            performance.pause(time.monotonic() + FAREWELL)
        finally:
            executor.shutdown()
            node.destroy_node()
        if bag.damage:
            raise ValueError(f'{bag.damage}; {performance.sent} messages were played')
        return performance.sent


class _Performance:
    """A bag on its way out.

    Args:
        bag: the features.
        node: publishes them.
        executor: of the node.
        stop: set by a signal.
    """

    def __init__(
        self, bag: FeatureBag, node: Player, executor: Any, stop: threading.Event
    ) -> None:
        self._bag = bag
        self._node = node
        self._executor = executor
        self._stop = stop
        self.sent = 0

    def wait_for_listeners(self, patience: float) -> None:
        """Return when all who have to be there are, or a signal came.

        Raises:
            ValueError: if one is not there in time.
        """
        end = time.monotonic() + patience
        while (missing := self._node.missing) and not self._stop.is_set():
            if time.monotonic() > end:
                raise ValueError(
                    f'{missing} within {patience:g} s: is a cloud node there, and are its topics '
                    'these?'
                )
            self._executor.spin_once(timeout_sec=0.05)

    def once(self, speed: float, rate: float) -> None:
        """Play the bag once."""
        begin, first = time.monotonic(), None
        for index, message in enumerate(self._bag.messages()):
            first = message.time if first is None else first
            due = begin + (index / rate if rate else (message.time - first) * 1e-9 / speed)
            if self._node.waits:
                due = 0.0
            self.pause(due)
            if self._stop.is_set():
                return
            if self._node.send(message):
                self.sent += 1
                self._wait_for_result()

    def pause(self, until: float) -> None:
        """Spin until a time of the steady clock, or a signal."""
        while not self._stop.is_set():
            left = until - time.monotonic()
            self._executor.spin_once(timeout_sec=min(max(left, 0.0), 0.1))
            if left <= 0:
                return

    def _wait_for_result(self) -> None:
        end = time.monotonic() + RESULT_PATIENCE
        while not self._node.answered and not self._stop.is_set():
            self._executor.spin_once(timeout_sec=0.1)
            if time.monotonic() > end:
                self._node.get_logger().warning(
                    f'no instances of message {self.sent} within {RESULT_PATIENCE:g} s: going on'
                )
                self._node.give_up()

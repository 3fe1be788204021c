"""Listens to topics on one of two hosts, for the demo outside: what a program there can hear.

Takes the name of a topic a line on standard input, one of :data:`TOPICS`, and subscribes to it.
Writes to standard output what comes, as it was serialised, and now and then, as
:data:`GRAPH`, how many publish and subscribe to the images. It ends with its input.
"""

from __future__ import annotations

import json
import os
import queue
import struct
import sys
import threading
import time
from typing import IO, Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from msfc_msgs.msg import CompressedFeature, InstanceArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from msfc_ros.fast_dds import use_profile

TOPICS: dict[str, Any] = {
    'ground_truth': InstanceArray,
    'features': CompressedFeature,
    'instances': InstanceArray,
    '/diagnostics': DiagnosticArray,
    'image_raw': Image,
}
"""Topics that there are, and the types of their messages."""

GRAPH = 'graph'
"""Name of the records that say who publishes and who listens, in JSON."""

NAMES = (*TOPICS, GRAPH)

RECORD = struct.Struct('<BqI')
"""What stands before a record: place of its name in :data:`NAMES`, when it came in nanoseconds
since 1970, bytes that follow."""

LOOK = 0.2
"""Seconds between two looks at the graph."""


def read_record(stream: IO[bytes]) -> tuple[str, int, bytes] | None:
    """Return name, time and bytes of the next record; None at the end of a stream."""
    head = stream.read(RECORD.size)
    if len(head) < RECORD.size:
        return None
    place, received, size = RECORD.unpack(head)
    data = stream.read(size)
    return (NAMES[place], received, data) if len(data) == size else None


def write_record(stream: IO[bytes], name: str, data: bytes) -> None:
    """Write a record of what has just come."""
    stream.write(RECORD.pack(NAMES.index(name), time.time_ns(), len(data)) + data)
    stream.flush()


class Tap:
    """A node that writes down what it hears.

    Args:
        stream: where to.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._node = rclpy.create_node('demo')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._looked = 0.0

    def serve(self) -> None:
        """Listen until standard input ends."""
        topics: queue.SimpleQueue[str] = queue.SimpleQueue()

        def read() -> None:
            for line in sys.stdin:
                topics.put(line.strip())
            os._exit(0)

        threading.Thread(target=read, daemon=True).start()
        while True:
            self._executor.spin_once(timeout_sec=LOOK / 2)
            while not topics.empty():
                self._subscribe(topics.get())
            if time.monotonic() - self._looked >= LOOK:
                self._looked = time.monotonic()
                counts = {
                    'cameras': self._node.count_publishers('image_raw'),
                    'edges': self._node.count_subscribers('image_raw'),
                }
                write_record(self._stream, GRAPH, json.dumps(counts).encode())

    def _subscribe(self, topic: str) -> None:
        # The edge's messages are best effort in the demo, and the rest reliable.
        reliable = topic != 'features'
        qos = QoSProfile(
            depth=10,
            history=HistoryPolicy.KEEP_LAST,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        )
        self._node.create_subscription(
            TOPICS[topic],
            topic,
            lambda data: write_record(self._stream, topic, data),
            qos,
            raw=True,
        )


def main() -> None:
    """Serve until the end of the input."""
    use_profile()
    rclpy.init()
    Tap(sys.stdout.buffer).serve()


if __name__ == '__main__':
    main()

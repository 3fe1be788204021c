"""Runs on one of two hosts: stands in for the camera, listens to results and diagnostics.

Takes a question a line on standard input, ``["method", {arguments}]``, and prints an answer a
line, both JSON. It imports no torch, so that it starts fast, and ends with its input.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import sys
import threading
import time
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from msfc_msgs.msg import CompressedFeature, InstanceArray
from numpy.typing import NDArray
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from msfc_ros.fast_dds import use_profile
from msfc_ros.image_to_message import image_to_message

PICTURES = 4
"""Different pictures that a camera shows in turn."""

DEPTH = 1000
"""Messages that are kept for a subscriber that is slow."""


def picture(number: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return what the camera sees: blocks of random colours, H x W x 3, uint8."""
    rng = np.random.default_rng(number % PICTURES)
    blocks = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.kron(blocks, np.ones((8, 8, 1), np.uint8))


def digest(message: InstanceArray) -> str:
    """Return a digest of everything in a message but its header.

    Not of the serialised message: its padding bytes may have any value.
    """
    total = hashlib.sha256(repr((message.image_height, message.image_width)).encode())
    for item in message.instances:
        place = (item.x, item.y, item.width, item.height)
        total.update(repr((item.id, item.class_id, item.class_name, item.score, place)).encode())
        total.update(item.mask)
        total.update(item.packed_mask)
    return total.hexdigest()


class Agent:
    """A node with a camera and ears; every public method answers a question."""

    def __init__(self) -> None:
        self._node = rclpy.create_node('agent')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._status: dict[str, dict[str, Any]] = {}
        self._results: list[list[Any]] = []
        self._published: list[list[int]] = []
        self._camera: Any = None
        self._timer: Any = None
        self._size = (0, 0)
        self._left = 0
        reliable = QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.RELIABLE)
        self._reliable = reliable
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._diagnosed, reliable)

    def serve(self) -> None:
        """Answer questions until there are no more."""
        questions: queue.SimpleQueue[str] = queue.SimpleQueue()
        guard = self._node.create_guard_condition(lambda: None)

        def read() -> None:
            for line in sys.stdin:
                questions.put(line)
                guard.trigger()
            os._exit(0)

        threading.Thread(target=read, daemon=True).start()
        while True:
            self._executor.spin_once(timeout_sec=0.1)
            while not questions.empty():
                what, arguments = json.loads(questions.get())
                print(json.dumps(getattr(self, what)(**arguments)), flush=True)

    # -- questions --

    def ready(self) -> bool:
        """Say that it is there."""
        return True

    def counterparts(self, topic: str) -> list[int]:
        """Return how many publishers and subscribers of a topic are known."""
        return [self._node.count_publishers(topic), self._node.count_subscribers(topic)]

    def diagnostics(self) -> dict[str, dict[str, Any]]:
        """Return the last status of each task: level, message, values, when it came."""
        return self._status

    def forget(self, task: str) -> bool:
        """Forget the last status of a task."""
        self._status.pop(task, None)
        return True

    def listen(self) -> bool:
        """Begin to listen to the instances."""
        self._node.create_subscription(InstanceArray, 'instances', self._found, self._reliable)
        return True

    def record(self, reliability: str) -> bool:
        """Begin to listen to the features, as a recorder would."""
        qos = QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy[reliability.upper()])
        self._node.create_subscription(CompressedFeature, 'features', lambda message: None, qos)
        return True

    def results(self, start: int) -> list[list[Any]]:
        """Return the results from one on.

        Each is a list: frame, seconds and nanoseconds of its header, digest, time of arrival in
        seconds since 1970.
        """
        return self._results[start:]

    def film(self, height: int, width: int, rate: float, count: int) -> bool:
        """Begin to publish images, reliably.

        Args:
            height: of the images, in pixels.
            width: of the images, in pixels.
            rate: images per second.
            count: how many; 0 for as many as there is time for.
        """
        self.stop()
        if self._camera is None:
            qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
            self._camera = self._node.create_publisher(Image, 'image_raw', qos)
        self._size, self._left = (height, width), count or -1
        self._timer = self._node.create_timer(1 / rate, self._shoot)
        return True

    def resume(self, published: list[list[int]]) -> bool:
        """Count on from what a camera before this one published."""
        self._published = published
        return True

    def stop(self) -> bool:
        """Publish no more images."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None
        return True

    def filming(self) -> bool:
        """Return whether there are images to come."""
        return self._timer is not None

    def published(self) -> list[list[int]]:
        """Return the headers of all images that were published: seconds and nanoseconds."""
        return self._published

    def set_parameter(self, node: str, name: str, value: Any) -> str:
        """Set a parameter of a node; return why it could not be, or nothing."""
        client = self._node.create_client(SetParameters, f'{node}/set_parameters')
        try:
            if not client.wait_for_service(20.0):
                return 'no such node'
            request = SetParameters.Request()
            request.parameters = [Parameter(name, value=value).to_parameter_msg()]
            for _ in range(5):
                future = client.call_async(request)
                self._executor.spin_until_future_complete(future, 5.0)
                if future.done():
                    result = future.result().results[0]
                    return '' if result.successful else result.reason or 'refused'
            return 'no answer'
        finally:
            self._node.destroy_client(client)

    # -- callbacks --

    def _shoot(self) -> None:
        number = len(self._published)
        now = time.time_ns()
        header = Header(frame_id=f'camera_{number:06}')
        header.stamp.sec, header.stamp.nanosec = now // 10**9, now % 10**9
        self._published.append([header.stamp.sec, header.stamp.nanosec])
        self._camera.publish(image_to_message(picture(number, *self._size), header, 'bgr8'))
        self._left -= 1
        if self._left == 0:
            self.stop()

    def _found(self, message: InstanceArray) -> None:
        header = message.header
        self._results.append(
            [
                header.frame_id,
                header.stamp.sec,
                header.stamp.nanosec,
                digest(message),
                time.time(),
            ]
        )

    def _diagnosed(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self._status[status.name.split(': ')[-1]] = {
                'level': status.level[0] if isinstance(status.level, bytes) else status.level,
                'message': status.message,
                'values': {item.key: item.value for item in status.values},
                'time': time.time(),
            }


def main() -> None:
    """Serve until the end of the input."""
    use_profile()
    rclpy.init()
    Agent().serve()


if __name__ == '__main__':
    main()

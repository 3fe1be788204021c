"""How many messages arrive between processes that nobody has set up for each other.

Two measurements, each with a process for everybody. *Images*: a plain rclpy camera (reliable,
depth 10, no profile of Fast DDS) in front of a working `edge_node`; counted is what reached it.
*Results*: a planner that takes `instances` from `cloud_node` while a viewer takes overlay and
label map; counted is what each of them got of the frames that the cloud decoded:

    python benchmarks/delivery.py --json delivery.json

Needs ROS 2 (scripts/setup.sh) and nothing else to do on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from ament_index_python.packages import get_package_share_directory
from diagnostic_msgs.msg import DiagnosticArray
from msfc_msgs.msg import CompressedFeature, InstanceArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rich.console import Console
from rich.table import Table
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from msfc_demo.processes import NodeError, NodeProcesses, private_environment
from msfc_ros.fast_dds import VARIABLES, use_profile
from msfc_ros.image_to_message import image_to_message

STREAMS = ((640, 480, 5.0), (640, 480, 15.0), (1280, 720, 10.0))
"""Width, height and rate of the cameras."""

VIEWED = (640, 480, 3.0)
"""Width and height of the images whose results are viewed, and how many come per second."""

PATIENCE = 120.0
"""Seconds until a process has to be ready."""

SETTLE = 3.0
"""Seconds in which what is on its way may still come."""


class Watch:
    """Listens to the diagnostics: how often the nodes counted what."""

    def __init__(self) -> None:
        self.node: Node = rclpy.create_node('watch')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._counts: dict[str, dict[str, str]] = {}
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._note, 10)

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.node.destroy_node()

    def count(self, task: str, name: str) -> int:
        """Return a count of a task, 0 if it is not there."""
        return int(self._counts.get(task, {}).get(name, 0))

    def spin(self, seconds: float) -> None:
        """Take what comes for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def wait(self, condition: Callable[[], object], processes: NodeProcesses, what: str) -> None:
        """Spin until a condition holds.

        Raises:
            NodeError: if it does not in time, or a node has died.
        """
        end = time.monotonic() + PATIENCE
        while not condition():
            processes.check()
            if time.monotonic() > end:
                raise NodeError(f'waited {PATIENCE:g} s in vain for {what}')
            self.spin(0.1)

    def _note(self, message: DiagnosticArray) -> None:
        for status in message.status:
            task = status.name.rpartition(': ')[2]
            self._counts[task] = {item.key: item.value for item in status.values}


# -- the other processes --


def camera(width: int, height: int, rate: float, seconds: float) -> None:
    """Publish images as soon as somebody subscribes; print how many."""
    node = rclpy.create_node('camera')
    qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
    publisher = node.create_publisher(Image, 'image_raw', qos)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image = image_to_message(pixels, Header(), 'bgr8')
    while not publisher.get_subscription_count():
        time.sleep(0.1)
    time.sleep(2.0)
    number = round(rate * seconds)
    start = time.monotonic()
    for index in range(number):
        time.sleep(max(0.0, start + index / rate - time.monotonic()))
        image.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(image)
    time.sleep(SETTLE)
    print(json.dumps({'sent': number}), flush=True)


def listen(kinds: dict[str, type]) -> None:
    """Take topics until the end; print how many messages of each came."""
    node = rclpy.create_node('listener_' + '_'.join(kinds))
    counts = dict.fromkeys(kinds, 0)

    def subscribe(topic: str, kind: type) -> None:
        def received(message: Any) -> None:
            counts[topic] += 1

        node.create_subscription(kind, topic, received, 10)

    for topic, kind in kinds.items():
        subscribe(topic, kind)
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    print(json.dumps(counts), flush=True)


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start this file in another role, in an environment without a profile of Fast DDS."""
    environment = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def answer(process: subprocess.Popen[str], timeout: float) -> dict[str, int]:
    """Return what a process printed."""
    output, _ = process.communicate(timeout=timeout)
    return dict(json.loads(output.splitlines()[-1]))


# -- measurements --


def images(
    watch: Watch, processes: NodeProcesses, reliability: str, stream: tuple[int, int, float],
    seconds: float,
) -> dict[str, Any]:
    """Measure a camera in front of the edge."""
    config = Path(get_package_share_directory('msfc')) / 'config'
    parameters = {'qos.image.reliability': reliability, 'device': 'cpu', 'threads': 1}
    processes.start('edge', 'msfc_edge', 'edge_node', config / 'edge.yaml', parameters)
    watch.wait(lambda: watch.node.count_subscribers('image_raw'), processes, 'the edge')
    # Somebody has to listen, for the edge to work.
    features = watch.node.create_subscription(CompressedFeature, 'features', lambda m: None, 10)
    other = start('camera', *stream, seconds)
    try:
        while other.poll() is None:
            watch.spin(0.5)
        sent = answer(other, PATIENCE)['sent']
        watch.spin(SETTLE)
    finally:
        other.kill()
        processes.stop()
        watch.node.destroy_subscription(features)
    width, height, rate = stream
    return {
        'size': f'{width} x {height}', 'rate': rate, 'reliability': reliability, 'sent': sent,
        'received': watch.count('encoding', 'received'), 'lost': watch.count('encoding', 'lost'),
    }  # fmt: skip


def results(
    watch: Watch, processes: NodeProcesses, depth: int, seconds: float
) -> dict[str, Any]:
    """Measure a planner and a viewer behind the cloud."""
    from msfc.model_file import load_model
    from msfc.pipeline.torch_network import edge_pipeline
    from msfc_ros.messages import packet_to_message

    width, height, rate = VIEWED
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    packet = edge_pipeline(load_model()).encode(pixels)
    config = Path(get_package_share_directory('msfc')) / 'config'
    parameters = {'qos.output.depth': depth, 'device': 'cpu', 'threads': 1}
    processes.start('cloud', 'msfc_cloud', 'cloud_node', config / 'cloud.yaml', parameters)
    features = watch.node.create_publisher(CompressedFeature, 'features', 10)
    others = [start('planner'), start('viewer')]
    try:
        topics = ('instances', 'overlay', 'label_map')
        watch.wait(
            lambda: (
                features.get_subscription_count()
                and all(watch.node.count_subscribers(topic) for topic in topics)
            ),
            processes,
            'everybody',
        )
        watch.spin(2.0)
        for number in range(round(rate * seconds)):
            stamp = watch.node.get_clock().now().to_msg()
            message = packet_to_message(packet, Header(stamp=stamp))
            message.sequence = number
            features.publish(message)
            watch.spin(1 / rate)
        watch.spin(SETTLE)
        for other in others:
            other.send_signal(signal.SIGINT)
        counts = {k: v for other in others for k, v in answer(other, PATIENCE).items()}
    finally:
        for other in others:
            other.kill()
        processes.stop()
        watch.node.destroy_publisher(features)
    return {'depth': depth, 'decoded': watch.count('decoding', 'decoded'), **counts}


def show(figures: dict[str, list[dict[str, Any]]], console: Console) -> None:
    """Print a table of each measurement."""
    for title, rows in figures.items():
        if rows:
            table = Table(title=title)
            for name in rows[0]:
                table.add_column(name, justify='right')
            for row in rows:
                table.add_row(*map(str, row.values()))
            console.print(table)


def measure(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Make all measurements, each with nodes and a graph of its own."""
    figures: dict[str, list[dict[str, Any]]] = {'images': [], 'results': []}
    plan: list[tuple[str, Callable[[Watch, NodeProcesses], dict[str, Any]]]] = [
        ('images', lambda w, p, r=r, s=s: images(w, p, r, s, options.seconds))
        for r in options.reliability
        for s in STREAMS
    ]
    plan += [
        ('results', lambda w, p, d=d: results(w, p, d, options.seconds)) for d in options.depth
    ]
    for title, one in plan:
        with tempfile.TemporaryDirectory() as folder:
            environment = private_environment(Path(folder))
            os.environ.update(environment)
            use_profile()
            rclpy.init(args=[])
            watch = Watch()
            try:
                with NodeProcesses(Path(folder), environment) as processes:
                    figures[title].append(one(watch, processes))
            finally:
                watch.close()
                rclpy.try_shutdown()
    return figures


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n\n')[0])
    parser.add_argument(
        '--reliability', nargs='*', default=['best_effort', 'best_available'],
        help='what the edge asks its camera for (default best_effort best_available)',
    )  # fmt: skip
    parser.add_argument(
        '--depth', nargs='*', type=int, default=[1, 10],
        help='qos.output.depth of the cloud (default 1 10)',
    )  # fmt: skip
    parser.add_argument('--seconds', type=float, default=15.0, help='per measurement (15)')
    parser.add_argument('--json', type=Path, help='write the figures into this file')
    options = parser.parse_args()
    console = Console()
    try:
        figures = measure(options)
    except (NodeError, OSError) as error:
        console.print(f'error: {error}', style='red', highlight=False, soft_wrap=True)
        return 1
    show(figures, console)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + '\n', encoding='utf-8')
    return 0


def play_role(role: str, arguments: list[str]) -> int:
    """Be one of the other processes."""
    rclpy.init(args=[])
    if role == 'camera':
        width, height, rate, seconds = arguments
        camera(int(width), int(height), float(rate), float(seconds))
    elif role == 'planner':
        listen({'instances': InstanceArray})
    else:
        listen({'overlay': Image, 'label_map': Image})
    return 0


if __name__ == '__main__':
    if len(sys.argv) > 1 and sys.argv[1] in ('camera', 'planner', 'viewer'):
        sys.exit(play_role(sys.argv[1], sys.argv[2:]))
    sys.exit(main())

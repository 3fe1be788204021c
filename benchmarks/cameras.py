"""How one cloud node serves several cameras: 1, 2, 4 and 8 of them, one by one and at once.

For each number of cameras and each `max_batch` a cloud node is started as a process of its own.
This process plays the edges: for each camera it publishes the shipped clip's compressed features,
made beforehand, at a steady rate, each camera with a phase of its own, and takes the instances
back. Shown are, side by side from one run: frames per second offered and answered, in all and of
the cameras that got least and most (their ratio is the fairness), and the time from publishing
features to receiving their instances. Every answer is checked for its camera's header and for the
order of its stamps.

Needs ROS 2 (scripts/setup.sh) and nothing else to do on the machine:

    python benchmarks/cameras.py --json cameras.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import rclpy
from msfc_msgs.msg import CompressedFeature, InstanceArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rich.console import Console
from rich.table import Table
from std_msgs.msg import Header

import harness
from msfc.model_file import load_model
from msfc.pipeline.torch_network import edge_pipeline
from msfc.wire.packet import FeaturePacket
from msfc.zoo import DEFAULT_MODEL
from msfc_demo.processes import NodeError
from msfc_ros.messages import packet_to_message

QOS = QoSProfile(depth=10)

START_PATIENCE = 300.0
"""Seconds until the node has to be ready."""

WARM_UP = 2.0
"""Seconds before the measurement in which frames are sent as well."""


@dataclass
class CameraCount:
    """What one camera sent and got back.

    Attributes:
        sent: frames that were published.
        answered: frames whose instances came back.
        disordered: answers whose stamp was not newer than the one before.
        foreign: answers with another camera's header.
        latencies: milliseconds from publishing the features to receiving the instances.
    """

    sent: int = 0
    answered: int = 0
    disordered: int = 0
    foreign: int = 0
    latencies: list[float] = field(default_factory=list)


class Edge:
    """Plays a camera with its edge: publishes made features, listens to the instances.

    Args:
        node: the node.
        name: namespace of the camera; empty for none.
        packets: what is sent, round and round.
    """

    def __init__(self, node: Node, name: str, packets: list[FeaturePacket]) -> None:
        self.count = CameraCount()
        self._node, self._packets = node, packets
        self._frame_id = f'{name}_optical_frame'
        self._sent_at: dict[int, float] = {}
        self._sequence = 0
        self._newest = -1
        prefix = f'{name}/' if name else ''
        self._features = node.create_publisher(CompressedFeature, f'{prefix}features', QOS)
        self._instances = node.create_subscription(
            InstanceArray, f'{prefix}instances', self._found, QOS
        )

    def ready(self) -> bool:
        """Whether the cloud is there."""
        return (
            self._features.get_subscription_count() > 0
            and self._node.count_publishers(self._instances.topic_name) > 0
        )

    def restart(self) -> None:
        """Count from now on."""
        self.count = CameraCount()

    def send(self) -> None:
        """Publish the next frame; its number is its stamp."""
        packet = self._packets[self._sequence % len(self._packets)]
        header = Header(frame_id=self._frame_id)
        header.stamp.sec = self._sequence + 1
        message = packet_to_message(packet, header)
        message.sequence = self._sequence
        self._sent_at[header.stamp.sec] = time.perf_counter()
        self._sequence += 1
        self.count.sent += 1
        self._features.publish(message)

    def close(self) -> None:
        """Leave the graph."""
        self._node.destroy_publisher(self._features)
        self._node.destroy_subscription(self._instances)

    def _found(self, message: InstanceArray) -> None:
        now, stamp = time.perf_counter(), message.header.stamp.sec
        self.count.answered += 1
        self.count.disordered += stamp <= self._newest
        self.count.foreign += message.header.frame_id != self._frame_id
        self._newest = stamp
        if stamp in self._sent_at:
            self.count.latencies.append((now - self._sent_at.pop(stamp)) * 1e3)


def play(
    executor: SingleThreadedExecutor, edges: list[Edge], rate: float, seconds: float
) -> float:
    """Let all edges send at a rate for a while; return the seconds that it took."""
    start = time.perf_counter()
    # Evenly spread, as cameras that nobody synchronises are.
    due = [start + index / (rate * len(edges)) for index in range(len(edges))]
    while (now := time.perf_counter()) < start + seconds:
        for index, edge in enumerate(edges):
            if now >= due[index]:
                edge.send()
                due[index] += 1 / rate
        executor.spin_once(timeout_sec=max(0.0, min(min(due) - time.perf_counter(), 0.01)))
    return time.perf_counter() - start


def summarise(counts: list[CameraCount], seconds: float, batch: int) -> dict[str, Any]:
    """Return the figures of one setting."""
    latencies = [value for count in counts for value in count.latencies]
    answered = [count.answered / seconds for count in counts]
    return {
        'cameras': len(counts),
        'max_batch': batch,
        'seconds': seconds,
        'offered_hz': sum(count.sent for count in counts) / seconds,
        'answered_hz': sum(answered),
        'least_hz': min(answered),
        'most_hz': max(answered),
        'latency_ms': {
            'p50': statistics.median(latencies) if latencies else None,
            'p95': float(np.percentile(latencies, 95)) if latencies else None,
        },
        'disordered': sum(count.disordered for count in counts),
        'foreign_headers': sum(count.foreign for count in counts),
        'per_camera': [
            {name: value for name, value in asdict(count).items() if name != 'latencies'}
            for count in counts
        ],
    }


def measure(
    options: argparse.Namespace, cameras: int, batch: int, packets: list[FeaturePacket]
) -> dict[str, Any]:
    """Start a cloud node for so many cameras, let them play, end it; return the figures.

    Raises:
        NodeError: if the node cannot be started or does not come up.
    """
    names = [f'camera{index}' for index in range(cameras)]
    with harness.ros_session() as processes:
        harness.start_half(processes, 'cloud', {
            **harness.node_parameters(options), 'cameras': names, 'max_batch': batch
        })
        node = rclpy.create_node('edges')
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            edges = [Edge(node, name, packets) for name in names]
            end = time.monotonic() + START_PATIENCE
            while not all(edge.ready() for edge in edges):
                processes.check()
                if time.monotonic() > end:
                    raise NodeError(f'the cloud is not ready after {START_PATIENCE:g} s')
                executor.spin_once(timeout_sec=0.05)
            play(executor, edges, options.rate, WARM_UP)
            for edge in edges:
                edge.restart()
            seconds = play(executor, edges, options.rate, options.seconds)
            return summarise([edge.count for edge in edges], seconds, batch)
        finally:
            executor.shutdown()
            node.destroy_node()


def show(results: list[dict[str, Any]], console: Console) -> None:
    """Print the figures, the rates also as multiples of the first line's."""
    table = Table(title='One cloud node, several cameras')
    for title in (
        'cameras', 'max batch', 'Hz in', 'Hz out', 'x first', 'least / most', 'p50 ms', 'p95 ms',
        'out of order',
    ):
        table.add_column(title, justify='right')
    first = results[0]['answered_hz']
    for result in results:
        fairness = result['least_hz'] / result['most_hz'] if result['most_hz'] else 0.0
        latency = result['latency_ms']
        table.add_row(
            str(result['cameras']),
            str(result['max_batch']),
            f'{result["offered_hz"]:.1f}',
            f'{result["answered_hz"]:.1f}',
            f'{result["answered_hz"] / first:.2f}' if first else '',
            f'{fairness:.2f}',
            *('' if latency[p] is None else f'{latency[p]:.0f}' for p in ('p50', 'p95')),
            str(result['disordered'] + result['foreign_headers']),
        )
    console.print(table)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure all settings.

    Raises:
        NodeError: if a node cannot be started.
        ValueError: if model or clip cannot be read.
    """
    model = load_model(options.model, options.device)
    edge = edge_pipeline(model)
    packets = [edge.encode(frame) for frame in harness.clip_frames()]
    results = []
    for cameras in options.cameras:
        for batch in sorted({min(batch, cameras) for batch in options.batches}):
            console.print(f'{cameras} cameras, {batch} at once')
            results.append(measure(options, cameras, batch, packets))
    show(results, console)
    return {
        'model': model.fingerprint,
        'device': str(model.detector.device),
        'threads': options.threads,
        **harness.describe_machine(),
        'rate_hz': options.rate,
        'results': results,
    }


def main() -> int:
    """Run from the command line."""
    parser = harness.make_parser(__doc__)
    harness.add_node_options(parser, DEFAULT_MODEL)
    parser.add_argument(
        '--cameras', type=int, nargs='+', default=[1, 2, 4, 8], help='numbers of cameras'
    )
    parser.add_argument(
        '--batches', type=int, nargs='+', default=[1, 8], help='values of max_batch'
    )
    parser.add_argument(
        '--rate', type=float, default=10.0, help='frames per second of a camera (default 10)'
    )
    parser.add_argument(
        '--seconds', type=float, default=30.0, help='per measurement (default 30)'
    )
    options = parser.parse_args()
    if min(options.cameras) < 1 or min(options.batches) < 1:
        parser.error('--cameras and --batches must be at least 1')
    if options.rate <= 0 or options.seconds <= 0:
        parser.error('--rate and --seconds must be more than 0')
    figures = harness.run_benchmark(options, run)
    if figures is None:
        return 1
    wrong = sum(
        result['disordered'] + result['foreign_headers'] for result in figures['results']
    )
    if wrong:
        print(f'error: {wrong} answers with a wrong header or out of order')
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())

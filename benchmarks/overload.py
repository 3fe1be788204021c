"""How old results are when the camera is faster than the pair: as old as one at a time, or older?

Starts `edge_node` and `cloud_node` as processes of their own and plays the shipped clip to them:
first one image at a time, each sent when the instances of the one before are here, which gives the
latency of an idle pair; then at steady rates that are multiples of what that came to. A pair with
queues would fall behind more and more; one that keeps the latest frame only is behind by the frame
that waits at each of the two nodes, and works all the time:

    python benchmarks/overload.py --json overload.json

Needs ROS 2 (scripts/setup.sh) and nothing else to do on the machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
import rclpy
from msfc_msgs.msg import InstanceArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rich.console import Console
from rich.table import Table
from sensor_msgs.msg import Image
from std_msgs.msg import Header

import harness
from msfc.zoo import DEFAULT_MODEL
from msfc_demo.processes import NodeError
from msfc_ros.image_to_message import image_to_message

QOS = QoSProfile(depth=1)

START_PATIENCE = 300.0
"""Seconds until the first result has to be there."""

ANSWER_PATIENCE = 30.0
"""Seconds that a result is waited for."""

WARM_UP = 3.0
"""Seconds before each measurement in which images are sent as well."""


class Player:
    """Sends images with stamps of their own, notes when the instances of each are here."""

    def __init__(self) -> None:
        self._node: Node = rclpy.create_node('player')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._pictures = [
            image_to_message(frame, Header(), 'bgr8') for frame in harness.clip_frames()
        ]
        self._images = self._node.create_publisher(Image, 'image_raw', QOS)
        self._node.create_subscription(InstanceArray, 'instances', self._found, QOS)
        self._sent: dict[int, float] = {}
        self._number = 0
        self.answered = 0
        self.latencies: list[float] = []

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()

    def restart(self) -> None:
        """Count from now on."""
        self.answered, self.latencies = 0, []

    def send(self) -> None:
        """Publish the next image; its number is its stamp."""
        image = self._pictures[self._number % len(self._pictures)]
        self._number += 1
        image.header.stamp.sec = self._number
        self._sent[self._number] = time.perf_counter()
        self._images.publish(image)

    def spin(self, seconds: float) -> None:
        """Take what has come, for a while at most."""
        self._executor.spin_once(timeout_sec=max(0.0, seconds))

    def ask(self) -> bool:
        """Send one image; return whether its result came in time."""
        before = self.answered
        self.send()
        end = time.perf_counter() + ANSWER_PATIENCE
        while self.answered == before and time.perf_counter() < end:
            self.spin(0.05)
        return self.answered > before

    def play(self, rate: float, seconds: float) -> float:
        """Send at a rate for a while; return the seconds that it took."""
        start = due = time.perf_counter()
        while (now := time.perf_counter()) < start + seconds:
            if now >= due:
                self.send()
                due += 1 / rate
            self.spin(min(due - time.perf_counter(), 0.01))
        return time.perf_counter() - start

    def _found(self, message: InstanceArray) -> None:
        now = time.perf_counter()
        self.answered += 1
        sent = self._sent.pop(message.header.stamp.sec, None)
        if sent is not None:
            self.latencies.append((now - sent) * 1e3)


def summarise(name: str, offered: float, player: Player, seconds: float) -> dict[str, Any]:
    """Return the figures of one measurement; times in milliseconds, rates in Hz."""
    values = player.latencies
    return {
        'load': name,
        'offered_hz': offered,
        'answered_hz': player.answered / seconds,
        'latency_ms': {
            'p50': float(np.percentile(values, 50)),
            'p95': float(np.percentile(values, 95)),
            'max': max(values),
        },
        # A queue shows as a rise within the measurement.
        'p50_first_half_ms': float(np.percentile(values[: len(values) // 2 + 1], 50)),
        'p50_second_half_ms': float(np.percentile(values[len(values) // 2 :], 50)),
        'frames': len(values),
    }


def measure(player: Player, loads: list[float], seconds: float) -> list[dict[str, Any]]:
    """Measure one at a time, then at multiples of that rate.

    Raises:
        NodeError: if no result comes.
    """
    player.restart()
    start = time.perf_counter()
    while time.perf_counter() < start + seconds:
        if not player.ask():
            raise NodeError(f'no result within {ANSWER_PATIENCE:g} s')
    took = time.perf_counter() - start
    results = [summarise('one at a time', player.answered / took, player, took)]
    base = results[0]['answered_hz']
    for load in loads:
        player.play(load * base, WARM_UP)
        player.restart()
        took = player.play(load * base, seconds)
        if not player.latencies:
            raise NodeError(f'no result in {seconds:g} s at {load * base:.1f} images per second')
        results.append(summarise(f'{load:g} x', load * base, player, took))
    return results


def show(results: list[dict[str, Any]], console: Console) -> None:
    """Print the figures, also as multiples of the idle pair's."""
    table = Table(title='The pair under load')
    for title in (
        'load', 'Hz in', 'Hz out', 'p50 ms', 'p95 ms', 'max ms', 'p50 / idle', '2nd / 1st half',
        'Hz out / idle',
    ):
        table.add_column(title, justify='right')
    idle = results[0]
    for result in results:
        latency = result['latency_ms']
        table.add_row(
            result['load'],
            *(f'{result[name]:.1f}' for name in ('offered_hz', 'answered_hz')),
            *(f'{latency[name]:.0f}' for name in ('p50', 'p95', 'max')),
            f'{latency["p50"] / idle["latency_ms"]["p50"]:.2f}',
            f'{result["p50_second_half_ms"] / result["p50_first_half_ms"]:.2f}',
            f'{result["answered_hz"] / idle["answered_hz"]:.2f}',
        )
    console.print(table)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Start the pair, measure, end it; return the figures.

    Raises:
        NodeError: if the nodes cannot be started or give no answer.
        ClipError: if the clip cannot be read.
    """
    with harness.ros_session() as processes:
        # What is lost on the way to the edge would be counted as the pair's.
        special = {'edge': {'qos.image.reliability': 'reliable'}, 'cloud': {}}
        for half, parameters in special.items():
            harness.start_half(
                processes, half, {**harness.node_parameters(options), **parameters}
            )
        player = Player()
        try:
            end = time.monotonic() + START_PATIENCE
            while not player.latencies:
                processes.check()
                if time.monotonic() > end:
                    raise NodeError(f'no result within {START_PATIENCE:g} s')
                player.play(2.0, 1.0)
            results = measure(player, options.loads, options.seconds)
        finally:
            player.close()
    show(results, console)
    return {
        'model': options.model,
        'device': options.device,
        'threads': options.threads,
        **harness.describe_machine(),
        'results': results,
    }


def main() -> int:
    """Run from the command line."""
    parser = harness.make_parser(__doc__)
    harness.add_node_options(parser, DEFAULT_MODEL, threads=1)
    parser.add_argument(
        '--loads', type=float, nargs='+', default=[1, 2, 4],
        help="camera rates as multiples of the idle pair's (default 1 2 4)",
    )
    parser.add_argument(
        '--seconds', type=float, default=20.0, help='per measurement (default 20)'
    )
    options = parser.parse_args()
    if min(options.loads) <= 0 or options.seconds <= 0:
        parser.error('--loads and --seconds must be more than 0')
    return 0 if harness.run_benchmark(options, run) else 1


if __name__ == '__main__':
    sys.exit(main())

"""How soon images reach a process that takes the place of a killed one, and whether at all.

A camera publishes images of 640 x 480; a listener, one process after the other, is killed by
`kill -9` while they arrive and started again at once. With `--plain` listeners take the ports that
they get, as any ROS 2 node does, and nobody looks after the killed ones' queues; without, they are
set up as the project's nodes are (docs/network.md). Where no image comes for a while, that counts
as a stall, and the camera is killed and started again.

With nothing else to do on the machine:

    python benchmarks/kills.py --kills 100
    python benchmarks/kills.py --kills 100 --plain
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

SIZE = 640, 480

PATIENCE = 20.0
"""Seconds without an image that are a stall."""


def film(rate: float) -> None:
    """Be the camera: publish until killed."""
    import rclpy
    from sensor_msgs.msg import Image

    from msfc_ros.fast_dds import use_profile

    use_profile(sends_images=True)
    rclpy.init(args=[])
    node = rclpy.create_node('camera')
    publisher = node.create_publisher(Image, 'image_raw', 10)
    width, height = SIZE
    image = Image(width=width, height=height, encoding='bgr8', step=3 * width)
    image.data = bytes(3 * width * height)
    node.create_timer(1 / rate, lambda: publisher.publish(image))
    rclpy.spin(node)


def listen(plain: bool) -> None:
    """Be a listener: say when it has subscribed, and when the first image comes."""
    from msfc_ros.fast_dds import use_profile
    from msfc_ros.fast_dds_queues import (
        dead_graph_ports_avoided,
        domain_of_environment,
        release_queues,
    )
    from msfc_ros.participants import held_participant

    if not plain:
        release_queues(domain_of_environment() or 0)
    with nullcontext(None) if plain else held_participant() as number:
        use_profile(participant=number)
        import rclpy
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import Image

        rclpy.init(args=[])
        with nullcontext() if plain else dead_graph_ports_avoided():
            node = rclpy.create_node('listener')
        node.create_subscription(
            Image, 'image_raw', lambda image: print('image', flush=True), qos_profile_sensor_data
        )
        print('subscribed', flush=True)
        rclpy.spin(node)


def end_with_parent() -> None:
    """End this process when the one that has started it is gone."""
    sys.stdin.read()
    os._exit(0)


class Role:
    """This file as a process of its own, killed on leaving."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Role:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def wait_for(self, line: str, seconds: float) -> float | None:
        """Return how long it took until it said something; None if it did not."""
        begin = time.monotonic()
        while line not in self._lines:
            if time.monotonic() - begin > seconds:
                return None
            if self._process.poll() is not None:
                raise ValueError(f'a process ended before {line!r}; its error is above')
            time.sleep(0.005)
        return time.monotonic() - begin

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._lines.extend(line.strip() for line in iter(self._process.stdout.readline, ''))


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Kill listeners; return figures."""
    from harness import describe_machine
    from msfc_demo.processes import private_environment

    waits: list[float] = []
    starts: list[float] = []
    stalls = 0
    kind = 'plain' if options.plain else 'ours'
    with tempfile.TemporaryDirectory() as folder, ExitStack() as cameras:
        os.environ.update(private_environment(Path(folder)))
        cameras.enter_context(Role('film', str(options.rate)))
        for _ in track(range(options.kills + 1), 'kills', console=console):
            with Role('listen', kind) as listener:
                starts.append(listener.wait_for('subscribed', 60.0) or 60.0)
                waited = listener.wait_for('image', PATIENCE)
                # While an image arrives, or between two.
                time.sleep(random.random() / options.rate)
            if waited is None:
                stalls += 1
                cameras.close()
                cameras.enter_context(Role('film', str(options.rate)))
            else:
                waits.append(waited)
    figures = {
        'kills': options.kills, 'stalls': stalls,
        'start_s': statistics.median(starts), 'median_s': statistics.median(waits),
        'worst_s': max(waits),
    }
    console.print(
        f'kill to subscribed: median {figures["start_s"]:.2f} s\n'
        f'subscribed to first image: median {figures["median_s"]:.2f} s, worst '
        f'{figures["worst_s"]:.2f} s\n'
        f'none within {PATIENCE:.0f} s: {stalls} of {options.kills}'
    )
    return {**describe_machine(), 'plain': options.plain, **figures}


def play_role(role: str, argument: str) -> None:
    """Be one of the other processes, which have to start soon: nothing is imported for them."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    if role == 'film':
        film(float(argument))
    else:
        listen(argument == 'plain')


def main() -> int:
    """Run from the command line."""
    from harness import make_parser, run_benchmark

    parser = make_parser(__doc__)
    parser.add_argument('--kills', type=int, default=100, help='how many (default 100)')
    parser.add_argument('--rate', type=float, default=20.0, help='images a second (default 20)')
    parser.add_argument('--plain', action='store_true', help='as any ROS 2 node')
    return 1 if run_benchmark(parser.parse_args(), run) is None else 0


if __name__ == '__main__':
    if len(sys.argv) > 1 and sys.argv[1] in ('film', 'listen'):
        play_role(*sys.argv[1:])
    else:
        sys.exit(main())

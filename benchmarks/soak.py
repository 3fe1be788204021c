"""Whether the two nodes' memory grows: the pair at full speed for a number of frames, or hours.

Starts `edge_node` and `cloud_node` as processes of their own, with a small model of random weights
or any other, and feeds them images as fast as they take them. Of both processes it reads the
resident set (RSS, everything that is in memory), the proportional set (PSS, what is shared counts
in part: it changes when other processes with the same libraries come and go) and the anonymous
memory (heap and stacks: where a leak shows), and fits a line to what comes after the warm-up:

    python benchmarks/soak.py --frames 10000 --json soak.json --plot soak.png
    python benchmarks/soak.py --hours 8

Ctrl-C ends the run and shows what was measured until then. Exits with 1 if a node died, if frames
were refused, or if memory grows faster than ``--limit``.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from msfc_msgs.msg import InstanceArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from sensor_msgs.msg import Image
from std_msgs.msg import Header

import harness
from msfc.codecs.msfc.codec import MSFC, MSFCConfig
from msfc.detectors.torchvision import TorchvisionConfig, TorchvisionDetector
from msfc.model import SplitModel
from msfc.model_file import save_model
from msfc.output import check_output_file
from msfc_demo.processes import NodeError, NodeProcesses
from msfc_ros.image_to_message import image_to_message

NODES = {'edge': 'encoding', 'cloud': 'decoding'}
"""The nodes and the names of their tasks in the diagnostics."""

QUANTITIES = {'rss': 'RSS', 'pss': 'PSS', 'anonymous': 'anonymous'}
PER_FRAMES = 10_000
MIB = 2**20

IN_FLIGHT = 2
"""Frames under way: one for each node to work on."""

PICTURES = 8
"""Different pictures that are shown in turn."""

GIVE_UP = 2.0
"""Seconds without a result after which the frames under way are taken for lost."""

START_PATIENCE = 120.0
"""Seconds until the first result has to be there."""

PATIENCE = 30.0
"""Seconds without a result, or without diagnostics at the end, after which the run has failed."""

Sample = dict[str, float]


def make_small_model(directory: Path) -> None:
    """Write a model with random weights, small enough for many frames a second."""
    torch.manual_seed(0)
    detector = TorchvisionDetector(
        TorchvisionConfig(
            class_names=('ant', 'bee', 'cat', 'dog', 'emu'),
            backbone='resnet18',
            fpn_channels=32,
            box_head_channels=32,
            mask_head_layers=1,
            min_size=96,
            max_size=128,
            rpn_pre_nms=50,
            rpn_post_nms=10,
            score_threshold=0.01,
            max_detections=5,
        )
    )
    codec = MSFC(MSFCConfig(channels=32, code_channels=8))
    save_model(SplitModel(detector.eval(), codec, rate=4), directory)


def read_memory(pid: int) -> dict[str, int]:
    """Return what a process has of memory, in bytes, of threads and of open files."""
    process = Path('/proc') / str(pid)
    values = {}
    for line in (process / 'smaps_rollup').read_text(encoding='ascii').splitlines()[1:]:
        name, size = line.split(':')
        values[name] = int(size.split()[0]) * 1024
    return {
        'rss': values['Rss'],
        'pss': values['Pss'],
        'anonymous': values['Anonymous'],
        'threads': len(list((process / 'task').iterdir())),
        'files': len(list((process / 'fd').iterdir())),
    }


class Feeder:
    """Publishes images as fast as results come back.

    Args:
        height: of the images in pixels.
        width: of the images in pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        self.node: Node = rclpy.create_node('soak')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        qos = QoSProfile(depth=10)
        self._images = self.node.create_publisher(Image, 'image_raw', qos)
        self.node.create_subscription(InstanceArray, 'instances', self._found, qos)
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._diagnosed, qos)
        rng = np.random.default_rng(0)
        blocks = rng.integers(0, 256, (PICTURES, height // 8, width // 8, 3), np.uint8)
        self._pictures = [
            image_to_message(np.kron(b, np.ones((8, 8, 1), np.uint8)), Header(), 'bgr8')
            for b in blocks
        ]
        self._under_way: deque[tuple[int, int]] = deque()
        self._last = time.monotonic()
        self.published = 0
        self.finished = 0
        self.instances = 0
        self.values: dict[str, dict[str, str]] = {}

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.node.destroy_node()

    @property
    def silence(self) -> float:
        """Seconds since the last result."""
        return time.monotonic() - self._last

    def step(self) -> None:
        """Publish what may be under way and wait for something to come."""
        if self.silence > GIVE_UP:
            self._under_way.clear()
        while len(self._under_way) < IN_FLIGHT and self._images.get_subscription_count():
            image = self._pictures[self.published % PICTURES]
            now = time.time_ns()
            image.header = Header(frame_id='camera_optical_frame')
            image.header.stamp.sec, image.header.stamp.nanosec = now // 10**9, now % 10**9
            self._under_way.append((image.header.stamp.sec, image.header.stamp.nanosec))
            self._images.publish(image)
            self.published += 1
        self._executor.spin_once(timeout_sec=0.1)

    def count(self, node: str, name: str) -> int:
        """Return a count of a node's by its last diagnostics."""
        return int(self.values.get(NODES[node], {}).get(name, 0))

    def _found(self, message: InstanceArray) -> None:
        stamp = (message.header.stamp.sec, message.header.stamp.nanosec)
        if stamp in self._under_way:
            # What is older will not come any more.
            while self._under_way.popleft() != stamp:
                pass
        self.finished += 1
        self.instances += len(message.instances)
        self._last = time.monotonic()

    def _diagnosed(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {item.key: item.value for item in status.values}
            self.values[status.name.split(': ')[-1]] = values


def fit_growth(samples: Sequence[Sample], quantity: str) -> dict[str, float]:
    """Fit a line to a node's memory over the frames.

    Args:
        samples: with ``frames`` and the quantity, the latter in bytes.
        quantity: its name.

    Returns:
        Bytes per 10,000 frames, its standard error (as if the samples were independent of each
        other), and the line's value at the first frame.
    """
    frames = np.array([sample['frames'] for sample in samples], float) / PER_FRAMES
    values = np.array([sample[quantity] for sample in samples], float)
    if len(frames) < 3 or np.ptp(frames) == 0:
        raise ValueError('too few samples after the warm-up to fit a line: run for longer')
    centred = frames - frames.mean()
    slope = float(centred @ values / (centred @ centred))
    residuals = values - values.mean() - slope * centred
    error = float(np.sqrt(residuals @ residuals / (len(frames) - 2) / (centred @ centred)))
    return {
        'bytes_per_10000_frames': slope,
        'standard_error': error,
        'offset_bytes': float(values.mean() - slope * frames.mean()),
    }


def run(options: argparse.Namespace, model: str, console: Console) -> dict[str, Any]:
    """Run the pair and read its memory.

    Args:
        options: of the command line.
        model: of the nodes.
        console: where progress is shown.

    Returns:
        The figures, JSON-serialisable.

    Raises:
        NodeError: a node could not be started, died, or does not answer.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in NODES}
    special: dict[str, dict[str, Any]] = {
        'edge': {'qos.image.reliability': 'reliable', 'qos.image.depth': 10},
        'cloud': {'score_threshold': 0.05},
    }
    session = harness.ros_session(
        options.logs, signal_handler_options=SignalHandlerOptions.NO
    )
    with session as nodes:
        feeder = Feeder(options.height, options.width)
        try:
            for name in NODES:
                harness.start_half(
                    nodes, name, {'model': model, 'threads': options.threads, **special[name]}
                )
            seconds = _feed(feeder, nodes, samples, options, console)
            counts = _counts(feeder, nodes)
        finally:
            feeder.close()
    warm = {
        name: [s for s in of_node if s['frames'] >= options.warm_up * feeder.finished]
        for name, of_node in samples.items()
    }
    return {
        'frames': feeder.finished,
        'published': feeder.published,
        'instances': feeder.instances,
        'seconds': seconds,
        'frames_per_second': feeder.finished / seconds,
        'warm_up_frames': round(options.warm_up * feeder.finished),
        'model': 'small model with random weights' if options.model is None else model,
        'image': [options.height, options.width],
        'machine': {'processor': platform.machine(), 'cores': os.cpu_count()},
        'counts': counts,
        'growth': {
            name: {quantity: fit_growth(of_node, quantity) for quantity in QUANTITIES}
            for name, of_node in warm.items()
        },
        'samples': samples,
    }


def _feed(
    feeder: Feeder,
    nodes: NodeProcesses,
    samples: dict[str, list[Sample]],
    options: argparse.Namespace,
    console: Console,
) -> float:
    """Feed frames until there were enough, or Ctrl-C; return how many seconds they took."""
    columns = (
        TextColumn('{task.fields[frames]:,} frames'), BarColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    start = next_sample = time.monotonic()
    begun = False

    def done() -> float:
        if options.hours is not None:
            return (time.monotonic() - start) / 3600 / options.hours
        return feeder.finished / options.frames

    with suppress(KeyboardInterrupt), Progress(*columns, console=console) as progress:
        task = progress.add_task('', total=1.0, frames=0)
        while done() < 1:
            feeder.step()
            if feeder.finished and not begun:
                begun = True
                start = next_sample = time.monotonic()
            if feeder.silence > (PATIENCE if begun else START_PATIENCE):
                raise NodeError(f'no result for {feeder.silence:.0f} s')
            now = time.monotonic()
            if begun and now >= next_sample:
                next_sample = now + options.every
                nodes.check()
                for name, of_node in samples.items():
                    memory = read_memory(nodes.pid(name))
                    of_node.append({'frames': feeder.finished, 'seconds': now - start, **memory})
                progress.update(task, completed=done(), frames=feeder.finished)
        progress.update(task, completed=1.0, frames=feeder.finished)
    return time.monotonic() - start


def _counts(feeder: Feeder, nodes: NodeProcesses) -> dict[str, dict[str, int]]:
    """Return the nodes' own counts, once they say what has been seen here."""
    end = time.monotonic() + PATIENCE
    while feeder.count('cloud', 'decoded') < feeder.finished:
        nodes.check()
        if time.monotonic() > end:
            raise NodeError('the diagnostics do not come')
        feeder.step()
    names = ('received', 'encoded', 'decoded', 'overwritten', 'lost', 'refused')
    return {node: {name: feeder.count(node, name) for name in names} for node in NODES}


def grows(figures: dict[str, Any], limit: float) -> list[str]:
    """Return which memory grows faster than a limit, in words.

    Args:
        figures: of :func:`run`.
        limit: in MiB per 10,000 frames; what is above it by less than two standard errors is not
            taken for growth.
    """
    found = []
    for node, of_node in figures['growth'].items():
        for quantity, fit in of_node.items():
            sure = fit['bytes_per_10000_frames'] - 2 * fit['standard_error']
            if sure > limit * MIB:
                found.append(f'{QUANTITIES[quantity]} memory of the {node} grows')
    return found


def show(figures: dict[str, Any], console: Console) -> None:
    """Print the figures."""
    title = (
        f'{figures["frames"]:,} frames, {figures["frames_per_second"]:.1f} a second, the first '
        f'{figures["warm_up_frames"]:,} as warm-up'
    )
    table = Table('node', 'memory', 'at first', 'at last', title=title)
    table.add_column('MiB per 10,000 frames')
    table.add_column('threads')
    table.add_column('open files')
    for column in table.columns[2:]:
        column.justify = 'right'
    for node, of_node in figures['growth'].items():
        warm = [s for s in figures['samples'][node] if s['frames'] >= figures['warm_up_frames']]
        first, last = warm[0], warm[-1]
        for quantity, fit in of_node.items():
            table.add_row(
                node,
                QUANTITIES[quantity],
                f'{first[quantity] / MIB:.1f} MiB',
                f'{last[quantity] / MIB:.1f} MiB',
                f'{fit["bytes_per_10000_frames"] / MIB:+.2f} ± {fit["standard_error"] / MIB:.2f}',
                f'{first["threads"]} → {last["threads"]}',
                f'{first["files"]} → {last["files"]}',
            )
    console.print(table)
    for node, counts in figures['counts'].items():
        console.print(f'{node}: ' + ', '.join(f'{name} {n:,}' for name, n in counts.items()))


def plot(figures: dict[str, Any], path: Path) -> None:
    """Draw the change of memory since the warm-up over the frames, with the fitted lines."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout='constrained')
    for index, (node, samples) in enumerate(figures['samples'].items()):
        frames = np.array([s['frames'] for s in samples])
        warm = frames >= figures['warm_up_frames']
        ends = frames[warm][[0, -1]]
        for (quantity, words), style in zip(QUANTITIES.items(), ('-', '--', ':'), strict=True):
            values = np.array([s[quantity] for s in samples]) / MIB
            fit = figures['growth'][node][quantity]
            line = fit['offset_bytes'] + fit['bytes_per_10000_frames'] * ends / PER_FRAMES
            zero = values[warm][0]
            axes.plot(frames, values - zero, style, color=f'C{index}', label=f'{node}, {words}')
            axes.plot(ends, line / MIB - zero, color='black', linewidth=0.8)
    axes.set(xlabel='frames', ylabel='MiB since the warm-up', title='Memory of the two nodes')
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def soak(options: argparse.Namespace, console: Console) -> harness.Figures:
    """Run the pair with its model, show and draw its memory."""
    if options.plot:
        check_output_file(options.plot)  # not only after hours
        options.plot.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='msfc_soak_') as folder:
        model = options.model
        if model is None:
            model = str(Path(folder) / 'model')
            make_small_model(Path(model))
        figures = run(options, model, console)
    show(figures, console)
    if options.plot:
        plot(figures, options.plot)
    return figures


def main() -> int:
    """Run from the command line."""
    parser = harness.make_parser(__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument('--frames', type=int, default=10_000, help='default: %(default)s')
    length.add_argument('--hours', type=float, help='in place of a number of frames')
    parser.add_argument('--model', help='name or directory; default: small, random weights')
    parser.add_argument('--height', type=int, default=96, help='of the images (default: 96)')
    parser.add_argument('--width', type=int, default=128, help='of the images (default: 128)')
    parser.add_argument('--threads', type=int, default=1, help="of each node's (default: 1)")
    parser.add_argument(
        '--every', type=float, default=2.0, help='seconds between two samples (default: 2)'
    )
    parser.add_argument(
        '--warm-up', type=float, default=0.2, help='share of the frames (default: %(default)s)'
    )
    parser.add_argument('--limit', type=float, help='MiB per 10,000 frames')
    parser.add_argument('--logs', type=Path, help="folder of the nodes' logs")
    parser.add_argument('--plot', type=Path, help='draw the memory into this file')
    options = parser.parse_args()
    if options.frames < 1 or (options.hours is not None and options.hours <= 0):
        parser.error('--frames and --hours must be positive')
    if min(options.height, options.width) < 8 or options.every <= 0:
        parser.error('--height and --width must be at least 8, --every positive')
    if not 0 <= options.warm_up < 1:
        parser.error('--warm-up must be 0 to 1')
    figures = harness.run_benchmark(options, soak)
    if figures is None:
        return 1
    failures = [] if options.limit is None else grows(figures, options.limit)
    failures += [f'the {n} refused frames' for n, c in figures['counts'].items() if c['refused']]
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())

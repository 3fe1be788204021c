"""What splitting the model costs: the unsplit model and the pair over DDS, on the same frames.

In one run, each way for a block of frames at a time, in turn, after some that do not count:

* the unsplit model in this process, without a codec: camera image to instances;
* the two halves in this process, one after the other, without ROS;
* the pair: this process publishes the frame as a camera does, `edge_node` and `cloud_node` are
  processes of their own, and the clock stops when the instances are back here;
* echoes: a process that deserialises a message and answers with an empty one gets the frame as a
  compressed feature, as JPEG (sensor_msgs/CompressedImage) and as it is (sensor_msgs/Image).

Needs ROS 2 (scripts/setup.sh) and nothing else to do on the machine:

    python benchmarks/pipeline.py --json pipeline.json
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import rclpy
import torch
from msfc_msgs.msg import CompressedFeature, InstanceArray
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Empty, Header

import harness
from msfc.model import SplitModel
from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import device_stopwatch, edge_pipeline, image_to_tensor
from msfc.zoo import DEFAULT_MODEL
from msfc_demo.processes import NodeError
from msfc_ros.fast_dds import use_profile
from msfc_ros.image_to_message import image_to_message, to_bytes_field
from msfc_ros.messages import packet_to_message

Picture = NDArray[np.uint8]

QOS = QoSProfile(depth=10)
JPEG_QUALITY = 90
BLOCK = 20
"""Frames that go one way before the next has its turn."""

LEAD = 5
"""Of these, sent once more before and not measured."""

PATIENCE = 60.0
"""Seconds that an answer is waited for."""

START_PATIENCE = 300.0
"""Seconds until the nodes have to be ready."""

ECHOES = {'feature': CompressedFeature, 'jpeg': CompressedImage, 'raw': Image, 'empty': Empty}

END_TO_END_GOAL = 1.05
EDGE_CODEC_GOAL = 0.03

EDGE_STAGES = ('preprocess', 'backbone', 'encode', 'pack')
CLOUD_STAGES = ('unpack', 'decode', 'infer')


@dataclass
class Samples:
    """Measured values by name, one a frame; durations in milliseconds."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Note a value."""
        self.values.setdefault(name, []).append(float(value))

    def median(self, name: str) -> float:
        """Return the median of a quantity."""
        return statistics.median(self.values[name])

    def summary(self, name: str) -> dict[str, float]:
        """Return median, extremes and the 95th percentile of a quantity."""
        values = self.values[name]
        return {
            'median': statistics.median(values),
            'minimum': min(values),
            'p95': float(np.percentile(values, 95)),
            'frames': len(values),
        }


class Bench(Node):
    """The camera and the listener of the pair, and one end of the echoes.

    Args:
        model: that the pair uses.
        check: called while something is waited for; raises if a node has ended.
    """

    def __init__(self, model: SplitModel, check: Callable[[], None]) -> None:
        super().__init__('benchmark')
        self._check = check
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self._model = model
        self._features: tuple[bytes, CompressedFeature] | None = None
        self._instances: InstanceArray | None = None
        self._arrived = 0.0
        self._acknowledged = 0.0
        self._image = self.create_publisher(Image, 'image_raw', QOS)
        self.create_subscription(CompressedFeature, 'features', self._sent, QOS, raw=True)
        self.create_subscription(InstanceArray, 'instances', self._found, QOS)
        self._echoes = {
            name: self.create_publisher(kind, f'echo/{name}', QOS)
            for name, kind in ECHOES.items()
        }
        self.create_subscription(Empty, 'echo/answer', self._answered, QOS)

    def wait(self, condition: Callable[[], object], what: str, patience: float) -> None:
        """Spin until a condition holds.

        Raises:
            NodeError: if it does not in time, or a node has ended.
        """
        end = time.monotonic() + patience
        while not condition():
            self._check()
            if time.monotonic() > end:
                raise NodeError(f'waited {patience:g} s in vain for {what}')
            self._executor.spin_once(timeout_sec=0.05)

    def ready(self) -> bool:
        """Whether the nodes and the echo are there and know each other, as far as is seen here."""
        return (
            self._image.get_subscription_count() > 0
            and self.count_subscribers('features') > 1
            and self.count_publishers('instances') > 0
            and self.count_publishers('echo/answer') > 0
            and all(publisher.get_subscription_count() for publisher in self._echoes.values())
        )

    def warm_up(self, image: Picture) -> None:
        """Send a frame again and again until instances come: then all have found each other."""
        end = time.monotonic() + START_PATIENCE
        self._instances = None
        while self._instances is None:
            self._check()
            if time.monotonic() > end:
                raise NodeError('no instances come back from the pair')
            self._image.publish(image_to_message(image, self._header(), 'bgr8'))
            self._settle(2.0, lambda: self._instances is not None)
        # What was sent in the meantime comes through.
        self._settle(5.0, lambda: False)

    def pair(self, image: Picture) -> tuple[float, CompressedFeature, int, int]:
        """Send a frame through the pair.

        Returns:
            Milliseconds until the instances are here, the features that crossed, their bytes,
            and how many instances there are.
        """
        header = self._header()
        message = image_to_message(image, header, 'bgr8')
        self._features = self._instances = None
        start = time.perf_counter()
        self._image.publish(message)

        def complete() -> bool:
            return (
                self._instances is not None
                and self._instances.header == header
                and self._features is not None
                and self._features[1].header == header
            )

        self.wait(complete, 'instances', PATIENCE)
        assert self._features is not None
        assert self._instances is not None
        data, features = self._features
        return (
            (self._arrived - start) * 1e3, features, len(data), len(self._instances.instances)
        )

    def echo(self, name: str, message: Any) -> float:
        """Send a message to the echo; return the milliseconds until its answer is here."""
        self._acknowledged = 0.0
        start = time.perf_counter()
        self._echoes[name].publish(message)
        self.wait(lambda: self._acknowledged, f'the echo of {name}', PATIENCE)
        return (self._acknowledged - start) * 1e3

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.destroy_node()

    def _header(self) -> Header:
        return Header(stamp=self.get_clock().now().to_msg(), frame_id='camera_optical_frame')

    def _settle(self, seconds: float, done: Callable[[], bool]) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not done():
            self._executor.spin_once(timeout_sec=0.05)

    def _sent(self, data: bytes) -> None:
        self._features = data, deserialize_message(data, CompressedFeature)

    def _found(self, message: InstanceArray) -> None:
        self._arrived = time.perf_counter()
        self._instances = message

    def _answered(self, message: Empty) -> None:
        self._acknowledged = time.perf_counter()


def echo_process() -> None:
    """Answer every message with an empty one; ends with its parent's signal."""
    use_profile()
    rclpy.init(args=[])
    node = Node('echo')
    answer = node.create_publisher(Empty, 'echo/answer', QOS)
    for name, kind in ECHOES.items():
        node.create_subscription(
            kind, f'echo/{name}', lambda message: answer.publish(Empty()), QOS
        )
    with suppress(ExternalShutdownException):
        rclpy.spin(node)


@contextmanager
def echoes() -> Iterator[None]:
    """Run :func:`echo_process` meanwhile."""
    echo = multiprocessing.get_context('spawn').Process(target=echo_process, daemon=True)
    echo.start()
    try:
        yield
    finally:
        echo.terminate()
        echo.join()


class Ways:
    """The ways from a camera image to instances, and the echoes; each adds to samples.

    Args:
        bench: where the pair and the echoes are reached.
        model: the model, prepared by a pipeline.
        bits: of the features in one process; None for the model's own.
    """

    def __init__(self, bench: Bench, model: SplitModel, bits: int | None) -> None:
        self._bench = bench
        self._detector = model.detector
        self._edge, self._cloud = edge_pipeline(model, bits), CloudPipeline(model)

    @torch.inference_mode()
    def unsplit(self, image: Picture, samples: Samples) -> None:
        """Run the model as it is without a codec."""
        start = time.perf_counter()
        watch = device_stopwatch(self._detector.device)
        batch = self._detector.preprocess([image_to_tensor(image)])
        samples.add('unsplit preprocess', watch.lap() * 1e3)
        pyramid = self._detector.extract(batch)
        samples.add('unsplit backbone', watch.lap() * 1e3)
        (found,) = self._detector.infer(pyramid, batch.sizes)
        found.masks.cpu()
        samples.add('unsplit infer', watch.lap() * 1e3)
        samples.add('unsplit', (time.perf_counter() - start) * 1e3)
        samples.add('unsplit instances', len(found))

    def in_one_process(self, image: Picture, samples: Samples) -> None:
        """Run the two halves here."""
        start = time.perf_counter()
        packet = self._edge.encode(image)
        result = self._cloud.decode(packet)
        samples.add('in one process', (time.perf_counter() - start) * 1e3)
        samples.add('in one process instances', len(result.instances))
        for stage, seconds in {**packet.durations, **result.durations}.items():
            samples.add(f'in one process {stage}', seconds * 1e3)

    def pair(self, image: Picture, samples: Samples) -> None:
        """Send the image to the pair."""
        latency, features, message_bytes, _ = self._bench.pair(image)
        samples.add('pair', latency)
        for stage in EDGE_STAGES:
            samples.add(f'pair {stage}', getattr(features, f'{stage}_time') * 1e3)
        samples.add('feature bytes', message_bytes)
        samples.add('payload bytes', len(features.data))

    def echoes(self, image: Picture, samples: Samples) -> None:
        """Send the image to the echo in all its forms."""
        header = Header(frame_id='camera_optical_frame')
        jpeg = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        messages = {
            'empty': Empty(),
            'feature': packet_to_message(self._edge.encode(image), header),
            'jpeg': CompressedImage(header=header, format='jpeg', data=to_bytes_field(jpeg)),
            'raw': image_to_message(image, header, 'bgr8'),
        }
        for name, message in messages.items():
            samples.add(f'echo {name}', self._bench.echo(name, message))
        for name in ('jpeg', 'raw'):
            samples.add(f'{name} bytes', len(serialize_message(messages[name])))


def measure(
    ways: Ways, frames: list[Picture], samples: Samples, progress: Callable[[int], None]
) -> None:
    """Run all frames in all ways, a block of frames at a time in each."""
    for first in range(0, len(frames), BLOCK):
        block = frames[first : first + BLOCK]
        for way in (ways.unsplit, ways.in_one_process, ways.pair, ways.echoes):
            # The processor's caches hold what the way before this one left there.
            for image in block[:LEAD]:
                way(image, Samples())
            for image in block:
                way(image, samples)
        progress(len(block))


def ratios(samples: Samples) -> dict[str, float]:
    """Return what the goals are about, from medians."""
    median = samples.median
    half_round = median('echo empty') / 2
    way = {name: max(median(f'echo {name}') - half_round, 0.0) for name in ('feature', 'raw')}
    return {
        'pair / unsplit': median('pair') / median('unsplit'),
        'pair from its camera image on / unsplit': (median('pair') - way['raw'])
        / median('unsplit'),
        'in one process / unsplit': median('in one process') / median('unsplit'),
        'edge codec / backbone': (median('pair encode') + median('pair pack'))
        / median('pair backbone'),
        'cloud codec / unsplit': (
            median('in one process unpack') + median('in one process decode')
        )
        / median('unsplit'),
        'feature serialised, sent, deserialised, ms': way['feature'],
        'raw image serialised, sent, deserialised, ms': way['raw'],
        'jpeg image serialised, sent, deserialised, ms': max(
            median('echo jpeg') - half_round, 0.0
        ),
        'feature bytes / raw bytes': median('feature bytes') / median('raw bytes'),
        'feature bytes / jpeg bytes': median('feature bytes') / median('jpeg bytes'),
    }


def show(samples: Samples, found: dict[str, float], console: Console) -> None:
    """Print the figures."""
    table = Table('milliseconds', 'unsplit', 'in one process', 'pair', title='Medians')
    for column in table.columns[1:]:
        column.justify = 'right'

    def cell(name: str) -> str:
        return f'{samples.median(name):.2f}' if name in samples.values else ''

    for stage in (*EDGE_STAGES, *CLOUD_STAGES):
        table.add_row(
            stage, *(cell(f'{way} {stage}') for way in ('unsplit', 'in one process', 'pair'))
        )
    table.add_row('in all', *(cell(way) for way in ('unsplit', 'in one process', 'pair')))
    console.print(table)
    table = Table('message', 'bytes', 'there and back, ms', title='Echoes')
    for column in table.columns[1:]:
        column.justify = 'right'
    for name in ECHOES:
        size = cell(f'{name} bytes').removesuffix('.00') if name != 'empty' else '0'
        table.add_row(name, size, cell(f'echo {name}'))
    console.print(table)
    goals = {
        'pair / unsplit': END_TO_END_GOAL,
        'pair from its camera image on / unsplit': END_TO_END_GOAL,
        'edge codec / backbone': EDGE_CODEC_GOAL,
    }
    for name, value in found.items():
        goal = goals.get(name)
        verdict = ''
        if goal is not None:
            verdict = f'   goal {goal:g}: {"met" if value <= goal else "NOT met"}'
        console.print(f'{name:<46} {value:9.4f}{verdict}', highlight=False, soft_wrap=True)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Start everything, measure, end everything; return the figures.

    Raises:
        NodeError: if the nodes cannot be started or give no answer.
        ValueError: if model or clip cannot be read.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    model = load_model(options.model, options.device)
    frames = harness.clip_frames(options.frames)
    samples = Samples()
    with harness.ros_session(sends_images=True) as processes, echoes():
        for half, parameters in (
            ('edge', {'rate': options.rate, 'qos.image.reliability': 'reliable'}),
            ('cloud', {'score_threshold': options.score_threshold}),
        ):
            harness.start_half(
                processes, half, {**harness.node_parameters(options), **parameters}
            )
        bench = Bench(model, processes.check)
        try:
            console.print('starting the nodes')
            bench.wait(bench.ready, 'the nodes', START_PATIENCE)
            bench.warm_up(frames[0])
            ways = Ways(bench, model, None if options.rate < 0 else options.rate)
            measure(ways, frames[: options.warm_up], Samples(), lambda count: None)
            columns = (
                TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            with Progress(*columns, console=console) as progress:
                task = progress.add_task('frames', total=len(frames))
                measure(ways, frames, samples, lambda count: progress.advance(task, count))
        finally:
            bench.close()
    found = ratios(samples)
    show(samples, found, console)
    return {
        'model': model.fingerprint,
        'device': str(model.detector.device),
        'threads': torch.get_num_threads(),
        **harness.describe_machine(),
        'image': list(frames[0].shape[:2]),
        'frames': len(frames),
        'ratios': found,
        'values': {name: samples.summary(name) for name in samples.values},
    }


def main() -> int:
    """Run from the command line."""
    parser = harness.make_parser(__doc__)
    harness.add_node_options(parser, DEFAULT_MODEL)
    parser.add_argument('--frames', type=int, default=60, help='of the shipped clip (default 60)')
    parser.add_argument('--warm-up', type=int, default=5, help='frames before (default 5)')
    parser.add_argument(
        '--rate', '--bits', type=int, default=-1,
        help="rate, for packed codes n; -1 is the model's (default)",
    )
    parser.add_argument(
        '--score-threshold', type=float, default=0.5, help='of what the cloud publishes'
    )
    options = parser.parse_args()
    if options.frames < 1 or options.warm_up < 0:
        parser.error('--frames must be at least 1, --warm-up at least 0')
    return 0 if harness.run_benchmark(options, run) else 1


if __name__ == '__main__':
    sys.exit(main())

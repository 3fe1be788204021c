"""The robot's half in PyTorch, ONNX Runtime and OpenVINO: time, memory, start, bytes and mAP.

Each way, a backend with a precision, has a bundle made of the model, and is measured in one run:

* time and processor time of a frame (camera image to packet), over those of eager PyTorch: each
  way in a process of its own, frame by frame in turn; medians;
* the most memory that such a process had;
* from `kill -9` to the first features of the node that is started at once in its place, a camera
  of 20 Hz all the time there; the median of some tries (needs ROS 2);
* bytes of a message, box and mask mAP of the pair over annotated images; the cloud is PyTorch's.

For a model of the zoo or a folder, and a data set of its classes, with nothing else to do on the
machine:

    python benchmarks/edge_backends.py --model tabletop_learned --data datasets/tabletop \
        --json edge_backends.json

At the end the table is printed as Markdown, for docs/edge-bundle.md. Precision int8 is calibrated
with pictures of the split `train`, or of `--calibration`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

import harness
from edge_worker import open_pipeline
from msfc.data import CocoDataset
from msfc.edge_bundle import BundleError, read_bundle
from msfc.edge_calibration import INT8
from msfc.evaluation.coco_map import average_precision, to_coco_results
from msfc.export_edge import export_edge
from msfc.model import SplitModel
from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.wire.message_size import compressed_feature_bytes
from msfc.zoo import DEFAULT_MODEL

if TYPE_CHECKING:
    from msfc_demo.processes import NodeProcesses

WAYS = (
    'torch:fp32', 'onnxruntime:fp32', 'onnxruntime:fp16', 'onnxruntime:int8', 'openvino:fp32',
    'openvino:fp16', 'openvino:bf16', 'openvino:int8',
)
"""What can be compared; the first one is what the others are compared with."""

WORKER = Path(__file__).with_name('edge_worker.py')

WARM_UP = 5
"""Frames of each way before the measurement."""

CAMERA_HZ = 20.0

PATIENCE = 120.0
"""Seconds that the first features are waited for."""

CPU_GOAL, MAP_GOAL, START_GOAL, MEMORY_GOAL = 0.4, 0.3, 1.0, 1 / 3
"""Of OpenVINO: processor time over eager's, points of mAP, seconds, memory over eager's."""


@dataclass
class Way:
    """A backend with a precision, and what was measured of it.

    Attributes:
        backend: ``torch``, ``onnxruntime`` or ``openvino``.
        precision: of its graph.
        source: the model, or the bundle's folder.
        times: of each frame in milliseconds.
        cpu_times: of the processor, likewise.
        figures: all else.
    """

    backend: str
    precision: str
    source: str
    times: list[float] = field(default_factory=list)
    cpu_times: list[float] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Backend and precision."""
        return f'{self.backend}:{self.precision}'


class Worker:
    """A process that encodes frames; as a context manager it ends on leaving.

    Args:
        way: what it runs; it gets the results.
        threads: of its work.
        frames: file of the frames.
    """

    def __init__(self, way: Way, threads: int, frames: Path) -> None:
        self._way = way
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), way.source, way.backend, str(threads), str(frames)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()

    def start(self) -> None:
        """Wait until it is ready.

        Raises:
            ValueError: it cannot load its half, or a bundle made it import PyTorch.
        """
        if self._answer()['torch'] != (self._way.backend == 'torch'):
            raise ValueError(f'the process of {self._way.name} has PyTorch in it')

    def encode(self, index: int, counts: bool) -> None:
        """Encode a frame, and note what it took if it counts."""
        answer = self._ask(f'{index}\n')
        if counts:
            self._way.times.append(answer['seconds'] * 1e3)
            self._way.cpu_times.append(answer['cpu_seconds'] * 1e3)

    def finish(self) -> None:
        """Let it end, and note its memory."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._way.figures['peak_mb'] = self._answer()['peak_mb']

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ValueError(f'the process of {self._way.name} ended; its error is above')
        answer: dict[str, Any] = json.loads(line)
        return answer


def make_ways(options: argparse.Namespace, folder: Path, console: Console) -> list[Way]:
    """Return what is compared; bundles that are not in the folder are made.

    Raises:
        OSError: pictures are missing, or a bundle cannot be written.
        ValueError: the model cannot be exported.
    """
    ways = []
    fingerprint = load_model(options.model).fingerprint
    for name in track(options.ways, 'bundles', console=console):
        backend, _, precision = name.partition(':')
        if backend == 'torch':
            ways.append(Way(backend, precision, options.model))
            continue
        graph_format = 'openvino' if backend == 'openvino' else 'onnx'
        bundle = folder / f'{graph_format}-{precision}'
        if not _is_there(bundle, fingerprint):
            calibration = options.calibration or options.data / 'train'
            export_edge(
                options.model, bundle, graph_format, precision,
                calibration=calibration if precision == INT8 else None,
            )
        ways.append(Way(backend, precision, str(bundle)))
    return ways


def _is_there(bundle: Path, fingerprint: str) -> bool:
    try:
        return read_bundle(bundle).fingerprint == fingerprint
    except BundleError:
        return False


def measure_times(
    ways: Sequence[Way], frames: Sequence[NDArray[np.uint8]], threads: int, console: Console
) -> None:
    """Encode each frame by each way in turn, in processes of their own.

    Raises:
        ValueError: a process cannot load its half.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / 'frames.npy'
        np.save(path, np.stack(frames))
        workers = [stack.enter_context(Worker(way, threads, path)) for way in ways]
        for worker in workers:
            worker.start()
        for index in track(range(len(frames)), 'frames', console=console):
            # Each way is the first as often as the others.
            for place in range(len(workers)):
                worker = workers[(index + place) % len(workers)]
                worker.encode(index, index >= WARM_UP)
        for worker in workers:
            worker.finish()


def measure_precision(
    way: Way, model: SplitModel, dataset: CocoDataset, limit: int, threads: int, console: Console
) -> None:
    """Send images through the edge and PyTorch's cloud; note bytes and mAP in percent."""
    edge, cloud = open_pipeline(way.source, way.backend, threads), CloudPipeline(model)
    results, sizes = [], []
    count = min(limit, len(dataset)) if limit else len(dataset)
    for index in track(range(count), way.name, console=console):
        packet = edge.encode(dataset.read_image(index))
        sizes.append(compressed_feature_bytes(packet.payload_bytes))
        found = cloud.decode(packet).instances
        results += to_coco_results(dataset.image_ids[index], found, dataset.category_ids)
    precision = average_precision(dataset.coco, results, dataset.image_ids[:count])
    way.figures |= {
        'message_bytes': statistics.fmean(sizes),
        'box_map': 100 * precision['box_map'],
        'mask_map': 100 * precision['mask_map'],
    }


def measure_start(
    way: Way, frame: NDArray[np.uint8], tries: int, threads: int, console: Console
) -> None:
    """Kill and start the node; note the median of the seconds to its first features."""
    with harness.ros_session(sends_images=True) as processes:
        camera = Camera(frame, processes)
        try:
            seconds = []
            process = _start(processes, way, threads)
            camera.wait_for_features(0)
            for _ in track(range(tries), f'{way.name}, starts', console=console):
                begin = time.time_ns()
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                process = _start(processes, way, threads)
                seconds.append((camera.wait_for_features(begin) - begin) / 1e9)
        finally:
            camera.close()
    way.figures['restart_seconds'] = statistics.median(seconds)


def _start(processes: NodeProcesses, way: Way, threads: int) -> subprocess.Popen[bytes]:
    from ament_index_python.packages import get_package_share_directory

    config = Path(get_package_share_directory('msfc')) / 'config' / 'edge.yaml'
    # A folder's name would be another one in another working directory.
    model = os.path.abspath(way.source) if os.path.isdir(way.source) else way.source
    parameters = {
        'model': model, 'backend': way.backend, 'threads': threads, 'device': 'cpu'
    }
    return processes.start('edge', 'msfc_edge', 'edge_node', config, parameters)


class Camera:
    """Publishes one image at a steady rate, and listens to features.

    Args:
        frame: H x W x 3, BGR.
        processes: of the session: if a node ends by itself, waiting ends too.
    """

    def __init__(self, frame: NDArray[np.uint8], processes: NodeProcesses) -> None:
        import rclpy
        from msfc_msgs.msg import CompressedFeature
        from rclpy.executors import SingleThreadedExecutor
        from sensor_msgs.msg import Image
        from std_msgs.msg import Header

        from msfc_ros.image_to_message import image_to_message

        self._processes = processes
        self._node = rclpy.create_node('camera')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._arrivals: list[tuple[int, int]] = []
        self._publisher = self._node.create_publisher(Image, 'image_raw', 1)
        self._node.create_subscription(CompressedFeature, 'features', self._note, 10)
        self._message = image_to_message(frame, Header(frame_id='camera'), 'bgr8')
        self._node.create_timer(1 / CAMERA_HZ, self._publish)

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()

    def wait_for_features(self, since: int) -> int:
        """Return when the first features of an image after a time came, both in nanoseconds.

        Raises:
            NodeError: the node has ended.
            ValueError: none came.
        """
        self._arrivals.clear()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.05)
            for stamp, arrival in self._arrivals:
                if stamp > since:
                    return arrival
            self._processes.check()
        raise ValueError(f'no features came within {PATIENCE:.0f} s')

    def _publish(self) -> None:
        stamp = self._message.header.stamp
        stamp.sec, stamp.nanosec = divmod(time.time_ns(), 10**9)
        self._publisher.publish(self._message)

    def _note(self, message: Any) -> None:
        stamp = message.header.stamp
        self._arrivals.append((stamp.sec * 10**9 + stamp.nanosec, time.time_ns()))


def summarise(ways: Sequence[Way]) -> list[dict[str, Any]]:
    """Return the figures of each way; ratios and changes are to the first."""
    rows: list[dict[str, Any]] = []
    for way in ways:
        row: dict[str, Any] = {'backend': way.backend, 'precision': way.precision, **way.figures}
        if way.times:
            row |= {
                'ms': statistics.median(way.times), 'cpu_ms': statistics.median(way.cpu_times)
            }
        first = rows[0] if rows else row
        for name in ('ms', 'cpu_ms', 'peak_mb'):
            if name in row:
                row[f'{name}_ratio'] = row[name] / first[name]
        for name in ('box_map', 'mask_map'):
            if name in row:
                row[f'{name}_change'] = row[name] - first[name]
        rows.append(row)
    return rows


COLUMNS = (
    ('time, ms', '{ms:.1f}'),
    ('of eager', '{ms_ratio:.2f}'),
    ('CPU time, ms', '{cpu_ms:.1f}'),
    ('of eager', '{cpu_ms_ratio:.2f}'),
    ('memory, MB', '{peak_mb:.0f}'),
    ('of eager', '{peak_mb_ratio:.2f}'),
    ('kill -9 to first frame, s', '{restart_seconds:.2f}'),
    ('bytes', '{message_bytes:.0f}'),
    ('box mAP', '{box_map:.1f} ({box_map_change:+.1f})'),
    ('mask mAP', '{mask_map:.1f} ({mask_map_change:+.1f})'),
)
"""Titles and texts of what is shown of a row; what was not measured is left open."""


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table for the docs."""

    def text(form: str, row: dict[str, Any]) -> str:
        try:
            return form.format(**row)
        except KeyError:
            return ''

    lines = [
        ['backend', 'precision', *(title for title, _ in COLUMNS)],
        ['---'] * (len(COLUMNS) + 2),
        *([row['backend'], row['precision'], *(text(form, row) for _, form in COLUMNS)]
          for row in rows),
    ]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def verdicts(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each way of OpenVINO: which goals it meets."""
    lines = []
    for row in rows:
        if row['backend'] != 'openvino':
            continue
        loss = -min(row.get('box_map_change', 0.0), row.get('mask_map_change', 0.0))
        checks = {
            f'CPU time of at most {CPU_GOAL:g} of eager': row.get('cpu_ms_ratio', 9.9) <= CPU_GOAL,
            f'at most {MAP_GOAL:g} points of mAP': 'box_map' in row and loss <= MAP_GOAL,
            f'{START_GOAL:g} s to the first frame': row.get('restart_seconds', 99) <= START_GOAL,
            'a third of the memory': row.get('peak_mb_ratio', 9.9) <= MEMORY_GOAL,
        }
        told = ', '.join(f'{goal} {"met" if met else "NOT met"}' for goal, met in checks.items())
        lines.append(f'openvino in {row["precision"]}: {told}')
    return lines


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure all ways.

    Raises:
        OSError: something is missing.
        ValueError: the model, the data or a bundle is of no use.
    """
    dataset = CocoDataset(options.data, options.split)
    torch.set_num_threads(options.threads)
    frames = harness.clip_frames(options.frames + WARM_UP)
    with ExitStack() as stack:
        folder = options.bundles or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ways = make_ways(options, folder, console)
        if options.frames:
            measure_times(ways, frames, options.threads, console)
        model = load_model(options.model)
        for way in ways:
            if options.starts:
                measure_start(way, frames[0], options.starts, options.threads, console)
        for way in ways:
            measure_precision(way, model, dataset, options.limit, options.threads, console)
    rows = summarise(ways)
    console.print(markdown(rows), markup=False, highlight=False, soft_wrap=True)
    for line in verdicts(rows):
        console.print(line, highlight=False, soft_wrap=True)
    return {
        **harness.describe_machine(), 'model': options.model, 'threads': options.threads,
        'frames': options.frames, 'images': min(options.limit or len(dataset), len(dataset)),
        'starts': options.starts, 'results': rows,
    }


def main() -> int:
    """Run from the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument('--model', default=DEFAULT_MODEL, help='name or directory')
    parser.add_argument('--data', type=Path, required=True, help='folder of a COCO data set')
    parser.add_argument('--split', default='val', help='of it (default val)')
    parser.add_argument('--limit', type=int, default=0, help='images for mAP (default all)')
    parser.add_argument('--frames', type=int, default=100, help='of the clip (default 100)')
    parser.add_argument('--starts', type=int, default=5, help='of the node (default 5; 0: none)')
    parser.add_argument('--threads', type=int, default=1, help='of each half (default 1)')
    parser.add_argument('--ways', nargs='+', default=list(WAYS), choices=WAYS, metavar='WAY',
                        help=f'of {", ".join(WAYS)} (default all)')
    parser.add_argument('--calibration', type=Path, help='pictures or a bag for int8')
    parser.add_argument('--bundles', type=Path, help='folder to keep the bundles in, and take '
                                                     'those of an earlier run from')
    options = parser.parse_args()
    if min(options.limit, options.frames, options.starts) < 0 or options.threads < 1:
        parser.error('limit, frames and starts must be 0 or more, threads at least 1')
    if options.ways[0] != WAYS[0]:
        parser.error(f'the first way has to be {WAYS[0]}, which the others are compared with')
    return 0 if harness.run_benchmark(options, run) else 1


if __name__ == '__main__':
    sys.exit(main())

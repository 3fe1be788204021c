"""What the masks of a frame take in `instances`, packed and plain: bytes of messages, and time.

Makes the messages of the shipped clip's true objects, or with `--model` of those that edge and
cloud find in its images, in each form of the parameter `masks`, and reads them again.

    python benchmarks/masks.py
    python benchmarks/masks.py --model tabletop --frames 20 --json masks.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from rclpy.serialization import serialize_message
from rich.console import Console
from rich.progress import track
from rich.table import Table
from std_msgs.msg import Header

import harness
from msfc.instance_records import MASK_FORMS
from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline
from msfc.simulation.objects import CLASS_NAMES
from msfc.types import Instances, Size
from msfc_ros.masks import mask_of
from msfc_ros.messages import instances_from_message, instances_to_message
from msfc_sim.clip import read_clip, shipped_clip

SCORE_THRESHOLD = 0.5
"""Score from which the cloud publishes by default."""


def film(
    model: str | None, count: int | None, console: Console
) -> Iterator[tuple[Instances, Size, Sequence[str]]]:
    """Yield what is in frames of the clip, their sizes, and the names of the classes.

    Args:
        model: that finds it; None for what is truly there.
        count: of the frames; None for all.
        console: to show how far it is.

    Raises:
        ValueError: if the model cannot be loaded.
    """
    frames = read_clip(shipped_clip())[:count]
    if model is None:
        for frame in frames:
            truth = frame.ground_truth
            found = instances_from_message(truth)
            yield found, (truth.image_height, truth.image_width), CLASS_NAMES
        return
    loaded = load_model(model)
    edge, cloud = edge_pipeline(loaded), CloudPipeline(loaded)
    for number, frame in enumerate(track(frames, 'frames', console=console)):
        image = frame.decode()
        found = cloud.decode(edge.encode(image, number)).instances.above(SCORE_THRESHOLD)
        yield found, image.shape[:2], loaded.class_names


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Make and read the messages.

    Raises:
        ValueError: if the model cannot be loaded.
    """
    figures: defaultdict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    counts = []
    for found, size, names in film(options.model, options.frames, console):
        counts.append(len(found))
        header = Header(frame_id='camera_optical_frame')
        for form in MASK_FORMS:
            start = time.process_time()
            message = instances_to_message(found, header, size, names, form)
            made = time.process_time()
            for item in message.instances:
                mask_of(item)
            read = time.process_time()
            of_form = figures[form]
            of_form['bytes'].append(len(serialize_message(message)))
            of_form['make_ms'].append((made - start) * 1e3)
            of_form['read_ms'].append((read - made) * 1e3)
    table = Table(title=f'{len(counts)} frames, {statistics.mean(counts):.1f} instances a frame')
    for column in ('masks', 'bytes, median', 'least', 'most', 'made, ms', 'read, ms'):
        table.add_column(column, justify='right')
    for form, values in figures.items():
        table.add_row(
            form,
            *(f'{summary(values["bytes"]):,.0f}' for summary in (statistics.median, min, max)),
            *(f'{statistics.median(values[name]):.2f}' for name in ('make_ms', 'read_ms')),
        )
    console.print(table)
    return {
        **harness.describe_machine(), 'model': options.model, 'instances': counts,
        'forms': {form: dict(values) for form, values in figures.items()},
    }  # fmt: skip


def main() -> int:
    """Run from the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument('--model', help='name or directory; without it true masks are taken')
    parser.add_argument('--frames', type=int, help='of the clip (default all, 60)')
    options = parser.parse_args()
    if options.frames is not None and options.frames < 1:
        parser.error('frames at least 1')
    return 0 if harness.run_benchmark(options, run) else 1


if __name__ == '__main__':
    sys.exit(main())

"""Counts what models are sure of in images of cameras at fault and of empty tables.

    python benchmarks/camera_faults.py tabletop_msfc tabletop_detector --data datasets/tabletop

Even images, validation images with each fault that training knows (msfc.training.augmentation), by
seeds of their own, and tables without objects.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor

import harness
from msfc.data import CocoDataset
from msfc.model import SplitModel
from msfc.model_file import load_model
from msfc.training.augmentation import FAULTS, with_fault

CONFIDENT = 0.5
LEVELS = (0, 5, 20, 60, 128, 200, 255)
SEED = 77


@dataclass
class Count:
    """What a model is sure of in the images of one kind.

    Attributes:
        images: how many there are.
        visible: objects that can be seen in them.
        with_instances: images with an instance of at least :data:`CONFIDENT`.
        instances: such instances.
        highest: score of all.
    """

    images: int = 0
    visible: int = 0
    with_instances: int = 0
    instances: int = 0
    highest: float = 0.0

    def add(self, scores: Tensor, visible: int) -> None:
        """Count one image: its scores, and the number of objects that can be seen in it."""
        sure = int((scores >= CONFIDENT).sum())
        self.images += 1
        self.visible += visible
        self.with_instances += sure > 0
        self.instances += sure
        self.highest = max([self.highest, *scores.tolist()])


def spread(dataset: CocoDataset, count: int) -> range:
    """Return indices of so many images, spread over a data set."""
    count = min(count, len(dataset))
    return range(0, count * (len(dataset) // count), len(dataset) // count)


def images(root: Path, count: int) -> Iterator[tuple[str, Tensor, int]]:
    """Yield kind, image (3 x H x W uint8 RGB) and number of objects that can be seen."""
    scenes, empty = CocoDataset(root, 'val'), CocoDataset(root, 'empty_val')
    for level in LEVELS:
        yield 'even', torch.full_like(scenes[0].image, level), 0
    for fault in FAULTS:
        for k, index in enumerate(spread(scenes, count)):
            example = with_fault(scenes[index], fault, np.random.default_rng([SEED, k]))
            visible = len(example.targets.labels)
            yield f'{fault}, {"some" if visible else "nothing"} visible', example.image, visible
    for index in spread(empty, count):
        yield 'table without objects', empty[index].image, 0


def count_instances(model: SplitModel, root: Path, count: int) -> dict[str, Count]:
    """Return what a model is sure of, by the kind of image."""
    counts: dict[str, Count] = {}
    for kind, image, visible in images(root, count):
        counts.setdefault(kind, Count()).add(model([image])[0].scores, visible)
    return counts


def measure(options: argparse.Namespace, console: Console) -> harness.Figures:
    """Measure all models and show a table of each."""
    torch.set_num_threads(options.threads)
    figures: harness.Figures = {}
    for name in options.models:
        counts = count_instances(load_model(name).eval(), options.data, options.images)
        table = Table(
            Column('kind', no_wrap=True), 'images', 'objects visible',
            f'images with ≥ {CONFIDENT}', f'instances ≥ {CONFIDENT}', 'highest score', title=name,
        )
        for kind, found in counts.items():
            row = (found.images, found.visible, found.with_instances, found.instances)
            table.add_row(kind, *map(str, row), f'{found.highest:.2f}')
        console.print(table)
        figures[name] = {kind: asdict(found) for kind, found in counts.items()}
    return figures


def main() -> int:
    """Run from the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument('models', nargs='+', help='names of shipped models, or folders')
    parser.add_argument('--data', type=Path, required=True, help='of msfc data tabletop')
    parser.add_argument('--images', type=int, default=20, help='of each kind (default 20)')
    parser.add_argument('--threads', type=int, default=1, help='of torch (default 1)')
    options = parser.parse_args()
    if min(options.images, options.threads) < 1:
        parser.error('images and threads must be 1 or more')
    return 0 if harness.run_benchmark(options, measure) else 1


if __name__ == '__main__':
    sys.exit(main())

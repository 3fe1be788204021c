"""What each part of a learned codec's training brings: mAP and bytes with and without it.

From a fitted codec, the same iterations with all parts, and without one or with another in its
place; from random weights, the same iterations with the code at other strides. All on the same
images in the same order. Shown are bytes, box and mask mAP on validation images, through real
payloads. Needs no ROS 2, and a quarter of an hour of a core for each variant:

    python benchmarks/training_ablation.py --data datasets/tabletop --output runs/ablation \
        --json training_ablation.json

Finished variants are kept in the output folder; ``--only NAME`` runs some of them, such as half
in another process.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import Progress as Bars
from rich.table import Table

import harness
from msfc.codecs.learned import LearnedCodec
from msfc.data import CocoDataset
from msfc.evaluation.measurement import measure
from msfc.evaluation.variants import Coded, Uncompressed
from msfc.model import SplitModel
from msfc.model_file import load_model, save_model
from msfc.training.experiment import Experiment, Step
from msfc.training.trainer import ANSWERS, Trainer

HEADS = ('objectness', 'anchors', 'classes', 'boxes', 'masks')
"""Weights of what the frozen heads say."""

RATES = (3, 4)
"""Measured: those near 220 and 330 bytes at the demo's size."""

STRIDES = {
    'code at stride 8': {'code_level': 'p3', 'analysis_widths': (96,), 'code_channels': 16,
                         'slices': (4, 4, 4, 4)},
    'code at stride 16': {},
    'code at stride 32': {'code_level': 'p5', 'analysis_widths': (64, 96, 128),
                          'code_channels': 128, 'slices': (32, 32, 32, 32)},
}  # fmt: skip
"""About as many symbols each."""


@dataclass(frozen=True)
class Variant:
    """A training.

    Attributes:
        name: as it is shown.
        step: changes of the training step.
        codec: changes of a codec of random weights; None trains a fitted one on.
        rate: the one rate that it has; all of the fitted codec's without.
    """

    name: str
    step: dict[str, Any] = field(default_factory=dict)
    codec: dict[str, Any] | None = None
    rate: int | None = None


VARIANTS = (
    Variant('all parts'),
    Variant('distance of pyramids alone', {
        'distill': {'features': 1.0, **dict.fromkeys(HEADS, 0.0)},
    }),
    Variant('heads alone', {'distill': {'features': 0.0}}),
    Variant('rate 3 alone', rate=3),
    Variant('labels', {'objective': 'task'}),
    Variant('labels, detector too', {
        'objective': 'task', 'trains': 'all', 'freeze_norms': True,
    }),
    *(Variant(name, codec=changes) for name, changes in STRIDES.items()),
)  # fmt: skip


def one_rate(codec: LearnedCodec, rate: int) -> LearnedCodec:
    """Return a codec that has one of a codec's rates alone."""
    single = LearnedCodec(replace(codec.settings, rates=1))
    wanted = single.state_dict()
    single.load_state_dict({
        name: tensor[rate : rate + 1] if tensor.shape != wanted[name].shape else tensor
        for name, tensor in codec.state_dict().items() if name in wanted
    })
    return single


def experiment(variant: Variant, model: SplitModel, options: argparse.Namespace) -> Experiment:
    """Return a variant's training; the model that it starts from is written for it.

    Raises:
        ValueError: the model has no learned codec.
    """
    codec = model.codec
    if not isinstance(codec, LearnedCodec):
        raise ValueError(f'{options.model} has no learned codec: name one that has')
    if variant.codec is not None:
        settings = replace(codec.settings, **variant.codec)
        codec = LearnedCodec(settings)
    elif variant.rate is not None:
        codec = one_rate(codec, variant.rate)
    start = options.output / variant.name / 'start'
    if not (start / 'model.json').is_file():
        save_model(SplitModel(model.detector, codec), start, half=False)
    targets = options.bytes if variant.rate is None else [options.bytes[variant.rate]]
    step = Step(**{
        'name': 'trained', 'trains': 'codec', 'iterations': options.iterations,
        'learning_rate': 4e-4 if variant.codec is None else 8e-4, 'optimizer': 'muon',
        'momentum': 0.95, 'gains_factor': 5.0, 'warmup': 0.05, 'hold': 0.3, 'weight_decay': 1e-4,
        'clip_norm': 2.0, 'average': 0.99, 'objective': 'distill', 'byte_targets': targets,
        **variant.step,
    })  # fmt: skip
    return Experiment(start_from=str(start), codec={}, steps=(step,), val_images=0, seed=1)


def trained(
    variant: Variant, model: SplitModel, options: argparse.Namespace, console: Console
) -> SplitModel:
    """Return the model that a variant's training makes."""
    folder = options.output / variant.name
    folder.mkdir(parents=True, exist_ok=True)
    answers = options.output / ANSWERS  # of the same detector: for all
    answers.mkdir(exist_ok=True)
    if not (folder / ANSWERS).exists():
        (folder / ANSWERS).symlink_to(answers.resolve())
    with Bars(console=console) as bars:
        task = bars.add_task(variant.name)

        def show(stage: str, done: int, total: int, losses: dict[str, float]) -> None:
            bars.update(task, description=f'{variant.name}: {stage}', completed=done, total=total)

        fabric = Fabric(accelerator='cpu', devices=1)
        plan = experiment(variant, model, options)
        return Trainer(plan, options.data, folder, fabric, workers=0, progress=show).run()


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Train and measure the variants.

    Raises:
        OSError: the data set is not there, or the output folder cannot be written.
        ValueError: the model has no learned codec, or cannot be loaded.
    """
    torch.set_num_threads(options.threads)
    dataset = CocoDataset(options.data, 'val')
    ids = dataset.image_ids[: options.images]
    table = Table('training', 'rate', 'bytes', 'box mAP', 'mask mAP')
    results: list[dict[str, Any]] = []
    chosen = [one for one in VARIANTS if not options.only or one.name in options.only]
    for variant in chosen:
        made = trained(variant, load_model(options.model), options, console).eval()
        rates = RATES if variant.rate is None else (0,)  # of the codec that was trained
        rows = measure(
            dataset, [Uncompressed(made.detector), *(Coded(made, rate) for rate in rates)], ids,
            replicates=0,
        )
        for rate, row in zip((None, *rates), rows, strict=True):
            figures = row.to_dict()
            results.append({'variant': variant.name, 'rate': rate, **figures})
            table.add_row(
                variant.name, '' if rate is None else str(rate),
                f'{figures["payload_bytes"] or 0:.0f}',
                f'{100 * figures["box_map"]["value"]:.1f}',
                f'{100 * figures["mask_map"]["value"]:.1f}',
            )
    console.print(table)
    return {
        **harness.describe_machine(), 'model': options.model, 'iterations': options.iterations,
        'images': len(ids), 'results': results,
    }


def main() -> int:
    """Run from the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument('--model', default='tabletop', help='with a learned codec')
    parser.add_argument('--data', type=Path, required=True, help='COCO-format data set')
    parser.add_argument('--output', type=Path, required=True, help='folder of the trainings')
    parser.add_argument('--iterations', type=int, default=400, help='of each (default 400)')
    parser.add_argument('--images', type=int, default=100, help='of val (default 100)')
    parser.add_argument('--threads', type=int, default=1, help='of torch (default 1)')
    parser.add_argument(
        '--bytes', type=float, nargs='+', default=[85, 115, 160, 215, 320, 500, 850, 1500],
        help="that the model's rates shall take (default those of tabletop)",
    )
    parser.add_argument(
        '--only', nargs='+', choices=[variant.name for variant in VARIANTS], metavar='NAME',
        help='some of: ' + ', '.join(variant.name for variant in VARIANTS),
    )
    options = parser.parse_args()
    if min(options.iterations, options.images, options.threads) < 1:
        parser.error('iterations, images and threads must be at least 1')
    if len(options.bytes) <= max(RATES):
        parser.error(f'--bytes names the bytes of all rates, at least {max(RATES) + 1} of them')
    return 0 if harness.run_benchmark(options, run) else 1


if __name__ == '__main__':
    sys.exit(main())

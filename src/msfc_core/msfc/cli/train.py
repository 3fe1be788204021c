"""The command ``msfc train``: the paper's three steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfc.cli.console import (
    Bar,
    check_device,
    console,
    print_lines,
    print_table,
    report_errors,
    stoppable,
)
from msfc.cli.options import CheckpointEvery, DataFolder, Workers

if TYPE_CHECKING:
    from msfc.evaluation.evaluate import ModelMetrics

# The heavy imports are in the commands, so that --help answers at once.


def train(
    experiment: Annotated[Path, typer.Argument(help='YAML file, see experiments/.')],
    data: DataFolder,
    output: Annotated[Path, typer.Option(help='Folder for models, checkpoints and curves.')],
    accelerator: Annotated[str, typer.Option(help='auto, cpu or cuda.')] = 'auto',
    workers: Workers = 1,
    checkpoint_every: CheckpointEvery = 120.0,
    weights: Annotated[
        str | None,
        typer.Option(help='File or address of Detectron2 weights to start from.'),
    ] = None,
) -> None:
    """Train in the paper's three steps; run again to resume after an interruption.

    On several GPUs or hosts, start it with torchrun.
    """
    with report_errors():
        from msfc.output import check_output_folder
        from msfc.progress import progress_of_training
        from msfc.training.experiment import load_experiment
        from msfc.training.processes import launch_fabric
        from msfc.training.trainer import Trainer

        plan = load_experiment(experiment)
        if weights is not None:
            plan = plan.with_weights(weights)
        device = check_device(accelerator, ('auto', 'cpu', 'cuda'))
        check_output_folder(output)
        fabric = launch_fabric(device, plan.precision)

        def report(step: str, metrics: Sequence[ModelMetrics]) -> None:
            _print_metrics(f'{step} on {data / plan.val_split}', metrics)

        shown = fabric.is_global_zero
        with stoppable(output, shown), Bar('training', shown) as update:
            trainer = Trainer(
                plan, data, output, fabric, workers, checkpoint_every,
                progress_of_training(update), report,
            )
            at_start = list(trainer.notes)
            if shown:
                print_lines(at_start)
            trainer.run()
        if shown:
            print_lines(trainer.notes[len(at_start) :])
            console.print(f'models and curves: {output}', highlight=False)


def _print_metrics(title: str, metrics: Sequence[ModelMetrics]) -> None:
    """Print a table, one row per variant."""
    headings = (
        'variant', 'box mAP', 'mask mAP', 'box mAP50', 'mask mAP50', 'payload B', 'BPFE', 'bpp'
    )
    rows = [
        (
            row.variant, f'{row.box_map:.4f}', f'{row.mask_map:.4f}', f'{row.box_map50:.4f}',
            f'{row.mask_map50:.4f}', f'{row.payload_bytes:.0f}', f'{row.payload_bpfe:.4f}',
            f'{row.bits_per_pixel:.4f}',
        )
        for row in metrics
    ]
    print_table(f'{title}, {metrics[0].images} images', headings, rows)

"""The command ``msfc train-head``: a further head on a finished detector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfc.cli.console import Bar, check_device, console, print_table, report_errors, stoppable
from msfc.cli.options import DataFolder, Device

# The heavy imports are in the command, so that --help answers at once.


def train_head(
    experiment: Annotated[
        Path, typer.Argument(help='YAML file, see experiments/tabletop_semantic.yaml.')
    ],
    data: DataFolder,
    output: Annotated[
        Path,
        typer.Option(help="Folder for the head. In heads/semantic of the model's folder, or of "
                          "that of its detector, it is found by itself."),
    ],
    device: Device = 'cpu',
) -> None:
    """Train a semantic head on the features of a detector, which stays as it is.

    The data set needs labels of its pixels; msfc data semantic makes those of the tabletop world.
    """
    with report_errors():
        from msfc.output import check_output_folder
        from msfc.training.heads import load_head_experiment
        from msfc.training.heads import train_head as train

        plan = load_head_experiment(experiment)
        check_output_folder(output)
        with stoppable(None), Bar('reading') as update:
            report = train(plan, data, output, check_device(device), update)
        measured = report.measured
        print_table(
            f'{report.parameters:,} parameters; IoU on {len(measured.confusions)} images of '
            f'{data / plan.val_split}, uncompressed',
            ('class', 'IoU'),
            [(name, f'{iou:.4f}') for name, iou in measured.ious.items()]
            + [('mean', f'{measured.mean_iou:.4f}')],
        )
        console.print(f'head: {output}', highlight=False)

"""The command ``msfc evaluate``: models at several rates beside the uncompressed detector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfc.cli.console import check_device, report_errors
from msfc.cli.options import DataFolder, Device, Images, Quick, Replicates, Split
from msfc.cli.studies import print_comparison, run_study

# The heavy imports are in the commands, so that --help answers at once.


def evaluate(
    model: Annotated[
        list[str], typer.Argument(help="Model folders, or names of shipped models: one for each "
                                       "C', or for each training step.")
    ],
    data: DataFolder,
    split: Split = 'test',
    rate: Annotated[
        list[int] | None,
        typer.Option('--rate', '--bits', help="Rate of the codec; repeatable. For packed codes n, "
                     "bits per element; for a learned codec 0, the cheapest, and up. The "
                     "models' own by default."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help='Model whose detector is measured uncompressed; the first one by '
                          'default. Give the one before the codec was trained.'),
    ] = None,
    limit: Images = None,
    replicates: Replicates = 1000,
    device: Device = 'cpu',
    output: Annotated[
        Path | None,
        typer.Option('--json', help='Write figures here, and as .csv beside it; with it, the '
                                    'same command resumes an interrupted run.'),
    ] = None,
    quick: Quick = False,
) -> None:
    """Measure box and mask average precision and bits, by COCO's rules.

    All on the same images in one run with the uncompressed detector, with bootstrap intervals
    over images.
    """
    with report_errors():
        from msfc.evaluation.studies.common import StudySettings
        from msfc.evaluation.studies.comparison import compare_models

        settings = StudySettings(data, split, limit, replicates, check_device(device), quick)
        result = run_study(
            lambda progress: compare_models(
                model, settings, rate or (), reference, output, progress
            ),
            settings.notes, output,
        )
        print_comparison(result)

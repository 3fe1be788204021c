"""The command ``msfc sweep``: precision over bits for each C' and n (the paper's Fig. 5)."""

from __future__ import annotations

from typing import Annotated

import typer

from msfc.cli.console import check_device, report_errors
from msfc.cli.options import (
    CheckpointEvery,
    DataFolder,
    Detector,
    Device,
    Images,
    Output,
    QuickTraining,
    Replicates,
    Runs,
    Split,
    SweepPlan,
    Workers,
)
from msfc.cli.studies import print_sweep, run_study

# The heavy imports are in the commands, so that --help answers at once.


def sweep(
    plan: SweepPlan,
    data: DataFolder,
    output: Output,
    detector: Detector = None,
    run: Runs = None,
    code_channels: Annotated[
        list[int] | None, typer.Option(help="C'; repeatable. Those of the file by default.")
    ] = None,
    bits: Annotated[
        list[int] | None, typer.Option(help='n; repeatable. Those of the file by default.')
    ] = None,
    split: Split = 'test',
    floor: Annotated[float, typer.Option(help='Least mAP in the plots.', min=0, max=1)] = 0.1,
    limit: Images = None,
    replicates: Replicates = 1000,
    device: Device = 'cpu',
    workers: Workers = 1,
    checkpoint_every: CheckpointEvery = 120.0,
    quick: QuickTraining = False,
) -> None:
    """Train a codec for each C' behind one detector, and measure each at every n (Fig. 5).

    Trains what is missing, and resumes an interrupted run. Each step's model is measured, so that
    the codec alone can be compared with all trained end to end.
    """
    with report_errors():
        from msfc.evaluation.studies.common import StudySettings
        from msfc.evaluation.studies.sweep import SweepOptions, run_sweep

        settings = StudySettings(data, split, limit, replicates, check_device(device), quick)
        options = SweepOptions(
            detector, tuple(run or ()), tuple(code_channels or ()), tuple(bits or ()), floor,
            workers, checkpoint_every,
        )
        result = run_study(
            lambda progress: run_sweep(plan, settings, output, options, progress),
            settings.notes, settings.folder(output),
        )
        print_sweep(result)

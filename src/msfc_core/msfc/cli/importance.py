"""The command ``msfc importance``: what each pyramid level counts (Fig. 3, Table 1)."""

from __future__ import annotations

from typing import Annotated

import typer

from msfc.cli.console import check_device, report_errors
from msfc.cli.options import (
    DataFolder,
    Device,
    Images,
    ModelName,
    Output,
    Quick,
    Replicates,
    Split,
)
from msfc.cli.studies import print_importance, run_study

# The heavy imports are in the commands, so that --help answers at once.


def importance(
    model: ModelName,
    data: DataFolder,
    output: Output,
    split: Split = 'test',
    variance: Annotated[
        float, typer.Option(help="Of the noise; 100 is the paper's, for features of its scale.")
    ] = 100.0,
    relative: Annotated[
        bool,
        typer.Option('--relative', help="Take the variance as multiple of the features' own, the "
                                        "mean of the levels' variances."),
    ] = False,
    limit: Images = None,
    replicates: Replicates = 1000,
    device: Device = 'cpu',
    quick: Quick = False,
) -> None:
    """Add noise to each pyramid level in turn (Fig. 3), and print the sizes (Table 1).

    The detector is measured without its codec. Resumes an interrupted run.
    """
    with report_errors():
        from msfc.evaluation.studies.common import StudySettings
        from msfc.evaluation.studies.importance import measure_importance

        settings = StudySettings(data, split, limit, replicates, check_device(device), quick)
        result = run_study(
            lambda progress: measure_importance(
                model, settings, output, variance, relative, progress
            ),
            settings.notes, settings.folder(output),
        )
        print_importance(result)

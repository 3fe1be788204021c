"""The command ``msfc reproduce``: all measurements of the paper, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from msfc.cli.console import check_device, print_lines, report_errors
from msfc.cli.options import (
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
from msfc.cli.studies import (
    print_baselines,
    print_comparison,
    print_importance,
    print_missing,
    print_sweep,
    run_study,
)

if TYPE_CHECKING:
    from msfc.evaluation.studies.common import StudyResult

# The heavy imports are in the commands, so that --help answers at once.


def reproduce(
    plan: SweepPlan,
    data: DataFolder,
    output: Output,
    split: Split = 'test',
    detector: Detector = None,
    run: Runs = None,
    model: Annotated[
        str | None,
        typer.Option(help='Trained model to measure and to compare with the baselines, behind '
                          "the same detector; by default the sweep's whose C' is a quarter of "
                          "the pyramid's channels, as the paper's."),
    ] = None,
    codec: Annotated[
        list[str] | None,
        typer.Option(help='Image codec to compare with; repeatable. All here if none.'),
    ] = None,
    settings: Annotated[int, typer.Option(help='Qualities per baseline.', min=2)] = 6,
    limit: Images = None,
    replicates: Replicates = 1000,
    device: Device = 'cpu',
    workers: Workers = 1,
    quick: QuickTraining = False,
) -> None:
    """Make the paper's tables and figures: sweep, operating point, baselines, importance.

    What msfc sweep, evaluate, baselines and importance do, on one data set and behind one
    detector. Trains what is missing, and resumes an interrupted run.
    """
    with report_errors():
        from msfc.evaluation.studies.baselines import ImageCodecChoice
        from msfc.evaluation.studies.common import StudySettings
        from msfc.evaluation.studies.reproduction import Reproduction
        from msfc.evaluation.studies.sweep import SweepOptions

        study = StudySettings(data, split, limit, replicates, check_device(device), quick)
        options = SweepOptions(detector, tuple(run or ()), workers=workers)
        codecs = ImageCodecChoice.find(codec or ())
        print_missing(codecs)
        steps = Reproduction(plan, study, output, options, codecs, model, settings).steps()
        for number, step in enumerate(steps, start=1):
            print_lines(['', f'{number} of {len(steps)}: {step.title}'])
            _print_result(run_study(step.run, study.notes, output))
        print_lines([f'all tables and plots: {output}'])


def _print_result(result: StudyResult) -> None:
    from msfc.evaluation.studies.baselines import BaselinesResult
    from msfc.evaluation.studies.importance import ImportanceResult
    from msfc.evaluation.studies.sweep import SweepResult

    if isinstance(result, SweepResult):
        print_sweep(result)
    elif isinstance(result, BaselinesResult):
        print_baselines(result)
    elif isinstance(result, ImportanceResult):
        print_importance(result)
    else:
        print_comparison(result)

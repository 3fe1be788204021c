"""The command ``msfc evaluate``: models at several rates beside the uncompressed detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from msfc.cli.console import Bar, check_device, print_table, report_errors, stoppable
from msfc.cli.options import DataFolder, Device, Images, Quick, Replicates, Split
from msfc.cli.studies import change_and_range, print_comparison, run_study

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
    semantic: Annotated[
        bool,
        typer.Option('--semantic', help='Measure mean IoU of the semantic head instead, of one '
                                        'model at all its rates; the data set needs labels of its '
                                        'pixels.'),
    ] = False,
) -> None:
    """Measure box and mask average precision and bits, by COCO's rules.

    All on the same images in one run with the uncompressed detector, with bootstrap intervals
    over images.
    """
    with report_errors():
        if semantic:
            if len(model) > 1 or reference:
                raise ValueError('--semantic is of one model, beside its own detector')
            _evaluate_semantic(
                model[0], data, split, rate or (), 8 if quick and not limit else limit, replicates,
                device, output,
            )
            return
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


def _evaluate_semantic(
    model: str, data: Path, split: str, rates: Sequence[int], limit: int | None, replicates: int,
    device: str, output: Path | None,
) -> None:
    from msfc.evaluation.semantic import compare_semantic
    from msfc.output import check_output_file

    if output is not None:
        check_output_file(output)
    with stoppable(None), Bar('measuring') as update:
        study = compare_semantic(
            model, data, split, rates, limit, replicates, check_device(device), output, update
        )
    names = study.measured[0].class_names
    print_table(
        f'semantic head of {model} on {data / split}, {study.images} images',
        ('variant', 'mean IoU', '95 %', 'change', '95 %', 'payload', 'pixels', *names),
        [
            (
                entry.variant, f'{value.value:.4f}', f'{value.low:.3f}-{value.high:.3f}',
                *(change_and_range(change) if entry.payload_bytes is not None else ('', '')),
                '' if entry.payload_bytes is None else f'{entry.payload_bytes:,.0f}',
                f'{entry.accuracy:.4f}', *(f'{iou:.4f}' for iou in entry.ious.values()),
            )
            for entry, (value, change) in zip(study.measured, study.intervals, strict=True)
        ],
    )

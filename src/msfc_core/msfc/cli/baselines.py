"""The command ``msfc baselines``: other ways to send the same scene, at equal precision."""

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
from msfc.cli.studies import print_baselines, print_missing, run_study

# The heavy imports are in the commands, so that --help answers at once.


def baselines(
    model: ModelName,
    data: DataFolder,
    output: Output,
    split: Split = 'test',
    reference: Annotated[
        str | None,
        typer.Option(help="Detector that gets images and features uncoded; the model's own if "
                          'none. Give the one before the codec was trained.'),
    ] = None,
    rate: Annotated[
        list[int] | None,
        typer.Option('--rate', '--bits', help="Rate of the codec, n for packed codes; repeatable. "
                     "The model's own if none."),
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(help='Another model, drawn beside at all rates of its codec; repeatable.'),
    ] = None,
    codec: Annotated[
        list[str] | None,
        typer.Option(help='JPEG, WebP, AVIF, H.264 or H.265; repeatable. All here if none.'),
    ] = None,
    avif_speed: Annotated[
        int,
        typer.Option(help='6: a quarter of the time, some 14 % more bytes.', min=0, max=10),
    ] = 4,
    preset: Annotated[
        str, typer.Option(help="Of H.264's and H.265's encoders, such as medium or placebo.")
    ] = 'slower',
    features: Annotated[
        bool, typer.Option(help="Measure the paper's baseline, the features as JPEG.")
    ] = True,
    downscale: Annotated[
        bool, typer.Option(help="Also send images made smaller, by the detector's input.")
    ] = True,
    settings: Annotated[
        int | None, typer.Option(help='Qualities per codec and scale; all by default.', min=2)
    ] = None,
    grid: Annotated[
        bool,
        typer.Option('--grid', help='Every quality at every scale, to find the best. Slow; by '
                                    'default what was good on validation images.'),
    ] = False,
    floor: Annotated[float, typer.Option(help='Least mAP in the plots.', min=0, max=1)] = 0.0,
    limit: Images = None,
    replicates: Replicates = 1000,
    device: Device = 'cpu',
    quick: Quick = False,
) -> None:
    """Compare the codec with JPEG of the features (the paper's baseline) and with image codecs.

    Same images, same run; bytes at equal mAP, with bootstrap intervals. Run again to resume.
    """
    with report_errors():
        from msfc.evaluation.studies.baselines import (
            BaselineOptions,
            ImageCodecChoice,
            compare_baselines,
        )
        from msfc.evaluation.studies.common import StudySettings

        study = StudySettings(data, split, limit, replicates, check_device(device), quick)
        options = BaselineOptions(
            reference, tuple(rate or ()), features, downscale, settings, floor, grid,
            tuple(beside or ()),
        )
        codecs = ImageCodecChoice.find(codec or (), avif_speed, preset)
        print_missing(codecs)
        result = run_study(
            lambda progress: compare_baselines(model, study, output, codecs, options, progress),
            study.notes, study.folder(output),
        )
        print_baselines(result)

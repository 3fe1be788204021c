"""The command ``msfc baselines``: other ways to send the same scene, at equal precision."""

from __future__ import annotations

from typing import Annotated

import typer

from msfc.cli.console import check_device, print_lines, report_errors
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
from msfc.cli.studies import print_baselines, run_study

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
    bits: Annotated[
        list[int] | None, typer.Option(help="Bit depth n; repeatable. The model's own if none.")
    ] = None,
    codec: Annotated[
        list[str] | None,
        typer.Option(help='JPEG, WebP, AVIF, H.264 or H.265; repeatable. All here if none.'),
    ] = None,
    avif_speed: Annotated[
        int,
        typer.Option(help='4 takes seconds an image, for some 15 % fewer bytes.', min=0, max=10),
    ] = 6,
    features: Annotated[
        bool, typer.Option(help="Measure the paper's baseline, the features as JPEG.")
    ] = True,
    downscale: Annotated[
        bool, typer.Option(help="Also send images made as small as the detector's input.")
    ] = True,
    settings: Annotated[
        int | None, typer.Option(help='Qualities per codec; all by default.', min=2)
    ] = None,
    floor: Annotated[float, typer.Option(help='Least mAP in the plots.', min=0, max=1)] = 0.0,
    limit: Images = None,
    replicates: Replicates = 1000,
    device: Device = 'cpu',
    quick: Quick = False,
) -> None:
    """Compare the codec with JPEG of the features (the paper's baseline) and with image codecs.

    Same images, same run; bytes at equal mask and box mAP, with bootstrap intervals. Resumes an
    interrupted run.
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
            reference, tuple(bits or ()), features, downscale, settings, floor
        )
        codecs = ImageCodecChoice.find(codec or (), avif_speed)
        print_lines([f'{name} is not measured: {why}' for name, why in codecs.missing.items()])
        result = run_study(
            lambda progress: compare_baselines(model, study, output, codecs, options, progress),
            study.notes, study.folder(output),
        )
        print_baselines(result)

"""The command ``msfc reproduce``: all measurements of the paper, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from msfc.cli.baselines import baselines
from msfc.cli.console import print_lines, report_errors
from msfc.cli.evaluate import evaluate
from msfc.cli.importance import importance
from msfc.cli.measuring import (
    QUICK_FOLDER,
    DataFolder,
    Detector,
    Device,
    Images,
    Output,
    Replicates,
    Runs,
    Split,
    Workers,
)
from msfc.cli.sweep import sweep

BASELINE_BITS = [2, 4, 8]
"""n of the codec's own curve beside the baselines: beyond 8 bits nothing is gained."""

PAPERS_SHARE = 4
"""The paper's pyramid has 256 channels and C'=64 at its operating point: a quarter."""


def reproduce(
    plan: Annotated[Path, typer.Argument(help='YAML file, see experiments/tabletop_sweep.yaml.')],
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
    quick: Annotated[
        bool,
        typer.Option('--quick', help='A few iterations, images and settings, into folders of '
                                     'their own: does it work, in minutes.'),
    ] = False,
) -> None:
    """Make the paper's tables and figures: sweep, operating point, baselines, importance.

    What msfc sweep, evaluate, baselines and importance do, on one data set and behind one
    detector. Trains what is missing and goes on where a broken run ended.
    """
    with report_errors():
        from msfc.model_file import describe_model
        from msfc.training.sweep import load_sweep

        bits = list(load_sweep(plan).bits)
        # Fails now, not after hours.
        for name in (detector, model):
            if name:
                describe_model(name)
    _say(1, "precision over bits for each C' and n (Fig. 5)")
    sweep(
        plan, data, output / 'sweep', detector, run, split=split, limit=limit,
        replicates=replicates, device=device, workers=workers, quick=quick,
    )
    with report_errors():
        swept, evaluated = (
            output / name / QUICK_FOLDER if quick else output / name
            for name in ('sweep', 'evaluate')
        )
        reference = str(swept / 'detector')
        chosen = model or str(_papers_width(plan, swept, run or ()))
        evaluated.mkdir(parents=True, exist_ok=True)
    _say(2, f'{chosen} at every n')
    evaluate(
        [chosen], data, split, bits, reference, limit, replicates, device,
        evaluated / 'evaluate.json', quick,
    )
    _say(3, "the paper's baseline, and image codecs")
    baselines(
        chosen, data, output / 'baselines', split, reference, BASELINE_BITS, codec,
        settings=settings, limit=limit, replicates=replicates, device=device, quick=quick,
    )
    _say(4, "noise of the paper's variance on one level at a time (Fig. 3), and sizes (Table 1)")
    importance(
        reference, data, output / 'importance', split, limit=limit, replicates=replicates,
        device=device, quick=quick,
    )
    _say(5, 'the same with noise as strong as the features')
    importance(
        reference, data, output / 'importance_relative', split, 1.0, relative=True, limit=limit,
        replicates=replicates, device=device, quick=quick,
    )
    print_lines([f'all tables and plots: {output}'])


def _say(number: int, what: str) -> None:
    print_lines(['', f'{number} of 5: {what}'])


def _papers_width(plan: Path, swept: Path, runs: Sequence[Path]) -> Path:
    """Return the sweep's model whose C' is nearest to the paper's share of the channels."""
    from msfc.model_file import describe_model
    from msfc.training.sweep import load_sweep, runs_by_width

    chosen = load_sweep(plan)
    folders = {width: swept / f'c{width}' for width in chosen.code_channels}
    folders |= runs_by_width(runs, chosen)
    last = chosen.steps[-1].name
    channels = {
        width: describe_model(folder / last)['msfc']['channels']
        for width, folder in folders.items()
    }
    width = min(folders, key=lambda width: abs(width * PAPERS_SHARE - channels[width]))
    return folders[width] / last

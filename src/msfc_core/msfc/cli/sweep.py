"""The command ``msfc sweep``: precision over bits for each C' and n (the paper's Fig. 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msfc.cli.console import Bar, check_device, print_lines, print_table, report_errors
from msfc.cli.measuring import (
    PANELS,
    DataFolder,
    Detector,
    Device,
    Images,
    Output,
    Replicates,
    Runs,
    Split,
    Workers,
    change_and_range,
    describe_run,
    kinds,
    measure_with_progress,
    print_differences,
    print_measurements,
    quick_run,
    stoppable,
)

if TYPE_CHECKING:
    from msfc.evaluation.sweep_report import StepGain, SweepModel
    from msfc.model import SplitModel
    from msfc.training.sweep import Sweep

# The heavy imports are in the command, so that --help answers at once.


def sweep(
    plan: Annotated[Path, typer.Argument(help='YAML file, see experiments/tabletop_sweep.yaml.')],
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
    checkpoint_every: Annotated[float, typer.Option(help='Seconds.', min=0)] = 120.0,
    quick: Annotated[
        bool,
        typer.Option('--quick', help='A few iterations and images, into a folder of its own: '
                                     'does it work, in minutes.'),
    ] = False,
) -> None:
    """Train a codec for each C' behind one detector, and measure each at every n (Fig. 5).

    Trains what is missing and goes on where a broken run ended. Each step's model is measured,
    so that the codec alone can be compared with all trained end to end.
    """
    with report_errors():
        from msfc.data import CocoDataset
        from msfc.evaluation.model_set import share_detectors, uncompressed_variant
        from msfc.evaluation.report import data_digest, write_measurements
        from msfc.evaluation.sweep_report import compare_steps, plot_sweep
        from msfc.evaluation.variants import Variant
        from msfc.model_file import load_model
        from msfc.training.processes import launch_fabric
        from msfc.training.sweep import load_sweep, place_detector, runs_by_width, train_sweep

        chosen = load_sweep(plan)
        chosen = replace(
            chosen,
            code_channels=tuple(code_channels or chosen.code_channels),
            bits=tuple(bits or chosen.bits),
        )
        output, limit, notes = quick_run(quick, output, limit)
        if quick:
            chosen, checkpoint_every = chosen.quick(), 1e9
        check_device(device)
        dataset = CocoDataset(data, split)
        given = runs_by_width(run or (), chosen)
        source = load_model(detector) if detector else None
        fabric = launch_fabric(device, chosen.experiment.precision)
        with stoppable(output), Bar('training') as update:

            def show(stage: str, done: int, total: int, losses: dict[str, float]) -> None:
                update(done, total, stage, f'loss {losses["loss"]:.3f}' if losses else '')

            options: dict[str, Any] = {
                'progress': show, 'workers': workers, 'checkpoint_every': checkpoint_every
            }
            place = place_detector(chosen, data, output, fabric, source, **options)
            folders = train_sweep(chosen, data, output, fabric, given, **options)

        plain_model = load_model(place, device)
        models = _load(chosen, folders, device)
        share_detectors([plain_model, *(model.named.model for model in models)])
        notes += _notes(chosen, models, plain_model, given)
        plain = uncompressed_variant(plain_model)
        variants: list[Variant] = [plain]
        for model in models:
            variants += model.named.variants(chosen.bits)
        image_ids = dataset.image_ids[:limit]
        measured = measure_with_progress(
            dataset, variants, image_ids, output / 'journal',
            {'data': data_digest(data, split)}, replicates,
        )
        by_name = {entry.variant: entry for entry in measured}
        uncompressed = measured[0]
        gains = compare_steps(models, chosen.bits, by_name)
        title = 'smoke check, figures mean nothing' if quick else ''
        drawing = (chosen.bits, by_name, kinds(uncompressed), PANELS)
        left_out = plot_sweep(models, *drawing, output / 'sweep', floor, title)
        if gains:
            plot_sweep(models, *drawing, output / 'sweep-steps', floor, title, all_steps=True)
        write_measurements(
            output / 'sweep.json', measured, uncompressed,
            {
                **describe_run(dataset, data, split, len(image_ids), replicates, notes),
                'quick': quick,
                'models': [
                    {**model.named.describe(), 'step': model.step, 'last_step': model.last}
                    for model in models
                ],
                'steps': [
                    {'name': k.name, 'trains': k.trains, 'iterations': k.iterations}
                    for k in chosen.steps
                ],
                'floor': floor,
                'not_drawn': left_out,
                'gains': [row.to_dict() for row in gains],
            },
            {
                name: {**row, 'step': model.step}
                for model in models
                for name, row in model.named.columns(chosen.bits).items()
            },
        )
        print_measurements(f'the sweep on {data / split}', measured)
        print_differences(measured, uncompressed)
        _print_gains(gains)
        print_lines([*notes, *left_out, f'tables and plots: {output}'])


def _load(plan: Sweep, folders: Mapping[int, Path], device: str) -> list[SweepModel]:
    """Load each C' after each step."""
    from msfc.evaluation.model_set import NamedModel
    from msfc.evaluation.sweep_report import SweepModel, model_label
    from msfc.model_file import load_model

    models = []
    for step in plan.steps:
        last = step is plan.steps[-1]
        for width in plan.code_channels:
            label = model_label(width, step.name, last)
            loaded = load_model(folders[width] / step.name, device)
            models.append(SweepModel(width, step.name, last, NamedModel.of(label, loaded)))
    return models


def _notes(
    plan: Sweep, models: Sequence[SweepModel], plain: SplitModel, given: Mapping[int, Path]
) -> list[str]:
    """Return what a reader has to know of models that the sweep did not train itself."""
    notes = [
        f"C'={width} was not trained by the sweep but given: its steps may be of other lengths"
        for width in plan.code_channels if width in given
    ]
    frozen = {step.name for step in plan.steps[:1] if step.trains == 'msfc'}
    for model in models:
        if model.step in frozen and model.named.model.detector is not plain.detector:
            notes.append(
                f'{model.named.label} is behind another detector than the uncompressed one'
            )
    return notes


def _print_gains(gains: Sequence[StepGain]) -> None:
    """Print what the last step adds."""
    if not gains:
        return
    # What it was after the last step stands in the table of all variants.
    print_table(
        f'what step {gains[0].last_step} adds',
        ('', 'box', 'change', '95 %', 'mask', 'change', '95 %'),
        [
            (
                f'{row.model.named.label}, n={row.bit_depth}',
                *(
                    text
                    for name in PANELS
                    for text in (
                        f'{row.before.precision.values[name]:.3f}',
                        *change_and_range(row.gain(name)),
                    )
                ),
            )
            for row in gains
        ],
    )

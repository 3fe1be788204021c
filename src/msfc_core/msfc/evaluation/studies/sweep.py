"""Precision over bits for each C' and n (the paper's Fig. 5), with the training that it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msfc.evaluation.measurement import Measurement
from msfc.evaluation.model_set import NamedModel, share_detectors, uncompressed_variant
from msfc.evaluation.report import write_measurements
from msfc.evaluation.studies.common import (
    JOURNALS,
    PANELS,
    StudyData,
    StudyResult,
    StudySettings,
    panel_intervals,
)
from msfc.evaluation.sweep_report import (
    StepGain,
    SweepModel,
    compare_steps,
    model_label,
    plot_sweep,
)
from msfc.evaluation.variants import Variant
from msfc.model import SplitModel
from msfc.model_file import load_model
from msfc.output import check_output_folder
from msfc.progress import StageProgress, no_progress, progress_of_training
from msfc.training.processes import launch_fabric
from msfc.training.sweep import Sweep, load_sweep, place_detector, runs_by_width, train_sweep


@dataclass(frozen=True)
class SweepOptions:
    """What a sweep starts from and shows.

    Attributes:
        detector: trained model whose detector all codecs start from; trained first if None.
        runs: outputs of ``msfc train`` with the same steps, taken for their C'.
        code_channels: C'; those of the plan if none.
        bit_depths: n; those of the plan if none.
        floor: least mAP in the plots.
        workers: processes that read data.
        checkpoint_every: seconds.
    """

    detector: str | None = None
    runs: tuple[Path, ...] = ()
    code_channels: tuple[int, ...] = ()
    bit_depths: tuple[int, ...] = ()
    floor: float = 0.1
    workers: int = 1
    checkpoint_every: float = 120.0


@dataclass(frozen=True)
class SweepResult(StudyResult):
    """What a sweep found.

    Attributes:
        gains: what the last step adds to the ones before.
        not_drawn: what the plots leave out, in words.
    """

    gains: tuple[StepGain, ...]
    not_drawn: tuple[str, ...]


def run_sweep(
    plan: Path,
    settings: StudySettings,
    output: Path,
    options: SweepOptions,
    progress: StageProgress = no_progress,
) -> SweepResult:
    """Train a codec for each C' behind one detector, and measure each at every n.

    Trains what is missing, and resumes an interrupted run.

    Args:
        plan: YAML file, see :func:`msfc.training.sweep.load_sweep`.
        settings: of the study.
        output: folder for models, tables, plots and journals.
        options: what it starts from and shows.
        progress: shows how far it is.

    Raises:
        OSError: a file is missing, or the output cannot be written.
        ValueError: something given is not what it should be.
    """
    sweep = load_sweep(plan)
    sweep = replace(
        sweep,
        code_channels=options.code_channels or sweep.code_channels,
        bits=options.bit_depths or sweep.bits,
    )
    if settings.quick:
        sweep = sweep.quick()
    output = check_output_folder(settings.folder(output))
    data = settings.load()
    given = runs_by_width(options.runs, sweep)
    place, folders = _train(sweep, settings, output, options, given, progress)
    plain_model = load_model(place, settings.device)
    models = _load_models(sweep, folders, settings.device)
    share_detectors([plain_model, *(model.named.model for model in models)])
    variants: list[Variant] = [uncompressed_variant(plain_model)]
    for model in models:
        variants += model.named.variants(sweep.bits)
    measured = data.measure(variants, output / JOURNALS, progress)
    notes = settings.notes + _notes(sweep, models, plain_model, given)
    return _report(sweep, data, output, options, models, measured, notes)


def _train(
    sweep: Sweep,
    settings: StudySettings,
    output: Path,
    options: SweepOptions,
    given: Mapping[int, Path],
    progress: StageProgress,
) -> tuple[Path, dict[int, Path]]:
    """Train what is missing; return the folders of the detector, and of each C'."""
    source = load_model(options.detector) if options.detector else None
    fabric = launch_fabric(settings.device, sweep.experiment.precision)
    training: dict[str, Any] = {
        'progress': progress_of_training(progress),
        'workers': options.workers,
        # A quick run is over before a checkpoint would be of use.
        'checkpoint_every': 1e9 if settings.quick else options.checkpoint_every,
    }
    place = place_detector(sweep, settings.data, output, fabric, source, **training)
    return place, train_sweep(sweep, settings.data, output, fabric, given, **training)


def _load_models(
    sweep: Sweep, folders: Mapping[int, Path], device: str
) -> list[SweepModel]:
    """Load each C' after each step."""
    models = []
    for step in sweep.steps:
        last = step is sweep.steps[-1]
        for width in sweep.code_channels:
            label = model_label(width, step.name, last)
            loaded = load_model(folders[width] / step.name, device)
            models.append(SweepModel(width, step.name, last, NamedModel.of(label, loaded)))
    return models


def _notes(
    sweep: Sweep, models: Sequence[SweepModel], plain: SplitModel, given: Mapping[int, Path]
) -> list[str]:
    """Return what a reader has to know of models that the sweep did not train itself."""
    notes = [
        f"C'={width} was not trained by the sweep but given: its steps may be of other lengths"
        for width in sweep.code_channels if width in given
    ]
    frozen = {step.name for step in sweep.steps[:1] if step.trains == 'codec'}
    for model in models:
        if model.step in frozen and model.named.model.detector is not plain.detector:
            notes.append(
                f'{model.named.label} is behind another detector than the uncompressed one'
            )
    return notes


def _report(
    sweep: Sweep,
    data: StudyData,
    output: Path,
    options: SweepOptions,
    models: Sequence[SweepModel],
    measured: Sequence[Measurement],
    notes: Sequence[str],
) -> SweepResult:
    """Write tables and plots."""
    quick = data.settings.quick
    by_name = {entry.variant: entry for entry in measured}
    gains = compare_steps(models, sweep.bits, by_name)
    title = 'smoke check, figures mean nothing' if quick else ''
    drawing = (sweep.bits, by_name, panel_intervals(measured[0]), PANELS)
    not_drawn = plot_sweep(models, *drawing, output / 'sweep', options.floor, title)
    if gains:
        plot_sweep(
            models, *drawing, output / 'sweep-steps', options.floor, title, all_steps=True
        )
    about = {
        **data.describe(notes),
        'quick': quick,
        'models': [
            {**model.named.describe(), 'step': model.step, 'last_step': model.last}
            for model in models
        ],
        'steps': [
            {'name': k.name, 'trains': k.trains, 'iterations': k.iterations} for k in sweep.steps
        ],
        'floor': options.floor,
        'not_drawn': not_drawn,
        'gains': [row.to_dict() for row in gains],
    }
    columns = {
        name: {**row, 'step': model.step}
        for model in models
        for name, row in model.named.columns(sweep.bits).items()
    }
    write_measurements(output / 'sweep.json', measured, measured[0], about, columns)
    return SweepResult(
        f'the sweep on {data.settings.data / data.settings.split}', tuple(measured),
        tuple(notes), output, tuple(gains), tuple(not_drawn),
    )

"""Models at several rates beside the uncompressed detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msfc.evaluation.model_set import (
    NamedModel,
    is_untrained,
    make_labels,
    share_detectors,
    uncompressed_variant,
)
from msfc.evaluation.report import check_report_path, write_measurements
from msfc.evaluation.studies.common import StudyResult, StudySettings
from msfc.evaluation.variants import Variant
from msfc.model import SplitModel
from msfc.model_file import load_model
from msfc.progress import StageProgress, no_progress


def compare_models(
    names: Sequence[str],
    settings: StudySettings,
    rates: Sequence[int] = (),
    reference: str | None = None,
    output: Path | None = None,
    progress: StageProgress = no_progress,
) -> StudyResult:
    """Measure models and the uncompressed detector on the same images.

    A codec that was never trained is left out, and a note says so.

    Args:
        names: model folders, or names of shipped models.
        settings: of the study.
        rates: of the codecs, for packed codes n; a model that knows none of them has its own.
        reference: model whose detector is measured uncompressed; the first one if None.
        output: JSON file to write, with a CSV file and the journals beside it.
        progress: shows how far it is.

    Raises:
        OSError: a file is missing, or the output cannot be written.
        ValueError: something given is not what it should be.
    """
    if output:
        check_report_path(output)
    notes = settings.notes
    models = _load_models(names, settings.device, notes)
    _check_rates(models, rates)
    compared = load_model(reference, settings.device) if reference else models[0]
    data = settings.load()
    share_detectors([compared, *models])
    labels = make_labels(models, names)
    named = [NamedModel.of(label, model) for label, model in zip(labels, models, strict=True)]
    variants = _variants(named, compared, rates)
    journals = output.with_name(f'{output.stem}_journal') if output else None
    measured = data.measure(variants, journals, progress)
    if not reference and compared.codec is not None:
        notes.append(
            f'{measured[0].variant} is the detector of {names[0]} itself, which may have been '
            'trained behind the codec: --reference takes another'
        )
    if output:
        detector = NamedModel.of(Path(reference or names[0]).name, SplitModel(compared.detector))
        about = {
            **data.describe(notes),
            'models': [entry.describe() for entry in named],
            'reference_detector': detector.describe(),
        }
        columns = {name: row for entry in named for name, row in entry.columns(rates).items()}
        write_measurements(output, measured, measured[0], about, columns)
    title = f'{", ".join(names)} on {settings.data / settings.split}'
    return StudyResult(title, tuple(measured), tuple(notes), output)


def _load_models(names: Sequence[str], device: str, notes: list[str]) -> list[SplitModel]:
    """Load models, those with an untrained codec without it; adds to the notes."""
    models = []
    for name in names:
        model = load_model(name, device)
        if is_untrained(model):
            notes.append(
                f'the codec of {name} was never trained and is left out: its detector is '
                'measured without one'
            )
            model = SplitModel(model.detector)
        models.append(model)
    return models


def _check_rates(models: Sequence[SplitModel], rates: Sequence[int]) -> None:
    """Refuse a rate that no model knows."""
    known = {
        rate for model in models if model.codec is not None for rate in model.codec.coder().rates
    }
    for rate in rates:
        if known and rate not in known:
            choices = ', '.join(map(str, sorted(known)))
            raise ValueError(f'rate {rate} is not one of {choices}')


def _variants(
    named: Sequence[NamedModel], compared: SplitModel, rates: Sequence[int]
) -> list[Variant]:
    variants: list[Variant] = [uncompressed_variant(compared)]
    for entry in named:
        # A first model without codec is the uncompressed detector itself.
        if entry.model is not compared or entry.model.codec is not None:
            variants += entry.variants(rates)
    return variants

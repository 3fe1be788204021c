"""What each pyramid level counts (the paper's Fig. 3), and the sizes (Table 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msfc.evaluation.importance import (
    SizeRow,
    importance_variants,
    level_variances,
    size_table,
)
from msfc.evaluation.measurement import Measurement
from msfc.evaluation.model_set import NamedModel
from msfc.evaluation.plots import plot_importance
from msfc.evaluation.report import write_measurements
from msfc.evaluation.studies.common import (
    JOURNALS,
    PLOT_SUFFIXES,
    StudyResult,
    StudySettings,
    panel_intervals,
)
from msfc.evaluation.variants import network_size
from msfc.model_file import load_model
from msfc.output import check_output_folder
from msfc.progress import StageProgress, no_progress
from msfc.types import Size

VARIANCE_IMAGES = 50  # that the scale of the features is taken from

PAPERS_VARIANCE = 100.0
"""Of the paper's noise, for features of its detector's scale."""


@dataclass(frozen=True)
class ImportanceResult(StudyResult):
    """What the study of the levels found.

    Attributes:
        size: height and width of the network's input for the first image.
        sizes: rows of the table of sizes.
    """

    size: Size
    sizes: tuple[SizeRow, ...]


def measure_importance(
    model: str,
    settings: StudySettings,
    output: Path,
    variance: float = PAPERS_VARIANCE,
    relative: bool = False,
    progress: StageProgress = no_progress,
) -> ImportanceResult:
    """Measure a detector with noise on one pyramid level at a time; resumes an interrupted run.

    Args:
        model: model folder, or name of a shipped model; its codec is left out.
        settings: of the study.
        output: folder for tables, plots and journals.
        variance: of the noise.
        relative: take the variance as a multiple of the features' own, the mean of the levels'
            variances.
        progress: shows how far it is.

    Raises:
        OSError: a file is missing, or the output cannot be written.
        ValueError: something given is not what it should be.
    """
    output = check_output_folder(settings.folder(output))
    data = settings.load()
    loaded = load_model(model, settings.device)
    detector = loaded.detector
    scale = level_variances(detector, data.dataset, data.image_ids[:VARIANCE_IMAGES])
    # The last digits differ from run to run, and a run must find its own journal again.
    used = float(f'{variance * scale.pooled():.4g}') if relative else variance
    named = NamedModel.of(Path(model).name, loaded)
    measured = data.measure(
        importance_variants(detector, used), output / JOURNALS, progress,
        detector=named.identity, variance=used,
    )
    image = data.dataset.read_image(0)
    size = network_size(detector)((image.shape[0], image.shape[1]))
    sizes = size_table(detector, size, loaded)
    write_measurements(
        output / 'importance.json', measured, measured[0],
        {
            **data.describe(settings.notes),
            'models': [named.describe()],
            'variance': used,
            'feature_variances': scale.variances(),
            'sizes': [row.to_dict() for row in sizes],
        },
    )
    _plot(measured, used, output)
    return ImportanceResult(
        f'noise of variance {used:.4g} on each level', tuple(measured), tuple(settings.notes),
        output, size, tuple(sizes),
    )


def _plot(measured: Sequence[Measurement], variance: float, output: Path) -> None:
    clean, *noisy = measured
    levels = {
        entry.variant.removeprefix('noise on '): dict(panel_intervals(entry)) for entry in noisy
    }
    for suffix in PLOT_SUFFIXES:
        plot_importance(
            levels, panel_intervals(clean), output / f'importance{suffix}',
            f'Gaussian noise of variance {variance:.4g} on one level',
        )

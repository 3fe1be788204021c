"""What all studies have: their settings, their results, a run with its progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msfc.data import CocoDataset
from msfc.evaluation.bootstrap import CONFIDENCE, Interval
from msfc.evaluation.measurement import Measurement, measure
from msfc.evaluation.report import data_digest, describe_data
from msfc.evaluation.variants import Variant
from msfc.progress import StageProgress, progress_of_stage

QUICK_IMAGES = 8
QUICK_WARNING = 'quick: a check that it works; its figures mean nothing'
QUICK_FOLDER = 'quick'
"""In the output folder, since what is in it must not be taken for the real thing."""

JOURNALS = 'journal'
"""Folder of what is measured, in a study's folder."""

PANELS = {'box_map': 'box mAP', 'mask_map': 'mask mAP'}
"""Names in tables and plots of what is compared."""

PLOT_SUFFIXES = ('.png', '.pdf')


@dataclass(frozen=True)
class StudySettings:
    """What every study is told.

    Attributes:
        data: folder of a COCO-format data set.
        split: which of its splits.
        limit: measure the first images only; all if None.
        replicates: bootstrap samples for the intervals.
        device: ``cpu`` or ``cuda``.
        quick: a few images and settings, into a folder of its own: does it work, in minutes.
    """

    data: Path
    split: str = 'test'
    limit: int | None = None
    replicates: int = 1000
    device: str = 'cpu'
    quick: bool = False

    def folder(self, output: Path) -> Path:
        """Return where in a study's output folder its results are."""
        return output / QUICK_FOLDER if self.quick else output

    @property
    def notes(self) -> list[str]:
        """What a reader of the results has to know."""
        return [QUICK_WARNING] if self.quick else []

    def load(self) -> StudyData:
        """Open the data set.

        Raises:
            OSError: it is missing.
            ValueError: it is not what it should be.
        """
        dataset = CocoDataset(self.data, self.split)
        limit = self.limit or (QUICK_IMAGES if self.quick else None)
        return StudyData(self, dataset, tuple(dataset.image_ids[:limit]))


@dataclass(frozen=True)
class StudyData:
    """The images of a study.

    Attributes:
        settings: of the study.
        dataset: the data set.
        image_ids: the images that are measured.
    """

    settings: StudySettings
    dataset: CocoDataset
    image_ids: tuple[int, ...]

    def measure(
        self,
        variants: Sequence[Variant],
        journals: Path | None,
        progress: StageProgress,
        **depends: Any,
    ) -> list[Measurement]:
        """Measure variants, see :func:`msfc.evaluation.measurement.measure`.

        Args:
            variants: what to measure.
            journals: folder of what is finished; None keeps nothing.
            progress: shows the images, then the intervals.
            depends: what results depend on besides the data and the variants.
        """
        stage = f'{len(self.image_ids)} images by {len(variants)} variants'
        return measure(
            self.dataset, variants, self.image_ids, journals,
            {'data': data_digest(self.settings.data, self.settings.split), **depends},
            self.settings.replicates,
            progress=progress_of_stage(progress, stage),
            computed=progress_of_stage(progress, 'intervals'),
        )

    def describe(self, notes: Sequence[str]) -> dict[str, Any]:
        """Return what the JSON of every study says of its run."""
        settings = self.settings
        return {
            'data': describe_data(
                self.dataset, settings.data, settings.split, len(self.image_ids)
            ),
            'bootstrap': {'replicates': settings.replicates, 'confidence': CONFIDENCE},
            'notes': list(notes),
        }


@dataclass(frozen=True)
class StudyResult:
    """What a study found.

    Attributes:
        title: of its table.
        measured: rows of its table, the one that differences are taken to first.
        notes: what a reader has to know.
        output: the folder or file with all of it; None if nothing was written.
    """

    title: str
    measured: tuple[Measurement, ...]
    notes: tuple[str, ...]
    output: Path | None

    @property
    def reference(self) -> Measurement:
        """The row that differences are taken to."""
        return self.measured[0]


def panel_intervals(entry: Measurement) -> Mapping[str, Interval]:
    """Return box and mask mAP with their intervals, by their names in plots."""
    return {label: entry.interval(name) for name, label in PANELS.items()}

"""All measurements of the paper, one after the other, on one data set behind one detector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from msfc.evaluation.studies.baselines import (
    BaselineOptions,
    ImageCodecChoice,
    compare_baselines,
)
from msfc.evaluation.studies.common import StudyResult, StudySettings
from msfc.evaluation.studies.comparison import compare_models
from msfc.evaluation.studies.importance import measure_importance
from msfc.evaluation.studies.sweep import SweepOptions, run_sweep
from msfc.model_file import describe_model
from msfc.output import check_output_folder
from msfc.progress import StageProgress
from msfc.training.sweep import DETECTOR, load_sweep, runs_by_width

BASELINE_BITS = (2, 4, 8)
"""n of the codec's own curve beside the baselines: beyond 8 bits nothing is gained."""

PAPERS_SHARE = 4
"""The paper's pyramid has 256 channels and C'=64 at its operating point: a quarter."""


@dataclass(frozen=True)
class ReproductionStep:
    """One of the measurements.

    Attributes:
        title: what it is.
        run: does it, once those before are done.
    """

    title: str
    run: Callable[[StageProgress], StudyResult]


class Reproduction:
    """The measurements of the paper.

    Args:
        plan: YAML file of the sweep, see :func:`msfc.training.sweep.load_sweep`.
        settings: of all studies.
        output: folder with a folder for each of them.
        sweep: options of the sweep.
        image_codecs: to compare with.
        model: trained model to measure and to compare with the baselines; by default the sweep's
            whose C' is a quarter of the pyramid's channels, as the paper's.
        qualities: how many per baseline.

    Raises:
        OSError: a file is missing, or the output cannot be written.
        ValueError: something given is not what it should be.
    """

    def __init__(
        self,
        plan: Path,
        settings: StudySettings,
        output: Path,
        sweep: SweepOptions,
        image_codecs: ImageCodecChoice,
        model: str | None = None,
        qualities: int | None = None,
    ) -> None:
        # Fails now, not after hours.
        self._bit_depths = load_sweep(plan).bits
        for name in (sweep.detector, model):
            if name:
                describe_model(name)
        check_output_folder(output)
        self._plan, self._settings, self._output = plan, settings, output
        self._sweep, self._image_codecs = sweep, image_codecs
        self._model, self._qualities = model, qualities
        self._swept = settings.folder(output / 'sweep')

    def steps(self) -> Sequence[ReproductionStep]:
        """Return the measurements, to be run in their order."""
        chosen = self._model or "the paper's C'"
        return (
            ReproductionStep("precision over bits for each C' and n (Fig. 5)", self._run_sweep),
            ReproductionStep(f'{chosen} at every n', self._compare_depths),
            ReproductionStep("the paper's baseline, and image codecs", self._compare_baselines),
            ReproductionStep(
                "noise of the paper's variance on one level at a time (Fig. 3), and sizes "
                '(Table 1)',
                self._add_papers_noise,
            ),
            ReproductionStep(
                'the same with noise as strong as the features', self._add_relative_noise
            ),
        )

    @property
    def _detector(self) -> str:
        return str(self._swept / DETECTOR)

    @property
    def _operating_point(self) -> str:
        return self._model or str(_papers_width(self._plan, self._swept, self._sweep.runs))

    def _run_sweep(self, progress: StageProgress) -> StudyResult:
        return run_sweep(
            self._plan, self._settings, self._output / 'sweep', self._sweep, progress
        )

    def _compare_depths(self, progress: StageProgress) -> StudyResult:
        folder = self._settings.folder(self._output / 'evaluate')
        return compare_models(
            [self._operating_point], self._settings, self._bit_depths, self._detector,
            folder / 'evaluate.json', progress,
        )

    def _compare_baselines(self, progress: StageProgress) -> StudyResult:
        options = BaselineOptions(
            reference=self._detector, rates=BASELINE_BITS, qualities=self._qualities
        )
        return compare_baselines(
            self._operating_point, self._settings, self._output / 'baselines',
            self._image_codecs, options, progress,
        )

    def _add_papers_noise(self, progress: StageProgress) -> StudyResult:
        return measure_importance(
            self._detector, self._settings, self._output / 'importance', progress=progress
        )

    def _add_relative_noise(self, progress: StageProgress) -> StudyResult:
        return measure_importance(
            self._detector, self._settings, self._output / 'importance_relative', 1.0,
            relative=True, progress=progress,
        )


def _papers_width(plan: Path, swept: Path, runs: Sequence[Path]) -> Path:
    """Return the sweep's model whose C' is nearest to the paper's share of the channels."""
    chosen = load_sweep(plan)
    folders = {width: swept / f'c{width}' for width in chosen.code_channels}
    folders |= runs_by_width(runs, chosen)
    last = chosen.steps[-1].name
    channels = {
        width: describe_model(folder / last)['codec']['channels']
        for width, folder in folders.items()
    }
    width = min(folders, key=lambda width: abs(width * PAPERS_SHARE - channels[width]))
    return folders[width] / last

"""The sweep over C' (the paper's Fig. 5): one detector, and a codec of each width behind it.

n needs no training: it is applied at inference only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from lightning_fabric import Fabric

from msfc.data import CocoDataset
from msfc.evaluation.report import weights_digest
from msfc.model import SplitModel
from msfc.model_file import DESCRIPTION_FILE, describe_model, load_model, save_model
from msfc.progress import TrainingProgress
from msfc.training.experiment import Experiment, Step, load_experiment, read_steps
from msfc.training.trainer import Trainer, build_model
from msfc.wire.quantizer import check_bit_depth

CODE_CHANNELS = (8, 16, 32, 64)
"""The paper's C'."""

BITS = (2, 4, 8, 16, 32)
"""The paper's n."""

DETECTOR = 'detector'
"""Folder of the detector that all codecs start from."""

DETECTOR_RUN = 'detector_run'
"""Folder of the training of that detector, where none was given."""

_QUICK_ITERATIONS = 2
_QUICK_BATCH = 2
_KEYS = ('experiment', 'code_channels', 'bits', 'steps')


@dataclass(frozen=True)
class Sweep:
    """What to train for each C', and what to measure.

    Attributes:
        experiment: detector, codec, data and precision; of its steps, those of the detector.
        steps: the steps for each C'; the last one's models are the sweep's, those of the ones
            before are measured beside them.
        code_channels: the widths C'.
        bits: the bit depths n.

    Raises:
        ValueError: an impossible value; the message names the key.
    """

    experiment: Experiment
    steps: tuple[Step, ...]
    code_channels: tuple[int, ...] = CODE_CHANNELS
    bits: tuple[int, ...] = BITS

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError('no steps that train a codec')
        for step in self.steps:
            if step.trains == 'detector':
                raise ValueError(f'step {step.name}: the detector is trained once for all')
        for name, values in (('code_channels', self.code_channels), ('bits', self.bits)):
            if not values or len(set(values)) != len(values):
                raise ValueError(f'{name} must be numbers, each of them once')
        if min(self.code_channels) < 1:
            raise ValueError('code_channels must be 1 or more')
        for depth in self.bits:
            check_bit_depth(depth)
        # Fails now, not after hours, where the steps do not go together.
        self.of_width(self.code_channels[0])

    def detector_experiment(self) -> Experiment | None:
        """Return the training of the detector; None if the experiment starts from a trained one.

        Raises:
            ValueError: it does neither.
        """
        steps = tuple(step for step in self.experiment.steps if step.trains == 'detector')
        if steps:
            return replace(self.experiment, steps=steps)
        if self.experiment.start_from or self.experiment.detector.get('weights'):
            return None
        raise ValueError('the experiment does not train a detector: give a trained one')

    def of_width(self, code_channels: int) -> Experiment:
        """Return the training behind a given detector for one C'."""
        return replace(
            self.experiment,
            # The detector is given as a model: where its folder lies is no setting.
            detector=self.experiment.detector or {'type': 'given'},
            start_from='',
            codec={**self.experiment.codec, 'code_channels': code_channels},
            steps=self.steps,
            val_images=0,
        )

    def quick(self) -> Sweep:
        """Return a sweep of a few iterations, that shows only whether everything works."""

        def few(steps: Sequence[Step]) -> tuple[Step, ...]:
            return tuple(
                replace(
                    step,
                    iterations=min(step.iterations, _QUICK_ITERATIONS),
                    batch_size=min(step.batch_size, _QUICK_BATCH),
                )
                for step in steps
            )

        base = replace(self.experiment, steps=few(self.experiment.steps), val_images=0)
        return replace(self, experiment=base, steps=few(self.steps))


def load_sweep(path: Path) -> Sweep:
    """Read a sweep from a YAML file.

    ================= =========================================================================
    ``experiment``    file of the base experiment, relative to this one
    ``code_channels`` list of C'; the paper's by default
    ``bits``          list of n; the paper's by default
    ``steps``         the steps for each C'; by default those of the base experiment that do not
                      train the detector alone
    ================= =========================================================================

    Raises:
        OSError: a file is missing.
        ValueError: a file is not what it should be; the message names the key.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
    except yaml.YAMLError as error:
        raise ValueError(f'{path} is not YAML: {" ".join(str(error).split())}') from error
    if not isinstance(values, dict) or not isinstance(values.get('experiment'), str):
        raise ValueError(f'{path} is not a sweep: it must name its experiment')
    unknown = sorted(set(map(str, values)) - set(_KEYS))
    if unknown:
        raise ValueError(f'{path}: unknown keys {unknown}; known are {list(_KEYS)}')
    base = load_experiment(path.parent / values['experiment'])
    steps = read_steps(values.get('steps'), path) or tuple(
        step for step in base.steps if step.trains != 'detector'
    )
    try:
        return Sweep(
            base,
            steps,
            _whole_numbers(values.get('code_channels', CODE_CHANNELS), 'code_channels'),
            _whole_numbers(values.get('bits', BITS), 'bits'),
        )
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


def place_detector(
    sweep: Sweep,
    data: Path,
    output: Path,
    fabric: Fabric,
    source: SplitModel | None = None,
    progress: TrainingProgress | None = None,
    **options: Any,
) -> Path:
    """Put the detector that all codecs start from into the sweep's folder; train it if need be.

    Args:
        sweep: what to do.
        data: folder of a COCO-format data set.
        output: folder of the sweep.
        fabric: launched Lightning Fabric.
        source: model whose detector it is; None takes that of an earlier call, or trains one by
            the experiment's steps, or takes what the experiment starts from if it has no such
            steps. One that was trained here must still be the experiment's.
        progress: as that of :class:`~msfc.training.trainer.Trainer`.
        options: further arguments of the trainer.

    Returns:
        Folder of the detector, a model without codec.

    Raises:
        ValueError: the folder has another detector already, or one that was trained by other
            settings, or the experiment has none.
    """
    folder = output / DETECTOR
    there = (folder / DESCRIPTION_FILE).is_file()
    if source is None and there and not (output / DETECTOR_RUN).is_dir():
        return folder
    if source is None:
        plan = sweep.detector_experiment()
        if plan is not None:
            run = Trainer(plan, data, output / DETECTOR_RUN, fabric, progress=progress, **options)
            source = run.run()
        else:
            classes = CocoDataset(data, sweep.experiment.train_split).class_names
            notes: list[str] = []
            source = build_model(sweep.experiment, classes, notes=notes)
            if notes:
                raise ValueError(f'{notes[0]}; the experiment needs a step that trains them')
    bare = SplitModel(source.detector)
    if there:
        if weights_digest(load_model(folder)) != weights_digest(bare):
            raise ValueError(
                f'{folder} is another detector than the one to start from: choose another '
                'output folder'
            )
        return folder
    save_model(bare, folder, half=False)
    return folder


def train_sweep(
    sweep: Sweep,
    data: Path,
    output: Path,
    fabric: Fabric,
    given: Mapping[int, Path] | None = None,
    progress: TrainingProgress | None = None,
    **options: Any,
) -> dict[int, Path]:
    """Train what is missing; resumes an interrupted run.

    Args:
        sweep: what to do.
        data: folder of a COCO-format data set.
        output: folder of the sweep, with its detector, see :func:`place_detector`.
        fabric: launched Lightning Fabric.
        given: folders of finished runs by their C', from :func:`runs_by_width`.
        progress: as that of :class:`~msfc.training.trainer.Trainer`.
        options: further arguments of the trainer.

    Returns:
        Folder by C'; in it there is a model for each step.

    Raises:
        KeyboardInterrupt: on Ctrl-C, with a checkpoint written.
        ValueError: the folder holds a sweep of other settings.
    """
    folders: dict[int, Path] = {}
    for width in sweep.code_channels:
        if given and width in given:
            folders[width] = given[width]
            continue
        folders[width] = output / f'c{width}'
        Trainer(
            sweep.of_width(width), data, folders[width], fabric,
            progress=_named(progress, f"C'={width}"),
            detector=load_model(output / DETECTOR).detector, **options,
        ).run()
    return folders


def runs_by_width(runs: Sequence[Path], sweep: Sweep) -> dict[int, Path]:
    """Return finished runs of ``msfc train`` by the C' of their codecs.

    Args:
        runs: their output folders.
        sweep: whose steps they must have.

    Raises:
        ValueError: a step is missing or has no codec, two runs have one C', or the sweep has no
            such C'.
    """
    found: dict[int, Path] = {}
    for run in runs:
        for step in sweep.steps:
            codec = describe_model(run / step.name)['codec']
            if codec is None:
                raise ValueError(f'{run / step.name} has no codec')
        width = int(codec['code_channels'])
        if width in found:
            raise ValueError(f"{found[width]} and {run} both have C'={width}")
        if width not in sweep.code_channels:
            raise ValueError(f"{run} has C'={width}, which the sweep does not have")
        found[width] = run
    return found


def _named(progress: TrainingProgress | None, name: str) -> Callable[..., None] | None:
    if progress is None:
        return None
    return lambda stage, *rest: progress(f'{name}, {stage}', *rest)


def _whole_numbers(values: Any, name: str) -> tuple[int, ...]:
    numbers = isinstance(values, (list, tuple)) and all(
        isinstance(value, int) and not isinstance(value, bool) for value in values
    )
    if not numbers:
        raise ValueError(f'{name} must be a list of whole numbers')
    return tuple(values)

"""An experiment: one YAML file that says all that a training run needs."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from msfc.settings import check_number
from msfc.training.augmentation import Augmentation
from msfc.training.distill import DistillSettings

TRAINS = ('detector', 'codec', 'encoder', 'all')
PRECISIONS = ('32-true', 'bf16-mixed')
# Of torchvision's detectors.
_ONLY_MEASURED = ('score_threshold', 'max_detections')
OPTIMIZERS = ('adamw', 'sgd', 'muon')
OBJECTIVES = ('task', 'distill')

_RENAMED = {'msfc': "codec, such as 'codec: {type: msfc, code_channels: 64}'", 'bit_depth': 'rate'}
"""Keys of earlier versions, and what took their place."""


@dataclass(frozen=True)
class Step:
    """One training step.

    Attributes:
        name: of the step and of its output folder.
        trains: ``detector`` (no codec in between), ``codec`` (everything else frozen),
            ``encoder`` (the codec's robot half alone: fingerprint and receivers stay) or ``all``.
        iterations: optimiser steps.
        batch_size: images per optimiser step, over all processes.
        learning_rate: peak of the one-cycle schedule (linear warm-up, cosine to zero).
        warmup: share of the iterations that the learning rate rises.
        weight_decay: of the optimiser; the default is one for AdamW, SGD's is 1e-4 or so.
        clip_norm: gradients are scaled down to this norm.
        feature_weight: weight of the mean squared difference between the rebuilt pyramid and the
            extracted one, added to the detector's own loss; the paper has none (0).
        loss_weights: factors of the detector's losses by their names in the log, such as
            ``loss_mask: 2``; a loss that is not named keeps 1, as all do in the paper.
        freeze_norms: batch norm layers use their running statistics and keep them; for short
            training of a trained model, in small batches of images that differ much.
        freeze: beginnings of the names of parameters that stay as they are besides, such as
            ``detector.model.backbone.body.layer1``: the first stages need no training on, and
            cost a sixth of the time of an iteration (Detectron2's ``FREEZE_AT``).
        optimizer: ``adamw`` or ``sgd``, which the paper leaves open, or ``muon`` for a learned
            codec, see :class:`msfc.training.optimizers.Muon`.
        momentum: of SGD and Muon.
        gains_factor: on the learning rate, for a learned codec's gains and what else is of one
            rate.
        entropy_factor: on the learning rate, for a learned codec's entropy model. One that is
            trained already loses half of what it knows at a rate that its transforms want.
        hold: share of the iterations, after the rise, at the peak of the learning rate.
        objective: ``task``, the detector's own losses against labels, or ``distill``, without
            labels: the answers of the uncompressed detector are the goal.
        distill: weights and samples of ``distill``, see
            :class:`msfc.training.distill.DistillSettings`.
        byte_targets: bytes that each rate of a learned codec shall take, cheapest first, at the
            size of the training images; what a bit costs follows them.
        average: the codec's weights are averaged over about 1 / (1 - average) iterations; 0 takes
            the last ones.
        keep_answers: ``distill``: the detector's answers to the training images are kept in the
            output folder, 2 MB an image of 256 x 320 pixels with 128 channels. Images are not
            changed then.
        mirror_answers: the answers to the mirrored images are kept as well, and trained on.

    Raises:
        ValueError: an impossible value; the message names the key.
    """

    name: str
    trains: str
    iterations: int
    batch_size: int = 4
    learning_rate: float = 5e-4
    warmup: float = 0.05
    weight_decay: float = 0.02
    clip_norm: float = 10.0
    feature_weight: float = 0.0
    loss_weights: dict[str, float] = field(default_factory=dict)
    freeze_norms: bool = False
    freeze: list[str] = field(default_factory=list)
    optimizer: str = 'adamw'
    momentum: float = 0.9
    gains_factor: float = 10.0
    entropy_factor: float = 1.0
    hold: float = 0.0
    objective: str = 'task'
    distill: dict[str, float] = field(default_factory=dict)
    byte_targets: list[float] = field(default_factory=list)
    average: float = 0.0
    keep_answers: bool = True
    mirror_answers: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r'\w[\w.-]*', self.name):
            raise ValueError(f'step name {self.name!r} cannot be the name of a folder')
        where = f'step {self.name}'
        if self.trains == 'msfc':
            raise ValueError(f"{where}: 'trains: msfc' is now 'trains: codec'")
        if self.trains not in TRAINS:
            raise ValueError(f'{where}: trains is {self.trains!r}, not one of {TRAINS}')
        if self.iterations < 1 or self.batch_size < 1:
            raise ValueError(f'{where}: iterations and batch_size must be 1 or more')
        if not 0 <= self.warmup < 1:
            raise ValueError(f'{where}: warmup must be in [0, 1)')
        if self.learning_rate <= 0 or self.clip_norm <= 0:
            raise ValueError(f'{where}: learning_rate and clip_norm must be more than 0')
        if self.weight_decay < 0 or self.feature_weight < 0:
            raise ValueError(f'{where}: weight_decay and feature_weight must be 0 or more')
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f'{where}: optimizer is {self.optimizer!r}, not one of {OPTIMIZERS}')
        self._check_codec(where)
        if not 0 <= self.momentum < 1:
            raise ValueError(f'{where}: momentum must be in [0, 1)')
        for name in ('gains_factor', 'entropy_factor'):
            check_number(getattr(self, name), f'{where}: {name}', 1e-6, 1000)
        for name, weight in self.loss_weights.items():
            if weight < 0:
                raise ValueError(f'{where}: the weight of {name} must be 0 or more')

    def _check_codec(self, where: str) -> None:
        if not 0 <= self.hold <= 1 - self.warmup:
            raise ValueError(f'{where}: warmup and hold must be 0 or more, and 1 at most together')
        if self.objective not in OBJECTIVES:
            raise ValueError(f'{where}: objective is {self.objective!r}, not one of {OBJECTIVES}')
        frozen = self.trains in ('codec', 'encoder')
        if self.objective == 'distill' and not (frozen and self.byte_targets):
            raise ValueError(
                f"{where}: 'objective: distill' needs 'trains: codec' or 'trains: encoder', and "
                'byte_targets'
            )
        if self.mirror_answers and not (self.objective == 'distill' and self.keep_answers):
            raise ValueError(
                f"{where}: mirror_answers needs 'objective: distill' and keep_answers"
            )
        if self.byte_targets and self.trains == 'detector':
            raise ValueError(f"{where}: byte_targets are of a codec, 'trains: detector' has none")
        if self.optimizer == 'muon' and not self.byte_targets:
            raise ValueError(f"{where}: 'optimizer: muon' is for learned codecs: byte_targets")
        if any(target <= 0 for target in self.byte_targets):
            raise ValueError(f'{where}: byte_targets must be more than 0')
        if self.byte_targets != sorted(self.byte_targets):
            raise ValueError(f'{where}: byte_targets must rise, as rates do')
        if not 0 <= self.average < 1:
            raise ValueError(f'{where}: average must be in [0, 1)')
        try:
            DistillSettings.from_dict(self.distill)
        except ValueError as error:
            raise ValueError(f'{where}: distill: {error}') from error

    def settings(self) -> dict[str, Any]:
        """Return what decides the weights that the step makes."""
        settings = asdict(self)
        if self.trains == 'codec':
            settings['trains'] = 'msfc'  # as it was called: digests from then stay valid
        added = (
            'loss_weights', 'freeze_norms', 'freeze', 'optimizer', 'momentum', 'hold', 'objective',
            'distill', 'byte_targets', 'average', 'keep_answers', 'mirror_answers',
            'gains_factor', 'entropy_factor',
        )
        plain = asdict(Step('plain', 'codec', 1))
        for name in added:
            # Digests from before these keys stay valid.
            if settings[name] == plain[name]:
                del settings[name]
        return settings


@dataclass(frozen=True)
class Experiment:
    """What to train, on what, and how.

    Attributes:
        detector: what :func:`msfc.detectors.build_detector` takes, or ``type: detectron2`` with a
            ``config_file`` and more keys of
            :meth:`msfc.detectors.detectron2.Detectron2Detector.from_settings`. Without
            ``class_names``, the data set's are used.
        codec: what :func:`msfc.codecs.base.build_codec` takes; ``channels`` follow the detector.
        steps: the training steps in their order.
        start_from: model folder, or name of a shipped model, to start from instead of random
            weights; its detector takes the place of ``detector``, but for what that names, such
            as ``min_size``; its codec, if it has one, that
            of ``codec``.
        codec_from: model folder whose codec to start from, in place of ``codec``: a codec that was
            fitted to another detector is fitted to a new one faster than one of random weights.
        train_split: of the data set, trained on; its images without objects are left out.
        empty_split: of the data set, images without objects which are trained on as well; none by
            default.
        augment: how training images are changed.
        val_split: of the data set, measured after each step.
        val_images: how many images of it are measured; 0 for none.
        rate: the model's default rate, one that the codec's coder knows (for ``msfc`` n); the
            codec's own by default.
        precision: ``32-true`` or ``bf16-mixed``, as Lightning Fabric names them.
        seed: decides initial weights, order of the data and sampling.

    Raises:
        ValueError: an impossible value; the message names the key.
    """

    detector: dict[str, Any] = field(default_factory=dict)
    codec: dict[str, Any] = field(default_factory=lambda: {'type': 'msfc'})
    steps: tuple[Step, ...] = ()
    start_from: str = ''
    codec_from: str = ''
    train_split: str = 'train'
    empty_split: str = ''
    augment: Augmentation = field(default_factory=Augmentation)
    val_split: str = 'val'
    val_images: int = 200
    rate: int | None = None
    precision: str = '32-true'
    seed: int = 0

    def __post_init__(self) -> None:
        if ('type' in self.detector) == bool(self.start_from):
            raise ValueError(
                'give either detector or start_from; beside start_from, detector is for settings '
                "that differ from that model's, without type"
            )
        if not self.steps:
            raise ValueError('no steps')
        if len({step.name for step in self.steps}) != len(self.steps):
            raise ValueError('two steps of one name')
        if self.precision not in PRECISIONS:
            raise ValueError(f'precision is {self.precision!r}, not one of {PRECISIONS}')
        if self.val_images < 0 or self.seed < 0:
            raise ValueError('val_images and seed must be 0 or more')

    def with_weights(self, weights: str) -> Experiment:
        """Return this experiment with other weights for its Detectron2 detector.

        Args:
            weights: file or address, in place of the detector's ``weights``.

        Raises:
            ValueError: the experiment has no detector from a Detectron2 configuration file.
        """
        if 'config_file' not in self.detector:
            raise ValueError(
                'weights can be given where the detector has a config_file (type detectron2); '
                'other experiments take start_from'
            )
        return replace(self, detector={**self.detector, 'weights': weights})

    def settings_digest(self, step: Step) -> str:
        """Return a digest of all settings that decide the weights up to the end of a step.

        Later steps may still be changed, as may what only decides how results are measured.
        """
        return self._digest(step, _trained_settings(self.detector))

    def made(self, step: Step, digest: str | None) -> bool:
        """Return whether a digest is that of a step's settings, None being that of any."""
        # Runs from before say what is only measured too.
        known = (None, self.settings_digest(step), self._digest(step, self.detector))
        return digest in known

    def _digest(self, step: Step, detector: dict[str, Any]) -> str:
        steps = self.steps[: self.steps.index(step) + 1]
        codec = dict(self.codec)
        if codec.get('type') == 'msfc':
            del codec['type']  # the only type once: digests from then stay valid
        settings: list[Any] = [
            detector, codec, self.start_from, self.train_split, self.seed,
            *(done.settings() for done in steps),
        ]
        # Digests from before these keys stay valid.
        if self.empty_split:
            settings.append({'empty_split': self.empty_split})
        if self.codec_from:
            settings.append({'codec_from': self.codec_from})
        if self.augment != Augmentation():
            settings.append({'augment': asdict(self.augment)})
        text = json.dumps(settings, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _trained_settings(detector: dict[str, Any]) -> dict[str, Any]:
    """Return a detector's settings without those that only decide what it finds once trained."""
    kept = {key: value for key, value in detector.items() if key not in _ONLY_MEASURED}
    overrides = kept.get('overrides')
    if isinstance(overrides, dict):
        kept['overrides'] = {
            key: value
            for key, value in overrides.items()
            # Detectron2's names; images have the size of tests in training too.
            if key.startswith('INPUT.')
            or not (key.startswith('TEST.') or str(key).endswith('_TEST'))
        }
    return kept


def _read_value(kind: str, value: Any, where: str) -> Any:
    """Check one value against the annotation of its field."""
    if kind == 'float' and isinstance(value, str):
        # YAML 1.1 takes 8e-4, without a dot, for text.
        try:
            value = float(value)
        except ValueError:
            raise ValueError(f'{where} is {value!r}, not a number') from None
    if kind == 'float':
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise ValueError(f'{where} is {value!r}, not a number')
        return float(value)
    if kind.startswith('int') and (not isinstance(value, int) or isinstance(value, bool)):
        raise ValueError(f'{where} is {value!r}, not a whole number')
    if kind == 'bool' and not isinstance(value, bool):
        raise ValueError(f'{where} is {value!r}, not true or false')
    if kind == 'str' and not isinstance(value, str):
        raise ValueError(f'{where} is {value!r}, not text')
    if kind == 'Augmentation':
        values = _read(Augmentation, value, where)
        try:
            return Augmentation(**values)
        except ValueError as error:
            raise ValueError(f'{where}: {error}') from error
    if kind.startswith('dict') and not isinstance(value, dict):
        raise ValueError(f'{where} is {value!r}, not keys and values')
    if kind == 'bool' and not isinstance(value, bool):
        raise ValueError(f'{where} is {value!r}, not true or false')
    if kind == 'list[float]':
        if not isinstance(value, list):
            raise ValueError(f'{where} is {value!r}, not a list of numbers')
        return [_read_value('float', one, where) for one in value]
    if kind == 'list[str]':
        if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
            raise ValueError(f'{where} is {value!r}, not a list of names')
        return value
    if kind == 'dict[str, float]':
        return {str(k): _read_value('float', v, f'{where}: {k}') for k, v in value.items()}
    return value


def _read(
    kind: type[Step] | type[Experiment] | type[Augmentation], values: Any, where: str
) -> dict[str, Any]:
    """Check the keys and the types of their values."""
    if not isinstance(values, dict):
        raise ValueError(f'{where}: expected keys and values, got {values!r}')
    known = {entry.name: entry for entry in fields(kind)}
    for old, new in _RENAMED.items():
        if old in values and old not in known:
            raise ValueError(f'{where}: {old} is now {new}')
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ValueError(f'{where}: unknown keys {unknown}; known are {sorted(known)}')
    needed = {
        name for name, entry in known.items()
        if entry.default is MISSING and entry.default_factory is MISSING
    }
    missing = sorted(needed - set(values))
    if missing:
        raise ValueError(f'{where}: {", ".join(missing)} missing')
    return {
        key: _read_value(str(known[key].type), value, f'{where}: {key}')
        for key, value in values.items()
    }


def read_steps(values: Any, path: Path) -> tuple[Step, ...]:
    """Read the list of training steps.

    Args:
        values: what YAML has of it; None for no steps.
        path: the file, for messages.

    Raises:
        ValueError: it is no list of steps; the message names the key.
    """
    if not isinstance(values or [], list):
        raise ValueError(f'{path}: steps must be a list')
    read = [_read(Step, step, f'{path}, step {k}') for k, step in enumerate(values or [], start=1)]
    try:
        return tuple(Step(**step) for step in read)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


def load_experiment(path: Path) -> Experiment:
    """Read an experiment.

    Raises:
        OSError: there is no such file.
        ValueError: the file is not an experiment; the message names the key.
    """
    try:
        values = _read(Experiment, yaml.safe_load(path.read_text(encoding='utf-8')), str(path))
    except yaml.YAMLError as error:
        raise ValueError(f'{path} is not YAML: {" ".join(str(error).split())}') from error
    steps = read_steps(values.pop('steps', None), path)
    try:
        return Experiment(steps=steps, **values)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error

"""An experiment: one YAML file that says all that a training run needs."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

TRAINS = ('detector', 'msfc', 'all')


@dataclass(frozen=True)
class Step:
    """One training step.

    Attributes:
        name: of the step and of its output folder.
        trains: ``detector`` (no codec in between), ``msfc`` (everything else frozen) or ``all``.
        iterations: optimiser steps.
        batch_size: images per optimiser step, over all processes.
        learning_rate: peak of the one-cycle schedule (linear warm-up, cosine to zero).
        warmup: share of the iterations that the learning rate rises.
        weight_decay: of AdamW.
        clip_norm: gradients are scaled down to this norm.
        feature_weight: weight of the mean squared difference between the rebuilt pyramid and the
            extracted one, added to the detector's own loss; the paper has none (0).
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

    def __post_init__(self) -> None:
        if self.trains not in TRAINS:
            raise ValueError(f'step {self.name}: trains is {self.trains!r}, not one of {TRAINS}')
        if self.iterations < 1 or self.batch_size < 1:
            raise ValueError(f'step {self.name}: iterations and batch_size must be 1 or more')
        if not 0 <= self.warmup < 1:
            raise ValueError(f'step {self.name}: warmup must be in [0, 1)')


@dataclass(frozen=True)
class Experiment:
    """What to train, on what, and how.

    Attributes:
        detector: what :func:`msfc.detectors.build_detector` takes; without ``class_names``, the
            data set's are used.
        msfc: what :class:`msfc.codec.MSFCConfig` takes; ``channels`` follow the detector.
        steps: the training steps in their order.
        train_split: of the data set, trained on.
        val_split: of the data set, measured after each step.
        bit_depth: the model's default bits per code element; not used in training.
        precision: ``32-true`` or ``bf16-mixed``, as Lightning Fabric names them.
        seed: decides initial weights, order of the data and sampling.
    """

    detector: dict[str, Any]
    msfc: dict[str, Any]
    steps: tuple[Step, ...]
    train_split: str = 'train'
    val_split: str = 'val'
    bit_depth: int = 4
    precision: str = '32-true'
    seed: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


def _checked(kind: type, values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ValueError(f'{where}: expected keys and values, got {values!r}')
    known = {entry.name for entry in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f'{where}: unknown keys {unknown}; known are {sorted(known)}')
    return values


def load_experiment(path: Path) -> Experiment:
    """Read an experiment.

    Raises:
        ValueError: the file is not an experiment; the message names the key.
    """
    values = _checked(Experiment, yaml.safe_load(path.read_text()), str(path))
    try:
        steps = tuple(
            Step(**_checked(Step, step, f'{path}, steps')) for step in values.pop('steps', [])
        )
        experiment = Experiment(steps=steps, **values)
    except TypeError as error:
        raise ValueError(f'{path}: {error}') from error
    if not steps:
        raise ValueError(f'{path}: no steps')
    if len({step.name for step in steps}) != len(steps):
        raise ValueError(f'{path}: two steps of one name')
    return experiment

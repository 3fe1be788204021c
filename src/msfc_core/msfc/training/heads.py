"""Trains a head on the pyramid of a finished detector, which stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional

from msfc.data.semantic import IGNORED, SemanticDataset
from msfc.detectors.base import SplitDetector
from msfc.evaluation.semantic import SemanticMeasurement, measure_semantic
from msfc.heads import build_head
from msfc.heads.head_file import save_head
from msfc.heads.semantic import SemanticHead, resized
from msfc.model import SplitModel
from msfc.model_file import load_model
from msfc.pipeline.torch_network import image_to_tensor
from msfc.progress import StageProgress, no_progress, progress_of_stage
from msfc.settings import check_number
from msfc.training.batches import epoch_order, iteration_seed
from msfc.types import Pyramid

STEP = 'head'


@dataclass(frozen=True)
class HeadExperiment:
    """All that the training of a head needs, one YAML file.

    Attributes:
        model: model folder, or name of a shipped model, whose detector it is for.
        head: its ``type`` and settings; classes and what follows from the detector are added.
        train_split: images to train on, those that have labels.
        val_split: images to measure on at the end.
        train_images: the first so many; all by default.
        val_images: the first so many; all by default.
        iterations: optimiser steps.
        batch_size: images per optimiser step.
        learning_rate: peak of the one-cycle schedule of AdamW.
        weight_decay: of AdamW.
        keep_features: keep the pyramid of each image, and that of its mirror image, in half
            precision in memory: 1.6 MB for 240 x 320 pixels and 128 channels.
        seed: of all random choices.

    Raises:
        ValueError: an impossible value; the message names the key.
    """

    model: str
    head: dict[str, Any] = field(default_factory=lambda: {'type': 'fpn_semantic'})
    train_split: str = 'train'
    val_split: str = 'val'
    train_images: int | None = None
    val_images: int | None = None
    iterations: int = 1000
    batch_size: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    keep_features: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ('model', 'train_split', 'val_split'):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f'{name} is {getattr(self, name)!r}, not a name')
        if not isinstance(self.head, Mapping):
            raise ValueError(f'head is {self.head!r}, not a type and settings')
        for name in ('train_images', 'val_images', 'iterations', 'batch_size'):
            if getattr(self, name) is not None:
                check_number(getattr(self, name), name, 1, 10**9, whole=True)
        check_number(self.seed, 'seed', 0, 2**62, whole=True)
        check_number(self.learning_rate, 'learning_rate', 1e-9, 1e3)
        check_number(self.weight_decay, 'weight_decay', 0, 1e3)
        if not isinstance(self.keep_features, bool):
            raise ValueError(f'keep_features is {self.keep_features!r}, not true or false')


def load_head_experiment(path: Path) -> HeadExperiment:
    """Read an experiment.

    Raises:
        OSError: it is missing.
        ValueError: it is no experiment of a head; the message says what is wrong.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
    except yaml.YAMLError as error:
        raise ValueError(f'{path} is no YAML: {error}') from error
    if not isinstance(values, dict):
        raise ValueError(f'{path} has no keys and values')
    known = [entry.name for entry in fields(HeadExperiment)]
    if unknown := sorted(str(key) for key in values if key not in known):
        raise ValueError(f'{path}: unknown keys {unknown}; known are {", ".join(known)}')
    if 'model' not in values:
        raise ValueError(f'{path} does not say of which model')
    try:
        return HeadExperiment(**values)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


@dataclass(frozen=True)
class HeadReport:
    """What a training came to.

    Attributes:
        parameters: of the head.
        losses: of each iteration.
        measured: on the validation images, uncompressed.
    """

    parameters: int
    losses: tuple[float, ...]
    measured: SemanticMeasurement


def train_head(
    experiment: HeadExperiment,
    data: Path,
    output: Path,
    device: str = 'cpu',
    progress: StageProgress = no_progress,
) -> HeadReport:
    """Train a head, measure it and write it.

    Args:
        experiment: what to train.
        data: folder of a data set with the class of each pixel, see :mod:`msfc.data.semantic`.
        output: folder for the head's files.
        device: ``cpu`` or ``cuda``.
        progress: shows how far it is.

    Raises:
        OSError: a file is missing, or the output cannot be written.
        ValueError: something given is not what it should be.
    """
    detector = load_model(experiment.model, device).detector
    images = SemanticDataset(data, experiment.train_split, experiment.train_images)
    unseen = SemanticDataset(data, experiment.val_split, experiment.val_images)
    torch.manual_seed(experiment.seed)
    head = _new_head(experiment, detector, images.class_names)
    source = _Features(detector, images, experiment.keep_features)
    losses = _fit(head, source, experiment, progress_of_stage(progress, 'training the head'))
    extra = {'experiment': vars(experiment), 'images': len(images)}
    save_head(head, output, detector, extra)  # whatever becomes of the measuring
    # As it will be read: half precision is what is stored.
    shown = progress_of_stage(progress, 'measuring')
    (measured,) = measure_semantic(SplitModel(detector), _as_stored(head), unseen, (), shown)
    extra |= {
        'val_images': len(unseen),
        'val_mean_iou': measured.mean_iou,
        'val_iou': {k: None if np.isnan(v) else v for k, v in measured.ious.items()},
    }
    save_head(head, output, detector, extra)
    return HeadReport(sum(p.numel() for p in head.parameters()), tuple(losses), measured)


def _new_head(
    experiment: HeadExperiment, detector: SplitDetector, class_names: tuple[str, ...]
) -> Any:
    levels = sorted(detector.strides, key=lambda level: detector.strides[level])
    head = build_head({
        'class_names': list(class_names), 'levels': levels,
        'feature_channels': detector.feature_channels, **experiment.head,
    })
    return head.to(detector.device)


def _as_stored(head: Any) -> SemanticHead:
    """Return a copy with the weights that its file will have."""
    copy = build_head(head.config()).to(next(head.parameters()).device)
    copy.load_state_dict({
        name: tensor.half().float() if tensor.dim() > 1 else tensor
        for name, tensor in head.state_dict().items()
    })
    assert isinstance(copy, SemanticHead)
    return copy.eval()


class _Features:
    """Pyramids and labels of a data set's images, computed once if they are to be kept."""

    def __init__(self, detector: SplitDetector, dataset: SemanticDataset, keep: bool) -> None:
        self._detector, self._dataset, self._keep = detector, dataset, keep
        self._kept: dict[tuple[int, bool], tuple[Pyramid, Tensor]] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    @torch.no_grad()
    def get(self, index: int, mirror: bool) -> tuple[Pyramid, Tensor]:
        """Return an image's pyramid, 1 x C x h x w, and its labels at the padded input's size."""
        found = self._kept.get((index, mirror))
        if found is None:
            example = self._dataset[index]
            image, labels = image_to_tensor(example.image), torch.from_numpy(example.labels)
            if mirror:
                image, labels = image.flip(-1), labels.flip(-1)
            batch = self._detector.preprocess([image])
            pyramid = self._detector.extract(batch)
            ((height, width),) = batch.sizes.valid
            target = torch.full((1, 1, *batch.sizes.padded), float(IGNORED))
            target[..., :height, :width] = functional.interpolate(
                labels[None, None].float(), size=(height, width), mode='nearest-exact'
            )
            found = pyramid, target[:, 0].byte()
            if self._keep:
                half = {level: maps.half() for level, maps in pyramid.items()}
                self._kept[index, mirror] = half, found[1]
        pyramid, target = found
        return {level: maps.float() for level, maps in pyramid.items()}, target


def _fit(
    head: SemanticHead, source: _Features, experiment: HeadExperiment, progress: Any
) -> list[float]:
    """Train a head; return the loss of each iteration."""
    optimizer = torch.optim.AdamW(
        head.parameters(), experiment.learning_rate, weight_decay=experiment.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, experiment.learning_rate, experiment.iterations, pct_start=0.1
    )
    device = next(head.parameters()).device
    losses = []
    head.train()
    for iteration in range(experiment.iterations):
        rng = np.random.default_rng(iteration_seed(experiment.seed, STEP, iteration))
        total = 0.0
        for slot in range(experiment.batch_size):
            epoch, place = divmod(iteration * experiment.batch_size + slot, len(source))
            index = int(epoch_order(experiment.seed, STEP, epoch, len(source))[place])
            pyramid, target = source.get(index, bool(rng.random() < 0.5))
            logits = resized(head.logits(pyramid), (target.shape[1], target.shape[2]))
            goal = target.to(device, torch.long)
            loss = functional.cross_entropy(
                logits, goal, ignore_index=IGNORED, reduction='sum'
            ) / (max(int((goal != IGNORED).sum()), 1) * experiment.batch_size)
            loss.backward()
            total += loss.item()
        if not np.isfinite(total):
            raise ValueError(
                f'the loss is {total} in iteration {iteration}: lower learning_rate'
            )
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(total)
        progress(iteration + 1, experiment.iterations)
    return losses

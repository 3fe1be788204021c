"""The training loop: AMP, DDP and checkpoints by Lightning Fabric; one loop for all steps."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from msfc.codec import MSFC, MSFCConfig
from msfc.data import CocoDataset
from msfc.detectors import build_detector
from msfc.detectors.base import Pyramid
from msfc.model import SplitModel
from msfc.model_file import load_model, save_model
from msfc.training.batches import Batch, TrainingBatches, iteration_seed
from msfc.training.checkpoint import load_checkpoint, read_progress, save_checkpoint
from msfc.training.curves import plot_curves
from msfc.training.experiment import Experiment, Step

Progress = Callable[[str, int, int, dict[str, float]], None]
"""Called with step name, iterations done, iterations in all, and the latest losses."""

CHECKPOINT = 'checkpoint.safetensors'
LOG = 'log.jsonl'


class TrainingObjective(nn.Module):
    """The loss of one training step as a module, so that DDP sees every forward pass."""

    def __init__(self, model: SplitModel, step: Step) -> None:
        super().__init__()
        self.model = model
        self.step = step

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses by name; their sum is minimised."""
        images = [example.image for example in batch.examples]
        targets = [example.targets for example in batch.examples]
        if self.step.trains == 'detector':
            return self.model.detector.losses(images, targets)
        extra: dict[str, Tensor] = {}

        def through_codec(pyramid: Pyramid) -> Pyramid:
            # No quantiser here: the paper quantises at inference only.
            rebuilt = self.model.codec(pyramid)
            if self.step.feature_weight:
                distance = feature_distance(rebuilt, pyramid)
                extra['loss_features'] = self.step.feature_weight * distance
            return rebuilt

        losses = self.model.detector.losses(images, targets, through_codec)
        return {**losses, **extra}


def feature_distance(rebuilt: Pyramid, original: Pyramid) -> Tensor:
    """Return the mean squared difference per level over that level's variance, averaged.

    The original is the goal and gets no gradient.
    """
    distances = []
    for level, goal in original.items():
        goal = goal.detach().float()
        error = functional.mse_loss(rebuilt[level].float(), goal)
        distances.append(error / goal.var().clamp_min(1e-6))
    return torch.stack(distances).mean()


def prepare(model: SplitModel, step: Step) -> None:
    """Set what a step trains, and the modes of all modules.

    Frozen batch norm layers use their running statistics and keep them.
    """
    model.train()
    trained = {'detector': [model.detector], 'msfc': [model.codec], 'all': [model]}
    model.requires_grad_(False)
    for module in trained[step.trains]:
        module.requires_grad_(True)
    if step.trains == 'msfc':
        for module in model.detector.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def learning_rate(step: Step, iteration: int) -> float:
    """Return the one-cycle learning rate: linear rise, then a cosine to zero."""
    rise = step.warmup * step.iterations
    if iteration < rise:
        return step.learning_rate * (iteration + 1) / (rise + 1)
    done = (iteration - rise) / max(1.0, step.iterations - rise)
    return step.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def build_model(experiment: Experiment, class_names: Sequence[str]) -> SplitModel:
    """Build an experiment's model with random weights, decided by its seed."""
    torch.manual_seed(experiment.seed)
    detector = build_detector({'class_names': list(class_names), **experiment.detector})
    codec = MSFC(
        MSFCConfig.from_dict({'channels': detector.feature_channels, **experiment.msfc})
    )
    return SplitModel(detector, codec, experiment.bit_depth)


class Trainer:
    """Runs the steps of an experiment; what is finished or half done is taken up again.

    Writes ``<output>/<step>/model.safetensors`` and ``model.json`` per finished step,
    ``<output>/log.jsonl``, ``<output>/curves.png`` and the checkpoint of the current step.

    Args:
        experiment: what to train.
        data: folder of a COCO-format data set.
        output: folder for everything that is written.
        fabric: Lightning Fabric; decides devices, precision and processes.
        workers: processes that read data.
        checkpoint_every: seconds between checkpoints.
        progress: called now and then with where the training is.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: Path,
        output: Path,
        fabric: Fabric,
        workers: int = 1,
        checkpoint_every: float = 120.0,
        progress: Progress | None = None,
    ) -> None:
        self.experiment, self.output, self.fabric = experiment, output, fabric
        self.workers, self.checkpoint_every = workers, checkpoint_every
        self.progress = progress
        self.dataset = CocoDataset(data, experiment.train_split, only_with_objects=True)
        self.model = build_model(experiment, self.dataset.class_names).to(
            memory_format=torch.channels_last
        )
        output.mkdir(parents=True, exist_ok=True)

    def run(self) -> SplitModel:
        """Train all steps and return the model in evaluation mode."""
        for step in self.experiment.steps:
            folder = self.output / step.name
            if (folder / 'model.json').is_file():
                stored = load_model(folder)
                self.model.load_state_dict(stored.state_dict())
                continue
            self._run_step(step)
            if self.fabric.is_global_zero:
                # Full precision: the next step goes on from here.
                save_model(self.model, folder, half=False, extra={'step': step.name})
                (self.output / CHECKPOINT).unlink(missing_ok=True)
            self.fabric.barrier()
        return self.model.eval()

    def _run_step(self, step: Step) -> None:
        fabric, checkpoint = self.fabric, self.output / CHECKPOINT
        prepare(self.model, step)
        objective = TrainingObjective(self.model, step)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            trained, lr=step.learning_rate, weight_decay=step.weight_decay
        )
        start = 0
        done = read_progress(checkpoint)
        if done and done['step'] == step.name:
            load_checkpoint(checkpoint, self.model, optimizer)
            start = done['iteration']
        wrapped, optimizer = fabric.setup(objective, optimizer)
        batches = TrainingBatches(
            self.dataset, step.batch_size, self.experiment.seed, step.name,
            fabric.global_rank, fabric.world_size,
        )
        loader: DataLoader[Any] = DataLoader(
            batches, batch_size=None, sampler=range(start, step.iterations),
            num_workers=self.workers, prefetch_factor=2 if self.workers else None,
        )
        saved = time.monotonic()
        for iteration, batch in zip(range(start, step.iterations), loader, strict=True):
            rate = learning_rate(step, iteration)
            for group in optimizer.param_groups:
                group['lr'] = rate
            losses = self._iterate(step, iteration, batch, wrapped, optimizer)
            last = iteration + 1 == step.iterations
            if iteration % 20 == 0 or last:
                self._log(step, iteration, rate, losses)
            if time.monotonic() - saved > self.checkpoint_every and not last:
                self._save(step, iteration + 1, optimizer)
                saved = time.monotonic()

    def _iterate(
        self,
        step: Step,
        iteration: int,
        batch: Batch,
        objective: Any,
        optimizer: torch.optim.Optimizer,
    ) -> dict[str, Tensor]:
        # Proposal sampling draws from the global generator: seed it, for an exact resume.
        torch.manual_seed(
            iteration_seed(self.experiment.seed, step.name, iteration, self.fabric.global_rank)
        )
        losses: dict[str, Tensor] = objective(batch)
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        self.fabric.backward(total)
        if torch.isfinite(total):
            self.fabric.clip_gradients(
                objective, optimizer, max_norm=step.clip_norm, error_if_nonfinite=False
            )
            optimizer.step()
        return {**losses, 'loss': total}

    def _log(self, step: Step, iteration: int, rate: float, losses: dict[str, Tensor]) -> None:
        if not self.fabric.is_global_zero:
            return
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        entry = {'step': step.name, 'iteration': iteration, 'learning_rate': rate, **values}
        with (self.output / LOG).open('a') as file:
            file.write(json.dumps(entry) + '\n')
        if self.progress:
            self.progress(step.name, iteration + 1, step.iterations, values)

    def _save(self, step: Step, iteration: int, optimizer: torch.optim.Optimizer) -> None:
        if self.fabric.is_global_zero:
            progress = {'step': step.name, 'iteration': iteration}
            save_checkpoint(self.output / CHECKPOINT, self.model, optimizer, progress)
            plot_curves(self.output / LOG, self.output / 'curves.png')
        self.fabric.barrier()

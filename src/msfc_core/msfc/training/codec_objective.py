"""The losses of a learned codec's training, by labels or by the frozen detector's answers."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from msfc.codecs.learned import LearnedCodec
from msfc.codecs.learned.codec import level_sizes
from msfc.detectors.base import TeacherDetector
from msfc.model import SplitModel
from msfc.training.batches import Batch, epoch_order, iteration_seed
from msfc.training.distill import (
    Distillation,
    DistillSettings,
    RateControl,
    goal_pyramid,
)
from msfc.training.experiment import Step
from msfc.training.teacher import Answer, ask, read_answer
from msfc.types import Pyramid, Size

SLACK = 5.0
"""Factor on the byte targets at the beginning."""

SLACK_SHARE = 0.15
"""Share of the iterations after which the targets hold."""


class AnswerBatch:
    """The detector's answers to the images of one iteration."""

    def __init__(self, answers: list[Answer]) -> None:
        self.answers = answers


class AnswerBatches(Dataset[AnswerBatch]):
    """Batches of kept answers; item ``k`` is that of iteration ``k``.

    Every image is seen once per epoch, as :class:`~msfc.training.batches.TrainingBatches` orders
    them, but never changed: the answers are to the images as they are.

    Args:
        paths: the files.
        batch_size: images per iteration, over all processes.
        seed: of the experiment.
        step: name of the training step.
        rank: number of this process.
        world_size: number of processes; each gets its share of a batch.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        batch_size: int,
        seed: int,
        step: str,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size % world_size:
            raise ValueError(f'{world_size} processes cannot share batches of {batch_size}')
        self._paths, self._batch_size = paths, batch_size
        self._seed, self._step = seed, step
        self._rank, self._world_size = rank, world_size

    def __getitem__(self, iteration: int) -> AnswerBatch:
        answers = []
        for slot in range(self._rank, self._batch_size, self._world_size):
            epoch, place = divmod(iteration * self._batch_size + slot, len(self._paths))
            order = epoch_order(self._seed, self._step, epoch, len(self._paths))
            answers.append(read_answer(self._paths[int(order[place])]))
        return AnswerBatch(answers)


class CodecTraining(nn.Module):
    """What training a learned codec has besides the model: prices, and the weights' average.

    Its state is what a checkpoint needs for an exact resume.

    Args:
        model: with a learned codec.
        step: the training step; it has ``byte_targets``.

    Raises:
        ValueError: the codec is another one, or has not as many rates as there are targets.
    """

    def __init__(self, model: SplitModel, step: Step) -> None:
        super().__init__()
        codec = model.require_codec()
        where = f'step {step.name}'
        if not isinstance(codec, LearnedCodec):
            raise ValueError(f'{where}: byte_targets are for codecs of the type learned')
        if len(step.byte_targets) != codec.settings.rates:
            raise ValueError(
                f'{where}: {len(step.byte_targets)} byte_targets for {codec.settings.rates} rates'
            )
        self.model, self.step = model, step
        most = DistillSettings.from_dict(step.distill).most_price
        self.control = RateControl(step.byte_targets, codec.analysis.price, most=most)
        # A codec that is trained on has its bytes already.
        self._slack = 1.0 if codec.fitted else SLACK
        self.average: LearnedCodec | None = None
        if step.average:
            self.average = copy.deepcopy(codec).requires_grad_(False)
        self.iteration, self.seed = 0, 0
        self.rank, self.world_size = 0, 1
        self._sent: list[tuple[Tensor, Tensor, int]] = []
        self._codes: list[Tensor] = []

    @property
    def codec(self) -> LearnedCodec:
        """The codec under training."""
        codec = self.model.codec
        assert isinstance(codec, LearnedCodec)
        return codec

    def begin(self, iteration: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        """Take over which iteration it is; rates are drawn by it."""
        self.iteration, self.seed = iteration, seed
        self.rank, self.world_size = rank, world_size

    def rates(self, count: int, device: torch.device) -> Tensor:
        """Return the rate of each of this process's images, N, spread evenly over the batch."""
        total, known = count * self.world_size, self.codec.settings.rates
        rng = np.random.default_rng(iteration_seed(self.seed, self.step.name, self.iteration, 3))
        offset = rng.random()
        spread = ((np.arange(total) + offset) * known / total).astype(np.int64) % known
        return torch.from_numpy(spread[self.rank :: self.world_size].copy()).to(device)

    def compress(self, pyramid: Pyramid, rates: Tensor) -> tuple[Pyramid, Tensor]:
        """Return the rebuilt levels, normalised, and the price of each image's bits, N."""
        code = self.codec.analyse(pyramid)
        normalised, coded = self.codec.through(code, level_sizes(pyramid), rates)
        if self.teaches_entropy:
            self._codes.append(code.detach())
        cells = code.shape[-2] * code.shape[-1]
        self._sent.append((coded.sent, rates, cells))
        return normalised, self.control.cost(coded.bits, rates)

    @property
    def teaches_entropy(self) -> bool:
        """Whether the entropy model is trained: an encoder is fitted to one that stays."""
        return self.step.trains != 'encoder'

    def entropy_losses(self) -> dict[str, Tensor]:
        """Return the bits of this iteration's codes at every rate, over what they are meant to be.

        They teach the entropy model and its hyper-analysis alone. Those of one rate an image, by
        their price, are too few: bits of the dear rates cost next to nothing, and were 40 % more
        than they had to be.
        """
        codes, self._codes = self._codes, []
        known, losses = self.codec.settings.rates, []
        for code in codes:
            rates = torch.arange(known, device=code.device).repeat_interleave(len(code))
            scaled = self.codec.scaled(code.repeat(known, 1, 1, 1), rates).detach()
            losses.append(self.control.relative(self.codec.count(scaled, rates).bits, rates))
        return {'loss_entropy': torch.cat(losses).mean()} if losses else {}

    def rebuild(self, pyramid: Pyramid) -> tuple[Pyramid, Tensor]:
        """Return the rebuilt pyramid at rates of this iteration, and the bits' mean price."""
        some = next(iter(pyramid.values()))
        normalised, costs = self.compress(pyramid, self.rates(len(some), some.device))
        return self.codec.synthesis.restored(normalised), costs.mean()

    @torch.no_grad()
    def after_step(self) -> None:
        """Follow the bytes, keep the entropy model's sums exact, and average the weights."""
        done = self.iteration / max(1.0, SLACK_SHARE * self.step.iterations)
        for sent, rates, cells in self._sent:
            self.control.observe(sent, rates, cells, max(1.0, self._slack ** (1 - done)))
        self._sent.clear()
        self._codes.clear()
        if self.teaches_entropy:
            self.codec.entropy.project()
        if self.average is not None:
            kept = min(self.step.average, (self.iteration + 1) / (self.iteration + 20))
            pairs = zip(self.average.parameters(), self.codec.parameters(), strict=True)
            for mean, now in pairs:
                if now.requires_grad:
                    mean.lerp_(now, 1 - kept)
            if self.teaches_entropy:
                self.average.entropy.project()

    @torch.no_grad()
    def finish(self) -> None:
        """Give the codec its averaged weights, and the bytes that its rates take."""
        if self.average is not None:
            pairs = zip(self.codec.parameters(), self.average.parameters(), strict=True)
            for now, mean in pairs:
                now.copy_(mean)
        self.codec.analysis.price.copy_(self.control.log_price.exp())
        if self.teaches_entropy:  # receivers' tables stay as they are
            self.codec.entropy.settle()
            self.codec.typical_bytes.copy_(self.control.bits_per_cell / 8)


class DistillObjective(nn.Module):
    """A learned codec's losses against the frozen detector's answers, and the price of its bits.

    Args:
        training: what follows the rates.

    Raises:
        ValueError: the detector cannot be asked.
    """

    def __init__(self, training: CodecTraining) -> None:
        super().__init__()
        detector, step = training.model.detector, training.step
        if not isinstance(detector, TeacherDetector):
            raise ValueError(
                f'step {step.name}: a {type(detector).__name__} cannot teach: its heads say '
                'nothing before boxes are chosen'
            )
        self.training_state = training
        self.settings = DistillSettings.from_dict(step.distill)
        self.losses = Distillation(detector, self.settings)
        self.detector = detector

    def forward(self, batch: Batch | AnswerBatch) -> dict[str, Tensor]:
        """Return the losses by name; their sum is minimised."""
        device = self.detector.device
        if isinstance(batch, AnswerBatch):
            answers = [answer.to(device) for answer in batch.answers]
        else:
            answers = ask(self.detector, [example.image for example in batch.examples])
        state = self.training_state
        self.losses.settings = self.settings.at(state.iteration)
        state.codec.entropy.noise = self.settings.noise
        rates = state.rates(len(answers), device)
        rng = torch.Generator().manual_seed(torch.initial_seed() % 2**63)
        groups: defaultdict[Size, list[int]] = defaultdict(list)
        for index, answer in enumerate(answers):
            groups[answer.padded].append(index)
        total: dict[str, Tensor] = {}
        for indices in groups.values():
            some = [answers[index] for index in indices]
            pyramid, goal = goal_pyramid(state.codec, some)
            normalised, costs = state.compress(pyramid, rates[indices])
            rebuilt = state.codec.synthesis.restored(normalised)
            weights = state.control.weight(rates[indices], self.settings.balance) / len(answers)
            for k, answer in enumerate(some):
                losses = self.losses(
                    *(_one(part, k) for part in (normalised, rebuilt, goal)), [answer], rng
                )
                for name, loss in {**losses, 'rate': costs[k]}.items():
                    total[f'loss_{name}'] = total.get(f'loss_{name}', 0.0) + weights[k] * loss
        return {**total, **state.entropy_losses()}


def _one(pyramid: Pyramid, index: int) -> Pyramid:
    """Return one image's part of a batch."""
    return {level: features[index : index + 1] for level, features in pyramid.items()}

"""Training a codec without labels: the uncompressed detector's own answers are the goal.

What the frozen heads say of the rebuilt pyramid is compared with what they said of the original,
on the same boxes, and the pyramids themselves are compared as well. Each rate has a price per bit
of its own, which follows the bytes that the rate is meant to take.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from msfc.codecs.learned.codec import LearnedCodec
from msfc.codecs.learned.transforms import FIRST_PRICE
from msfc.detectors.base import TeacherDetector
from msfc.settings import check_number
from msfc.training.teacher import Answer, stack_pyramids, stack_sizes
from msfc.types import Pyramid

OFFSET_BETA = 1 / 9
"""Where the smooth L1 distance of box offsets turns linear, as in the detectors' own losses."""

ANCHORS = 64
"""The RPN's terms are sums over anchors, over this number."""

MARGIN = 2
"""Cells around a part of a map that the RPN sees besides, for its convolutions' sake."""

FAST = ('log_gain', 'inverse_gain', 'rate_offset', 'rate_hyper', 'rate_context',
        'hyper_mean', 'hyper_scale')
"""Parameters that learn ten times as fast as the others."""


@dataclass(frozen=True)
class DistillSettings:
    """Weights and samples of the objective.

    Attributes:
        features: weight of the distance between pyramids.
        background: weight of that distance outside of the teacher's detections, 1 within.
        objectness: weight of the RPN's objectness.
        anchors: weight of the RPN's box offsets.
        classes: weight of the box head's classes.
        boxes: weight of the box head's offsets.
        masks: weight of the mask head's logits.
        proposals: proposals per image that the box head looks at.
        detections: detections per image that the mask head looks at.
        crop: part of the finest level's height and of its width that the RPN looks at, elsewhere
            each time: it is most of the RPN's work.
        distance_first: in so many iterations at the beginning, the distance between pyramids is
            all that counts, with a weight of 1: that is cheap.
        most_price: of 1,000 bits, where a target out of reach ends.
        noise: share of noisy symbols in the bits that are paid for, the rest is of rounded ones.
            Noise alone overstates the bits of sparse symbols, rounding alone hides their gradient.
        balance: how much less an image counts, the more its rate's bits cost: 0 not at all, which
            favours the cheapest rates, 1 in full, which favours the dearest.
    """

    features: float = 0.2
    background: float = 0.1
    objectness: float = 0.3
    anchors: float = 0.5
    classes: float = 1.0
    boxes: float = 1.0
    masks: float = 4.0
    proposals: float = 48
    detections: float = 6
    crop: float = 0.5
    distance_first: float = 0
    most_price: float = 10.0
    noise: float = 0.5
    balance: float = 1.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            samples = name in ('proposals', 'detections')
            shares = ('crop', 'background', 'noise', 'balance')
            high = 1.0 if name in shares else 1e9 if name == 'distance_first' else 1000
            low = 1e-6 if name == 'most_price' else 1 if samples else 0
            check_number(value, name, low, high)
            whole = samples or name == 'distance_first'
            if whole and value != int(value):
                raise ValueError(f'{name} is {value!r}, not a whole number')

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DistillSettings:
        """Make settings of a mapping; absent keys have their default.

        Raises:
            ValueError: an unknown key, or an impossible value.
        """
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f'unknown distill settings {unknown}: choose from {sorted(known)}')
        return cls(**values)

    def at(self, iteration: int) -> DistillSettings:
        """Return what counts in an iteration."""
        if iteration >= self.distance_first:
            return self
        return replace(
            self, features=1.0, objectness=0.0, anchors=0.0, classes=0.0, boxes=0.0, masks=0.0
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-serialisable values."""
        return asdict(self)


class Distillation(nn.Module):
    """The losses of a rebuilt pyramid against the frozen detector's answers.

    Args:
        detector: in evaluation mode, without gradients of its own.
        settings: weights and samples.
    """

    def __init__(self, detector: TeacherDetector, settings: DistillSettings) -> None:
        super().__init__()
        self.detector = detector
        self.settings = settings

    def forward(
        self,
        normalised: Pyramid,
        rebuilt: Pyramid,
        goal: Pyramid,
        answers: Sequence[Answer],
        rng: torch.Generator,
    ) -> dict[str, Tensor]:
        """Return weighted losses by name; their sum is minimised.

        Args:
            normalised: the rebuilt levels at mean 0 and standard deviation 1.
            rebuilt: ``p2'`` .. ``p6'``.
            goal: the original levels, normalised as the rebuilt ones.
            answers: what the detector said of the original, for each image.
            rng: draws proposals, detections and the part of the finest level.
        """
        weights, losses = self.settings, {}
        if weights.features:
            distance = self._distance(normalised, goal, answers)
            losses['features'] = weights.features * distance
        if weights.objectness or weights.anchors:
            objectness, offsets = self._rpn(rebuilt, answers, rng)
            losses['objectness'] = weights.objectness * objectness
            losses['anchors'] = weights.anchors * offsets
        if weights.classes or weights.boxes:
            classes, boxes = self._boxes(rebuilt, answers, rng)
            losses['classes'] = weights.classes * classes
            losses['boxes'] = weights.boxes * boxes
        if weights.masks:
            losses['masks'] = weights.masks * self._masks(rebuilt, answers, rng)
        return losses

    def _distance(
        self, normalised: Pyramid, goal: Pyramid, answers: Sequence[Answer]
    ) -> Tensor:
        distances = []
        for level, rebuilt in normalised.items():
            error = (rebuilt.float() - goal[level]).square().mean(1, keepdim=True)
            weight = foreground(answers, error.shape, self.settings.background)
            distances.append((error * weight).sum() / weight.sum())
        return torch.stack(distances).mean()

    def _rpn(
        self, rebuilt: Pyramid, answers: Sequence[Answer], rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        looked_at = dict(rebuilt)
        finest = next(iter(rebuilt))
        down, across = (
            _Window.draw(side, self.settings.crop, rng) for side in rebuilt[finest].shape[-2:]
        )
        looked_at[finest] = rebuilt[finest][..., down.seen, across.seen]
        objectness = offsets = rebuilt[finest].new_zeros(())
        for level, (logits, deltas) in self.detector.rpn_outputs(looked_at).items():
            wanted = torch.stack([answer.rpn[level] for answer in answers])
            weight = 1 / (ANCHORS * len(answers))
            if level == finest:
                wanted = wanted[..., down.whole, across.whole]
                logits = logits[..., down.part, across.part]
                deltas = deltas[..., down.part, across.part]
                weight *= down.scale * across.scale
            goal = wanted[:, :, 0].sigmoid()
            entropy = functional.binary_cross_entropy_with_logits(
                wanted[:, :, 0], goal, reduction='sum'
            )
            cross = functional.binary_cross_entropy_with_logits(
                logits.float(), goal, reduction='sum'
            )
            objectness = objectness + weight * (cross - entropy)
            distance = functional.smooth_l1_loss(
                deltas.float(), wanted[:, :, 1:], beta=OFFSET_BETA, reduction='none'
            ).sum(2)
            offsets = offsets + weight * (distance * goal).sum()
        return objectness, offsets

    def _boxes(
        self, rebuilt: Pyramid, answers: Sequence[Answer], rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        boxes, logits, offsets = [], [], []
        for answer in answers:
            chosen = _some_proposals(answer.logits, int(self.settings.proposals), rng)
            boxes.append(answer.proposals[chosen])
            logits.append(answer.logits[chosen])
            offsets.append(answer.offsets[chosen])
        wanted, wanted_offsets = torch.cat(logits), torch.cat(offsets)
        given, given_offsets = self.detector.box_outputs(rebuilt, boxes, stack_sizes(answers))
        likely = wanted.softmax(-1)
        divergence = functional.kl_div(
            given.float().log_softmax(-1), wanted.log_softmax(-1),
            reduction='none', log_target=True,
        ).sum(-1)
        best = likely[:, :-1].argmax(-1).clamp(max=wanted_offsets.shape[1] - 1)
        rows = torch.arange(len(best), device=best.device)
        distance = functional.smooth_l1_loss(
            given_offsets.float()[rows, best], wanted_offsets[rows, best],
            beta=OFFSET_BETA, reduction='none',
        ).sum(-1)
        return 2 * divergence.mean(), 2 * (distance * (1 - likely[:, -1])).mean()

    def _masks(
        self, rebuilt: Pyramid, answers: Sequence[Answer], rng: torch.Generator
    ) -> Tensor:
        boxes, labels, masks, scores = [], [], [], []
        for answer in answers:
            count = min(len(answer.scores), int(self.settings.detections))
            chosen = (
                torch.multinomial(answer.scores, count, generator=rng)
                if count else torch.zeros(0, dtype=torch.long)
            )
            boxes.append(answer.boxes[chosen])
            labels.append(answer.labels[chosen])
            masks.append(answer.masks[chosen])
            scores.append(answer.scores[chosen])
        weight = torch.cat(scores)
        if not len(weight) or not answers[0].masks.shape[-1]:
            return next(iter(rebuilt.values())).new_zeros(())
        wanted = torch.cat(masks).sigmoid()
        given = self.detector.mask_outputs(rebuilt, boxes, labels, stack_sizes(answers))
        divergence = functional.binary_cross_entropy_with_logits(
            given, wanted, reduction='none'
        ) - functional.binary_cross_entropy_with_logits(
            torch.cat(masks), wanted, reduction='none'
        )
        return 2 * (divergence.mean((1, 2)) * weight).sum() / weight.sum()


def foreground(answers: Sequence[Answer], shape: torch.Size, background: float) -> Tensor:
    """Return N x 1 x h x w: 1 on detections and a margin around, ``background`` elsewhere."""
    height, width = shape[-2:]
    weight = torch.full((len(answers), 1, height, width), background)
    for plane, answer in zip(weight[:, 0], answers, strict=True):
        down, across = answer.padded[0] / height, answer.padded[1] / width
        for (x1, y1, x2, y2), score in zip(
            answer.boxes.tolist(), answer.scores.tolist(), strict=True
        ):
            if score >= 0.3:
                top, left = max(0, int((y1 - 8) / down)), max(0, int((x1 - 8) / across))
                plane[top : int((y2 + 8) / down) + 1, left : int((x2 + 8) / across) + 1] = 1.0
    return weight.to(answers[0].scores.device)


@dataclass(frozen=True)
class _Window:
    """A part of one side of a map.

    Attributes:
        seen: the part with what the RPN's convolutions see around it.
        whole: the part, as a slice of the whole side.
        part: the part, as a slice of ``seen``.
        scale: the whole side over the part.
    """

    seen: slice
    whole: slice
    part: slice
    scale: float

    @classmethod
    def draw(cls, side: int, share: float, rng: torch.Generator) -> _Window:
        """Draw a part of this share."""
        length = max(1, round(side * share))
        start = int(torch.randint(side - length + 1, (), generator=rng))
        first, last = max(0, start - MARGIN), min(side, start + length + MARGIN)
        return cls(
            slice(first, last), slice(start, start + length),
            slice(start - first, start - first + length), side / length,
        )


def _some_proposals(logits: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Draw proposals: half of them where the detector saw objects, the others anywhere."""
    count = min(count, len(logits))
    if count < 2:
        return torch.arange(count, device=logits.device)
    likely = 1 - logits.softmax(-1)[:, -1] + 0.02
    first = torch.multinomial(likely, count // 2, generator=rng)
    others = torch.randperm(len(logits), generator=rng)[: count - count // 2]
    return torch.cat([first, others.to(first.device)])


class RateControl(nn.Module):
    """Prices per bit that bring each rate to its bytes, measured on rounded symbols.

    Its state is in buffers, so that checkpoints have it.

    Args:
        targets: bytes of each rate, cheapest first.
        price: the first price of 1,000 bits, of each rate or of all.
        gain: how fast the logarithm of a price follows the logarithm of its rate.
        most: no price is higher.
    """

    log_price: Tensor
    bits_per_cell: Tensor

    def __init__(
        self,
        targets: Sequence[float],
        price: Tensor | float = FIRST_PRICE,
        gain: float = 0.01,
        most: float = 10.0,
    ) -> None:
        super().__init__()
        self.targets = [8.0 * target for target in targets]
        self.gain, self.most = gain, most
        prices = torch.as_tensor(price, dtype=torch.float32).expand(len(targets))
        self.register_buffer('log_price', prices.log())
        self.register_buffer('bits_per_cell', torch.zeros(len(targets)))

    def cost(self, bits: Tensor, rates: Tensor) -> Tensor:
        """Return the price of each image's bits, N.

        Args:
            bits: N.
            rates: rate of each image, N.
        """
        return self.log_price.exp()[rates] * bits / 1000

    def weight(self, rates: Tensor, balance: float = 1.0) -> Tensor:
        """Return what each image's loss counts, N: less, the more its rate's bits cost.

        Every rate trains the same networks. Unweighted, the dear bits of the cheapest rates
        would drown what all others are to learn.

        Args:
            rates: rate of each image, N.
            balance: see :class:`DistillSettings`.
        """
        meant = torch.tensor(self.targets, device=rates.device) / 1000
        return (1 + self.log_price.exp() * meant).pow(-balance)[rates]

    def relative(self, bits: Tensor, rates: Tensor) -> Tensor:
        """Return the bits of each image over those that its rate is meant to take, N."""
        return bits / torch.tensor(self.targets, device=rates.device)[rates]

    @torch.no_grad()
    def observe(
        self, sent: Tensor, rates: Tensor, cells: int = 1, slack: float = 1.0
    ) -> None:
        """Move the prices by what was sent, in all processes together.

        Args:
            sent: bits of each image, N.
            rates: rate of each image, N.
            cells: height times width of the code.
            slack: factor on the targets, above 1 early in training.
        """
        sums = torch.zeros(2, len(self.targets), device=sent.device)
        sums.index_add_(1, rates, torch.stack([sent.float(), torch.ones_like(sent)]))
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        for index, (bits, count) in enumerate(sums.T.tolist()):
            if not count:
                continue
            excess = math.log(max(bits / count, 1.0) / (self.targets[index] * slack))
            self.log_price[index] += self.gain * min(max(excess, -1.0), 1.0)
            seen = bits / count / cells
            before = float(self.bits_per_cell[index])
            self.bits_per_cell[index] = 0.95 * before + 0.05 * seen if before else seen
        self.log_price.clamp_(-12, math.log(self.most))


def parameter_groups(
    model: nn.Module,
    learning_rate: float,
    fast: float = 10.0,
    momentum: float | None = None,
    entropy: float = 1.0,
) -> list[dict[str, Any]]:
    """Return an optimiser's groups; ``factor`` of each is its share of the learning rate.

    Args:
        model: what is trained.
        learning_rate: of most parameters.
        fast: factor on it for gains and what else learns faster.
        momentum: the weights of convolutions are a group of their own with it, for
            :class:`~msfc.training.optimizers.Muon`.
        entropy: factor, besides, for all of the entropy model.
    """
    chosen: defaultdict[tuple[bool, bool, bool], list[Tensor]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            quick, coder = name.rpartition('.')[2] in FAST, '.entropy.' in f'.{name}'
            turned = momentum is not None and parameter.ndim == 4 and not coder
            chosen[quick, coder, turned].append(parameter)
    groups: list[dict[str, Any]] = []
    for (quick, coder, turned), parameters in chosen.items():
        factor = (fast if quick else 1.0) * (entropy if coder else 1.0)
        group = {'params': parameters, 'lr': learning_rate * factor, 'factor': factor}
        if quick:
            group['weight_decay'] = 0.0
        if turned:
            group['momentum'] = momentum
        groups.append(group)
    return groups


@torch.no_grad()
def take_statistics(codec: LearnedCodec, pyramids: Iterable[Pyramid]) -> None:
    """Give a codec the mean and spread of each channel of some pyramids, one after the other."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for pyramid in pyramids:
        for level in codec.settings.levels:
            values = pyramid[level].transpose(0, 1).flatten(1).double()
            both = torch.stack([values.sum(1), values.square().sum(1)])
            sums[level] = sums[level] + both if level in sums else both
            counts[level] = counts.get(level, 0) + values.shape[1]
    for level, (first, second) in sums.items():
        mean = first / counts[level]
        std = (second / counts[level] - mean.square()).clamp_min(0).sqrt()
        for transform in (codec.analysis, codec.synthesis):
            transform.statistics.set(level, mean.float(), std.float())


def goal_pyramid(codec: LearnedCodec, answers: Sequence[Answer]) -> tuple[Pyramid, Pyramid]:
    """Return the original pyramids of a batch, as they are and normalised."""
    pyramid = stack_pyramids(answers)
    statistics = codec.synthesis.statistics
    return pyramid, {
        level: statistics.normalise(level, pyramid[level]) for level in codec.settings.levels
    }

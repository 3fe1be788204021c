"""The entropy model as it is trained: a float network that computes what the integer one does.

``wire/entropy.py`` runs the integer network that decides probabilities. Here the same sums are
made of floats that stand for those integers: activations are multiples of 2**-6, weights of
2**-8, their products and sums multiples of 2**-14, which single precision holds exactly. Rounding
passes gradients as if it were not there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from msfc.codecs.learned.config import LearnedConfig
from msfc.codecs.learned.layers import activate
from msfc.wire.entropy import (
    ACTIVATION_BITS,
    EXACT,
    ROUNDING,
    SCALES,
    TOP_ACTIVATION,
    TOP_VALUE,
    TOP_WEIGHT,
    WEIGHT_BITS,
)
from msfc.wire.key_tables import KEY_ARRAYS, default_key_arrays
from msfc.wire.learned import GREATEST_SCALE, LEAST_SCALE, gaussian_tables

SCALE_STEPS = 8
"""Steps of the scale's index per unit of the network's output."""

LOG_STEP = math.log(GREATEST_SCALE / LEAST_SCALE) / (SCALES - 1)


def pass_through(value: Tensor, rounded: Tensor) -> Tensor:
    """Return ``rounded`` with the gradient of ``value``."""
    return value + (rounded - value).detach()


def fixed(value: Tensor, bits: int, top: int) -> Tensor:
    """Round half up to a multiple of 2**-bits and clip to ±top of them; gradients pass."""
    step = 2.0**-bits
    return pass_through(value, (value / step + 0.5).floor().clamp(-top, top) * step)


class FixedConv(nn.Module):
    """A convolution whose weights are whole multiples of 2**-8; zeros lie around its input.

    Args:
        inputs: channels in.
        outputs: channels out.
        size: height and width of its kernel, odd.
        top: greatest absolute value of its input, as an integer.
        offset: whether there are offsets; they are 0 and stay so, if not.
    """

    bias: Tensor

    def __init__(
        self, inputs: int, outputs: int, size: int, top: int, offset: bool = True
    ) -> None:
        super().__init__()
        layer = nn.Conv2d(inputs, outputs, size)
        assert layer.bias is not None
        self.weight = nn.Parameter(layer.weight.detach())
        if offset:
            self.bias = nn.Parameter(layer.bias.detach())
        else:
            self.register_buffer('bias', torch.zeros(outputs))
        self.size, self.top = size, top

    def fixed_weight(self) -> Tensor:
        """Return the weights that the integer network has, as multiples of 2**-8."""
        return fixed(self.weight, WEIGHT_BITS, TOP_WEIGHT)

    def fixed_bias(self) -> Tensor:
        """Return the offsets that the integer network has, as multiples of 2**-14."""
        return fixed(self.bias, ACTIVATION_BITS + WEIGHT_BITS, EXACT)

    @torch.no_grad()
    def project(self) -> None:
        """Shrink outputs whose sums could leave the whole numbers that are exact."""
        rows = self.weight.abs().flatten(1)
        left = EXACT - 2 * ROUNDING - self.bias.abs() * 2 ** (ACTIVATION_BITS + WEIGHT_BITS)
        # Rounding adds half a step to each weight at most.
        most = (left.clamp_min(0) / self.top - 0.5 * rows.shape[1]) / 2**WEIGHT_BITS
        most = most.clamp_min(0)
        self.weight.mul_((most / rows.sum(1).clamp_min(1e-9)).clamp(max=1).view(-1, 1, 1, 1))
        self.weight.clamp_(-TOP_WEIGHT / 2**WEIGHT_BITS, TOP_WEIGHT / 2**WEIGHT_BITS)

    def forward(self, x: Tensor, outputs: int | None = None) -> Tensor:
        """Return the sums, N x C_out x h x w, or the first ``outputs`` channels of them."""
        weight, bias = self.fixed_weight()[:outputs], self.fixed_bias()[:outputs]
        return functional.conv2d(x, weight, bias, padding=self.size // 2)


def rectify(sums: Tensor) -> Tensor:
    """Return activations 0 .. 1023 of sums; a tenth of the gradient passes below zero."""
    step = 2.0**-ACTIVATION_BITS
    rounded = (sums / step + 0.5).floor().clamp(0, TOP_ACTIVATION) * step
    return pass_through(activate(sums), rounded)


def seen_value(value: Tensor) -> Tensor:
    """Return rebuilt values as the context sees them, -32 .. 32; gradients pass."""
    top = TOP_VALUE * 2.0**-ACTIVATION_BITS
    return pass_through(value, value.clamp(-top, top))


class _Bounded(torch.autograd.Function):
    """Clamps; gradients pass that lead back between the bounds, and no others."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(value)
        ctx.bounds = low, high
        return value.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (value,), (low, high), (gradient,) = ctx.saved_tensors, ctx.bounds, gradients
        passes = ((value >= low) | (gradient < 0)) & ((value <= high) | (gradient > 0))
        return gradient * passes, None, None


def scale_index(output: Tensor) -> Tensor:
    """Return the index 0 .. 63 of the network's output for a scale; gradients pass.

    Cells where nothing is sent pull their scale down for ever: past the bound it would take long
    to come back.
    """
    bounded: Tensor = _Bounded.apply(output * SCALE_STEPS, 0, SCALES - 1)
    return pass_through(bounded, (bounded + 0.5).floor())


def scale_of(index: Tensor) -> Tensor:
    """Return the standard deviation of an index 0 .. 63."""
    return LEAST_SCALE * torch.exp(LOG_STEP * index)


def gaussian_bits(value: Tensor, scale: Tensor) -> Tensor:
    """Return the bits of the unit interval around ``value`` under a Gaussian of mean 0.

    In logarithms, so that surprises have a gradient: without it nothing would keep scales from
    shrinking until every symbol is one.
    """
    value = value.abs()
    upper = torch.special.log_ndtr((0.5 - value) / scale)
    lower = torch.special.log_ndtr((-0.5 - value) / scale)
    return -(upper + torch.log1p(-(lower - upper).exp())) / math.log(2)


def checkerboard(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return 1 x 1 x h x w, 1 where row and column add up to an even number, else 0."""
    rows = torch.arange(height, device=device)[:, None]
    columns = torch.arange(width, device=device)[None]
    return ((rows + columns) % 2 == 0).float()[None, None]


@dataclass(frozen=True)
class Coded:
    """What the entropy model makes of a batch of codes.

    Attributes:
        values: rounded codes times their gain, N x C' x h x w.
        bits: bits of each image to minimise, N.
        sent: bits of each image with rounded symbols, N; without gradient.
        hyper: the part of ``sent`` that the hyper-latent takes, N.
    """

    values: Tensor
    bits: Tensor
    sent: Tensor
    hyper: Tensor


class EntropyModel(nn.Module):
    """Means and scales of the rounded code, from a hyper-latent and from what is decoded already.

    Each slice has a context of its own, ``context_width`` sums per cell, which starts from the
    hyper-latent. Slice by slice, each on the two colours of a checkerboard, a small network reads
    means and scales off the slice's context, and the decoded values are added to it and to those
    of later slices by a 3 x 3 convolution.

    Args:
        config: the architecture.

    Attributes:
        noise: share of symbols with noise instead of rounding in :attr:`Coded.bits`.
    """

    frequencies: Tensor
    reaches: Tensor
    key_weight: Tensor | None

    def __init__(self, config: LearnedConfig) -> None:
        super().__init__()
        self.config = config
        self.noise = 0.5
        width, context, hidden = config.hyper_width, config.context_width, config.hidden_width
        slices = len(config.slices)
        self.hyper_first = FixedConv(config.hyper_channels, width, 3, TOP_VALUE)
        self.hyper_spread = FixedConv(width, 4 * width, 1, TOP_ACTIVATION)
        self.hyper_second = FixedConv(width, width, 3, TOP_ACTIVATION)
        self.hyper_last = FixedConv(width, 4 * slices * context, 1, TOP_ACTIVATION)
        self.rate_hyper = nn.Parameter(torch.zeros(config.rates, width))
        self.rate_context = nn.Parameter(torch.zeros(config.rates, slices * context))
        self.hyper_mean = nn.Parameter(torch.zeros(config.rates, config.hyper_channels))
        self.hyper_scale = nn.Parameter(torch.full((config.rates, config.hyper_channels), 2.7))
        passes = [count for count in config.slices for _ in range(2)]
        self.hidden = nn.ModuleList(
            FixedConv(context, hidden, 1, TOP_ACTIVATION) for _ in passes
        )
        self.output = nn.ModuleList(
            FixedConv(hidden, 2 * count, 1, TOP_ACTIVATION) for count in passes
        )
        self.update = nn.ModuleList(
            FixedConv(count, (slices - k) * context, 3, TOP_VALUE, offset=False)
            for k, count in enumerate(config.slices)
        )
        frequencies, reaches = gaussian_tables()
        self.register_buffer('frequencies', torch.from_numpy(frequencies))
        self.register_buffer('reaches', torch.from_numpy(reaches))
        # Only a model that was fitted to pairs of frames has them: see fit_references.
        for name in KEY_ARRAYS:
            self.register_buffer(name, None)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        for layer, count in zip(
            self.output, [count for count in self.config.slices for _ in range(2)], strict=True
        ):
            assert isinstance(layer, FixedConv)
            layer.weight.mul_(0.3)
            layer.bias[:count] = 0.0
            layer.bias[count:] = 2.7  # a scale of about 1

    def set_key_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over tables for coding against key frames, all of them or none."""
        for name in KEY_ARRAYS:
            values = arrays.get(name)
            tensor = None if values is None else torch.from_numpy(np.array(values))
            setattr(self, name, None if tensor is None else tensor.to(self.reaches.device))

    def make_room_for_keys(self) -> None:
        """Have such tables, whatever is in them, unless they are here: for those of a file."""
        if self.key_weight is None:
            hyper_scale = np.zeros((self.config.rates, self.config.hyper_channels), np.uint8)
            frequencies = {'key_frequencies': self.frequencies.cpu().numpy()}
            self.set_key_arrays(default_key_arrays(hyper_scale) | frequencies)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        if any(prefix + name in state_dict for name in KEY_ARRAYS):
            self.make_room_for_keys()
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @torch.no_grad()
    def project(self) -> None:
        """Keep every sum within the whole numbers that single precision holds."""
        for module in self.modules():
            if isinstance(module, FixedConv):
                module.project()

    @torch.no_grad()
    def settle(self) -> None:
        """Have the very numbers that the coder makes of what it takes in coarse steps.

        Training leaves some of them at the edge between two steps, and half precision would carry
        them over it.
        """
        self.hyper_mean.copy_(fixed(self.hyper_mean, 0, TOP_VALUE))
        self.hyper_scale.copy_(scale_index(self.hyper_scale) / SCALE_STEPS)

    def context(self, hyper: Tensor, rate: Tensor, size: tuple[int, int]) -> Tensor:
        """Return all slices' contexts before any value is decoded, N x slices width x h x w.

        Args:
            hyper: rounded hyper-latents, N x C_z x h/4 x w/4.
            rate: rate of each image, N.
            size: height and width of the code.
        """
        sums = ACTIVATION_BITS + WEIGHT_BITS
        half = (-(-size[0] // 2), -(-size[1] // 2))
        x = self.hyper_first(seen_value(hyper))
        x = x + fixed(self.rate_hyper, sums, EXACT)[rate][:, :, None, None]
        x = functional.pixel_shuffle(self.hyper_spread(rectify(x)), 2)[..., : half[0], : half[1]]
        x = rectify(self.hyper_second(rectify(x)))
        x = functional.pixel_shuffle(self.hyper_last(x), 2)[..., : size[0], : size[1]]
        return x + fixed(self.rate_context, sums, EXACT)[rate][:, :, None, None]

    def prediction(self, step: int, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and indices of scales, each N x slice x h x w, of one pass.

        Args:
            step: the pass: twice the slice, and one more for the second colour.
            context: the slice's, N x width x h x w.
        """
        sums: Tensor = self.output[step](rectify(self.hidden[step](rectify(context))))
        mean, index = sums.chunk(2, 1)
        mean = fixed(mean, ACTIVATION_BITS, TOP_VALUE)
        return mean, scale_index(index)

    def hyper_parameters(self, rate: Tensor) -> tuple[Tensor, Tensor]:
        """Return whole means and indices of scales of the hyper-latent, each N x C_z x 1 x 1."""
        mean = fixed(self.hyper_mean, 0, TOP_VALUE)
        index = scale_index(self.hyper_scale)
        return mean[rate][:, :, None, None], index[rate][:, :, None, None]

    def forward(self, code: Tensor, hyper: Tensor, rate: Tensor) -> Coded:
        """Round and count.

        Args:
            code: codes times their gain, N x C' x h x w.
            hyper: their hyper-latents, not rounded.
            rate: rate of each image, N.
        """
        code, hyper = code.float(), hyper.float()
        mean, index = self.hyper_parameters(rate)
        rounded = pass_through(hyper, hyper.round())
        hyper_hard = gaussian_bits(rounded - mean, scale_of(index))
        contexts = self.context(rounded, rate, (code.shape[-2], code.shape[-1]))
        even = checkerboard(code.shape[-2], code.shape[-1], code.device)
        width = self.config.context_width
        values, soft, hard = [], [], []
        for k, part in enumerate(code.split(self.config.slices, 1)):
            context, contexts = contexts[:, :width], contexts[:, width:]
            mean_even, index_even = self.prediction(2 * k, context)
            whole = (part - mean_even).round() * (index_even > 0)
            rounded_even = pass_through(part - mean_even, whole) + mean_even
            update = self.update[k](seen_value(rounded_even * even), width)
            mean_odd, index_odd = self.prediction(2 * k + 1, context + update)
            mean_k = mean_even * even + mean_odd * (1 - even)
            index_k = index_even * even + index_odd * (1 - even)
            scale = scale_of(index_k)
            centred = part - mean_k
            whole = pass_through(centred, centred.round())
            # At index 0 nothing is written, but the bits teach the scale of what is lost.
            value = pass_through(centred, whole * (index_k > 0)) + mean_k
            if k + 1 < len(self.config.slices):
                contexts = contexts + self.update[k](seen_value(value))[:, width:]
            noise = torch.rand_like(centred) - 0.5
            hard.append(gaussian_bits(whole, scale))
            soft.append(gaussian_bits(centred + noise, scale))
            values.append(value)
        noise = torch.rand_like(hyper) - 0.5
        hyper_soft = gaussian_bits(hyper + noise - mean, scale_of(index))
        hard_bits = torch.cat(hard, 1).flatten(1).sum(1)
        soft_bits = torch.cat(soft, 1).flatten(1).sum(1)
        hyper_bits = hyper_hard.flatten(1).sum(1)
        bits = (1 - self.noise) * (hard_bits + hyper_bits)
        bits = bits + self.noise * (soft_bits + hyper_soft.flatten(1).sum(1))
        return Coded(
            torch.cat(values, 1), bits, (hard_bits + hyper_bits).detach(), hyper_bits.detach()
        )

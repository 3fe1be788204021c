"""Building blocks of the learned codec's networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.1
"""Of the leaky rectifiers."""


def activate(x: Tensor) -> Tensor:
    """Return the leaky rectifier of ``x``."""
    return functional.leaky_relu(x, SLOPE)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside the identity, N x C x h x w to the same shape.

    Activations come first, and the second convolution starts small, so that deep stacks train
    from the first step on.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.3)
            assert self.second.bias is not None
            self.second.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with a correction added."""
        change: Tensor = self.second(activate(self.first(activate(x))))
        return x + change


def blocks(channels: int, count: int) -> nn.Sequential:
    """Return a stack of residual blocks."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))


class Upsample(nn.Module):
    """Twice the size: a convolution to four times the channels, dealt out to 2 x 2 cells."""

    def __init__(self, channels: int, out_channels: int, kernel: int = 1) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, 4 * out_channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Return N x C_out x size; that is twice the size of ``x``, or one less."""
        doubled = functional.pixel_shuffle(self.expand(activate(x)), 2)
        return doubled[..., : size[0], : size[1]]

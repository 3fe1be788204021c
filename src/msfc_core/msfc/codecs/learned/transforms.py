"""Analysis and synthesis: a pyramid to the code and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from msfc.codecs.learned.config import LearnedConfig
from msfc.codecs.learned.layers import Upsample, activate, blocks
from msfc.types import Pyramid, Size

FIRST_PRICE = 0.02
"""Of 1,000 bits, in losses, where training begins."""


class PyramidStatistics(nn.Module):
    """Mean and standard deviation of each channel of each level, as buffers."""

    def __init__(self, config: LearnedConfig) -> None:
        super().__init__()
        self.levels = config.levels
        for level in config.levels:
            self.register_buffer(f'{level}_mean', torch.zeros(config.channels))
            self.register_buffer(f'{level}_std', torch.ones(config.channels))

    def set(self, level: str, mean: Tensor, std: Tensor) -> None:
        """Take over the statistics of one level, C each."""
        self.get_buffer(f'{level}_mean').copy_(mean)
        self.get_buffer(f'{level}_std').copy_(std.clamp_min(1e-4))

    def taken(self) -> bool:
        """Return whether :meth:`set` was called, or a file had them."""
        return any(bool(values.any()) for name, values in self.named_buffers() if 'mean' in name)

    def normalise(self, level: str, features: Tensor) -> Tensor:
        """Bring N x C x h x w features to mean 0 and standard deviation 1."""
        mean, std = self.get_buffer(f'{level}_mean'), self.get_buffer(f'{level}_std')
        return (features - mean[:, None, None]) / std[:, None, None]

    def restore(self, level: str, features: Tensor) -> Tensor:
        """Undo :meth:`normalise`."""
        mean, std = self.get_buffer(f'{level}_mean'), self.get_buffer(f'{level}_std')
        return features * std[:, None, None] + mean[:, None, None]


class HyperAnalysis(nn.Module):
    """Code to hyper-latent, on the robot: a float network, which decides no probability."""

    def __init__(self, config: LearnedConfig) -> None:
        super().__init__()
        width = config.hyper_width
        self.first = nn.Conv2d(config.code_channels, width, 3, stride=2, padding=1)
        self.second = nn.Conv2d(width, config.hyper_channels, 5, stride=2, padding=2)

    def forward(self, code: Tensor) -> Tensor:
        """Return N x C_z x h/4 x w/4, rounded up, of a code times its gain."""
        result: Tensor = self.second(activate(self.first(code)))
        return result


class Analysis(nn.Module):
    """Pyramid to code, on the robot.

    Finer levels are brought down to the code's size by convolutions of stride 2, each joined by
    the level of its size; coarser levels are repeated up to it. What the coder needs of the
    robot's half besides, gains and the hyper-latent's network, is here as well.

    Args:
        config: the architecture.
    """

    price: Tensor

    def __init__(self, config: LearnedConfig) -> None:
        super().__init__()
        self.config = config
        self.statistics = PyramidStatistics(config)
        channels, widths, place = config.channels, config.analysis_widths, config.code_index
        self.down = nn.ModuleList()
        given = channels
        for width in widths:
            self.down.append(nn.Conv2d(given, width, 3, stride=2, padding=1))
            given = width + channels
        last = widths[-1] if widths else 96
        # The level of the code's own size and the coarser ones come in narrow.
        given = widths[-1] if widths else 0
        self.sides = nn.ModuleList()
        for step in range(len(config.levels) - place):
            width = max(64 >> step, 16)
            self.sides.append(nn.Conv2d(channels, width, 1))
            given += width
        self.join = nn.Conv2d(given, last, 3, padding=1)
        self.blocks = blocks(last, config.analysis_blocks)
        self.project = nn.Conv2d(last, config.code_channels, 1)
        with torch.no_grad():
            self.project.weight.mul_(3)
        self.hyper = HyperAnalysis(config)
        spread = torch.linspace(-0.7, 0.7, config.rates)
        self.log_gain = nn.Parameter(spread[:, None].repeat(1, config.code_channels))
        # Of 1,000 bits of each rate when training ended: where more training begins.
        self.register_buffer('price', torch.full((config.rates,), FIRST_PRICE))

    def forward(self, pyramid: Pyramid) -> Tensor:
        """Return the code, N x C' x h x w, before any gain."""
        config, place = self.config, self.config.code_index
        maps = [self.statistics.normalise(level, pyramid[level]) for level in config.levels]
        x = maps[0]
        for step, down in enumerate(self.down):
            x = activate(down(x))
            if step + 1 < place:
                x = torch.cat([x, maps[step + 1]], 1)
        size = maps[place].shape[-2:]
        parts = [x] if place else []
        for side, features in zip(self.sides, maps[place:], strict=True):
            narrow = side(features)
            if narrow.shape[-2:] != size:
                narrow = functional.interpolate(narrow, size=size, mode='nearest')
            parts.append(narrow)
        x = self.blocks(activate(self.join(torch.cat(parts, 1))))
        code: Tensor = self.project(activate(x))
        return code


class Synthesis(nn.Module):
    """Code to pyramid, on the GPU machine.

    Args:
        config: the architecture.
    """

    def __init__(self, config: LearnedConfig) -> None:
        super().__init__()
        self.config = config
        self.statistics = PyramidStatistics(config)
        widths, place = config.synthesis_widths, config.code_index
        kernel = config.synthesis_kernel
        self.start = nn.Conv2d(config.code_channels, widths[place], 3, padding=1)
        self.blocks = nn.ModuleList(
            blocks(width, count)
            for width, count in zip(widths, config.synthesis_blocks, strict=True)
        )
        self.up = nn.ModuleList(
            Upsample(widths[level + 1], widths[level], kernel) for level in range(place)
        )
        self.down = nn.ModuleList(
            nn.Conv2d(widths[level - 1], widths[level], 3, stride=2, padding=1)
            for level in range(place + 1, len(widths))
        )
        self.heads = nn.ModuleList(
            nn.Conv2d(width, config.channels, kernel, padding=kernel // 2) for width in widths
        )

    def normalised(self, code: Tensor, sizes: Mapping[str, Size]) -> Pyramid:
        """Return the levels ``p2`` .. ``p5`` at mean 0 and standard deviation 1.

        Args:
            code: N x C' x h x w, as the coder gives it back.
            sizes: height and width in cells of the levels.
        """
        levels, place = self.config.levels, self.config.code_index
        maps: dict[int, Tensor] = {place: self.blocks[place](self.start(code))}
        for level in reversed(range(place)):
            x = self.up[level](maps[level + 1], sizes[levels[level]])
            maps[level] = self.blocks[level](x)
        for level, down in enumerate(self.down, start=place + 1):
            maps[level] = self.blocks[level](down(activate(maps[level - 1])))
        return {
            name: head(activate(maps[level]))
            for level, (name, head) in enumerate(zip(levels, self.heads, strict=True))
        }

    def forward(self, code: Tensor, sizes: Mapping[str, Size]) -> Pyramid:
        """Return ``p2'`` .. ``p6'``; see :meth:`normalised`."""
        return self.restored(self.normalised(code, sizes))

    def restored(self, normalised: Pyramid) -> Pyramid:
        """Return ``p2'`` .. ``p6'`` of what :meth:`normalised` returned."""
        pyramid = {
            level: self.statistics.restore(level, features.float())
            for level, features in normalised.items()
        }
        pyramid['p6'] = functional.max_pool2d(pyramid[self.config.levels[-1]], 1, 2)
        return pyramid

"""The whole codec: MSFF and SSFC encoder on the robot, SSFC decoder and MSFR behind the link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import Tensor, nn

from msfc.codecs.msfc.msff import MSFF
from msfc.codecs.msfc.msfr import MSFR
from msfc.codecs.msfc.ssfc import SSFCDecoder, SSFCEncoder
from msfc.types import Pyramid, Size

POOLED_LEVEL = 'p6'
"""The level that FPNs pool from the coarsest one; never sent, pooled again by the receiver."""

MAX_CHANNELS = 2**16 - 1
"""The wire counts channels with 16 bits."""


@dataclass(frozen=True)
class MSFCConfig:
    """Architecture of the codec.

    Attributes:
        channels: channels C of every pyramid level (256 in the paper).
        code_channels: channels C' of the code (8, 16, 32 or 64 in the paper).
        levels: the levels that are fused and rebuilt, finest first.
        fused_level: the level whose size the code has.
        se_reduction: how far the SE block of MSFF squeezes.
    """

    channels: int = 256
    code_channels: int = 64
    levels: tuple[str, ...] = ('p2', 'p3', 'p4', 'p5')
    fused_level: str = 'p5'
    se_reduction: int = 16

    def __post_init__(self) -> None:
        for name in ('channels', 'code_channels', 'se_reduction'):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f'{name} is a whole number, got {value!r}')
            if not 1 <= value <= MAX_CHANNELS:
                raise ValueError(f'{name} is 1 .. {MAX_CHANNELS}, got {value}')
        if not self.levels or not all(isinstance(level, str) for level in self.levels):
            raise ValueError(f'levels are names such as p2, got {self.levels!r}')
        if len(set(self.levels)) != len(self.levels) or POOLED_LEVEL in self.levels:
            raise ValueError(
                f'levels are distinct and without {POOLED_LEVEL}, got {", ".join(self.levels)}'
            )
        if self.fused_level not in self.levels:
            raise ValueError(
                f'fused_level {self.fused_level!r} is not one of {", ".join(self.levels)}'
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON-serialisable values."""
        return {**asdict(self), 'levels': list(self.levels)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MSFCConfig:
        """Make a configuration of what :meth:`to_dict` returned; absent keys have their default.

        Raises:
            ValueError: if a key is unknown or a value impossible.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f'unknown codec settings: {", ".join(unknown)}')
        values = dict(values)
        if 'levels' in values:
            if not isinstance(values['levels'], (list, tuple)):
                raise ValueError(f'levels are a list of names, got {values["levels"]!r}')
            values['levels'] = tuple(values['levels'])
        return cls(**values)


class MSFC(nn.Module):
    """Multi-scale feature compression (ICME 2021): a pyramid to one small map and back.

    The forward pass has no quantiser, as in the paper's training.

    Args:
        config: the architecture.
    """

    def __init__(self, config: MSFCConfig | None = None) -> None:
        super().__init__()
        config = config or MSFCConfig()
        levels = len(config.levels)
        self.config = config
        self.msff = MSFF(config.channels, levels, config.se_reduction)
        self.encoder = SSFCEncoder(config.channels, config.code_channels)
        self.decoder = SSFCDecoder(config.code_channels, config.channels)
        self.msfr = MSFR(config.channels, levels)

    def encode(self, pyramid: Pyramid) -> Tensor:
        """Compress a pyramid.

        Args:
            pyramid: the configured levels, each N x C x h_k x w_k; others are ignored.

        Returns:
            The code, N x C' x h x w in [-1, 1], of the fused level's size.

        Raises:
            ValueError: if a level is missing or does not have C channels.
        """
        maps = []
        for level in self.config.levels:
            if level not in pyramid:
                raise ValueError(f'the pyramid has no level {level}')
            if pyramid[level].shape[1] != self.config.channels:
                raise ValueError(
                    f'level {level} has {pyramid[level].shape[1]} channels, '
                    f'the codec {self.config.channels}'
                )
            maps.append(pyramid[level])
        height, width = pyramid[self.config.fused_level].shape[-2:]
        code: Tensor = self.encoder(self.msff(maps, (height, width)))
        return code

    def decode(self, code: Tensor, sizes: Mapping[str, Size]) -> Pyramid:
        """Rebuild a pyramid.

        Args:
            code: N x C' x h x w.
            sizes: height and width in cells of the configured levels; ``p6`` may be left out.

        Returns:
            The configured levels and ``p6``, each N x C x h_k x w_k, finest first.

        Raises:
            ValueError: if the code does not have C' channels, a level's size is missing, or that
                of ``p6`` is not half the last one's, rounded up.
        """
        if code.shape[1] != self.config.code_channels:
            raise ValueError(
                f'the code has {code.shape[1]} channels, the codec {self.config.code_channels}'
            )
        missing = [level for level in self.config.levels if level not in sizes]
        if missing:
            raise ValueError(f'no size for level {", ".join(missing)}')
        wanted = [sizes[level] for level in self.config.levels]
        maps = self.msfr(self.decoder(code), wanted)
        pooled = (maps[-1].shape[-2], maps[-1].shape[-1])
        if tuple(sizes.get(POOLED_LEVEL, pooled)) != pooled:
            raise ValueError(
                f'{POOLED_LEVEL} is {pooled[0]} x {pooled[1]} behind a level of '
                f'{wanted[-1][0]} x {wanted[-1][1]}, not {sizes[POOLED_LEVEL]}'
            )
        return dict(zip((*self.config.levels, POOLED_LEVEL), maps, strict=True))

    def forward(self, pyramid: Pyramid) -> Pyramid:
        """Compress and rebuild a pyramid, without a quantiser."""
        sizes = {
            level: (pyramid[level].shape[-2], pyramid[level].shape[-1])
            for level in self.config.levels
            if level in pyramid
        }
        return self.decode(self.encode(pyramid), sizes)

"""The whole codec: MSFF and SSFC encoder on the robot, SSFC decoder and MSFR behind the link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msfc.codecs.base import FeatureCodec, transmit
from msfc.codecs.config import MAX_CHANNELS, CodecConfig
from msfc.codecs.msfc.msff import MSFF
from msfc.codecs.msfc.msfr import MSFR
from msfc.codecs.msfc.ssfc import SSFCDecoder, SSFCEncoder
from msfc.types import Pyramid, Size
from msfc.wire.coder import CodeShape
from msfc.wire.packed import PackedCoder

POOLED_LEVEL = 'p6'
"""The level that FPNs pool from the coarsest one; never sent, pooled again by the receiver."""


@dataclass(frozen=True)
class MSFCConfig(CodecConfig):
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


class Analysis(nn.Module):
    """The robot's half: MSFF and SSFC encoder.

    Args:
        config: the architecture.
    """

    def __init__(self, config: MSFCConfig) -> None:
        super().__init__()
        self.msff = MSFF(config.channels, len(config.levels), config.se_reduction)
        self.encoder = SSFCEncoder(config.channels, config.code_channels)

    def forward(self, maps: Sequence[Tensor], size: Size) -> Tensor:
        """Map L levels N x C x h_k x w_k to a code N x C' x height x width in [-1, 1]."""
        code: Tensor = self.encoder(self.msff(maps, size))
        return code


class Synthesis(nn.Module):
    """The half behind the link: SSFC decoder and MSFR.

    Args:
        config: the architecture.
    """

    def __init__(self, config: MSFCConfig) -> None:
        super().__init__()
        self.decoder = SSFCDecoder(config.code_channels, config.channels)
        self.msfr = MSFR(config.channels, len(config.levels))

    def forward(self, code: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
        """Map a code N x C' x h x w to L levels of the given sizes and ``p6``."""
        maps: list[Tensor] = self.msfr(self.decoder(code), sizes)
        return maps


class MSFC(FeatureCodec):
    """Multi-scale feature compression (ICME 2021): a pyramid to one small map and back.

    A rate is n, bits per code element; 32 is float32.

    Args:
        settings: the architecture.
    """

    kind: ClassVar[str] = 'msfc'
    default_rate = 4  # the paper's operating point, with C' a quarter of C
    analysis: Analysis
    synthesis: Synthesis

    def __init__(self, settings: MSFCConfig | None = None) -> None:
        super().__init__()
        self.settings = settings or MSFCConfig()
        self.channels = self.settings.channels
        self.levels = self.settings.levels
        self.code_channels = self.settings.code_channels
        self.analysis = Analysis(self.settings)
        self.synthesis = Synthesis(self.settings)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> MSFC:
        """Build a codec from its :meth:`config`; absent keys have their default.

        Raises:
            ValueError: if a key is unknown or a value impossible.
        """
        values = {key: value for key, value in config.items() if key != 'type'}
        return cls(MSFCConfig.from_dict(values))

    def config(self) -> dict[str, Any]:
        """Return the type and the settings."""
        return {'type': self.kind, **self.settings.to_dict()}

    def code_shape(self, sizes: Mapping[str, Size]) -> CodeShape:
        """Return C' and the fused level's size."""
        return (self.code_channels, *sizes[self.settings.fused_level])

    def coder_settings(self) -> dict[str, Any]:
        """Return those of the packed coder, which needs no tables."""
        return {'coding': PackedCoder.coding}

    def analyse(self, pyramid: Pyramid) -> Tensor:
        """Compress a pyramid; see :meth:`FeatureCodec.analyse`.

        The code has values in [-1, 1], and the fused level's size.
        """
        self.check_pyramid(pyramid)
        maps = [pyramid[level] for level in self.levels]
        height, width = pyramid[self.settings.fused_level].shape[-2:]
        code: Tensor = self.analysis(maps, (height, width))
        return code

    def synthesise(self, code: Tensor, sizes: Mapping[str, Size]) -> Pyramid:
        """Rebuild a pyramid; see :meth:`FeatureCodec.synthesise`.

        Raises:
            ValueError: if the code does not have C' channels, a level's size is missing, or that
                of ``p6`` is not half the last one's, rounded up.
        """
        self.check_code(code, sizes)
        wanted = [sizes[level] for level in self.levels]
        maps = self.synthesis(code, wanted)
        pooled = (maps[-1].shape[-2], maps[-1].shape[-1])
        if tuple(sizes.get(POOLED_LEVEL, pooled)) != pooled:
            raise ValueError(
                f'{POOLED_LEVEL} is {pooled[0]} x {pooled[1]} behind a level of '
                f'{wanted[-1][0]} x {wanted[-1][1]}, not {sizes[POOLED_LEVEL]}'
            )
        return dict(zip((*self.levels, POOLED_LEVEL), maps, strict=True))

    def forward(
        self, pyramid: Pyramid, rate: int | None = None
    ) -> tuple[Pyramid, Tensor | None]:
        """Compress and rebuild a pyramid; see :meth:`FeatureCodec.forward`.

        The paper trains without a quantiser, so without a rate. With one, the code goes through
        bytes, and no gradient reaches the robot's half.
        """
        sizes = {
            level: (pyramid[level].shape[-2], pyramid[level].shape[-1])
            for level in self.levels
            if level in pyramid
        }
        code, bits = self.analyse(pyramid), None
        if rate is not None:
            code, payloads = transmit(self.coder(), code, rate)
            lengths = [8.0 * len(data) for data in payloads]
            bits = torch.tensor(lengths, device=code.device)
        return self.synthesise(code, sizes), bits

"""Architecture of the learned codec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msfc.codecs.config import MAX_CHANNELS, CodecConfig
from msfc.settings import check_number, check_texts
from msfc.wire.entropy import MAX_SLICES

MAX_RATES = 32
"""More rates than anybody needs; the wire counts up to 255."""

_WHOLE = (
    'channels', 'code_channels', 'hyper_channels', 'rates', 'context_width', 'hidden_width',
    'hyper_width', 'analysis_blocks', 'synthesis_kernel',
)
_TUPLES = ('levels', 'slices', 'analysis_widths', 'synthesis_widths', 'synthesis_blocks')


@dataclass(frozen=True)
class LearnedConfig(CodecConfig):
    """Architecture of :class:`~msfc.codecs.learned.codec.LearnedCodec`.

    Attributes:
        channels: channels C of every pyramid level.
        levels: the levels that are sent, finest first, each of half the one before's size.
        code_level: the level whose size the code has.
        code_channels: channels C' of the code.
        slices: how many channels of the code are decoded at a time; their sum is C'.
        hyper_channels: channels of the hyper-latent, at a quarter of the code's size.
        rates: number of rates.
        analysis_widths: channels at the sizes of the second level .. the code's level.
        analysis_blocks: residual blocks at the code's size in the analysis.
        synthesis_widths: channels at each level's size in the synthesis, finest first.
        synthesis_blocks: residual blocks at each level's size in the synthesis.
        synthesis_kernel: 1 or 3: side of the kernels that double the size, and of those that make
            the levels.
        context_width: channels of each slice's context, which the entropy model keeps per cell.
        hidden_width: channels between a context and means and scales.
        hyper_width: channels inside the hyper-decoder.
    """

    channels: int = 256
    levels: tuple[str, ...] = ('p2', 'p3', 'p4', 'p5')
    code_level: str = 'p4'
    code_channels: int = 48
    slices: tuple[int, ...] = (12, 12, 12, 12)
    hyper_channels: int = 16
    rates: int = 8
    analysis_widths: tuple[int, ...] = (64, 96)
    analysis_blocks: int = 1
    synthesis_widths: tuple[int, ...] = (64, 96, 160, 160)
    synthesis_blocks: tuple[int, ...] = (2, 2, 3, 1)
    synthesis_kernel: int = 1
    context_width: int = 48
    hidden_width: int = 48
    hyper_width: int = 48

    def __post_init__(self) -> None:
        for name in _WHOLE:
            most = MAX_RATES if name == 'rates' else MAX_CHANNELS
            check_number(getattr(self, name), name, 1, most, whole=True)
        for name in _TUPLES[1:]:
            for value in getattr(self, name):
                check_number(value, name, 1, MAX_CHANNELS, whole=True)
        if self.synthesis_kernel not in (1, 3):
            raise ValueError(f'synthesis_kernel is 1 or 3, got {self.synthesis_kernel!r}')
        check_texts(self.levels, 'levels')
        if len(set(self.levels)) != len(self.levels) or 'p6' in self.levels:
            raise ValueError(f'levels are distinct and without p6, got {", ".join(self.levels)}')
        if self.code_level not in self.levels:
            raise ValueError(
                f'code_level {self.code_level!r} is not one of {", ".join(self.levels)}'
            )
        if len(self.slices) > MAX_SLICES:
            raise ValueError(f'slices are at most {MAX_SLICES}, got {len(self.slices)}')
        if sum(self.slices) != self.code_channels:
            raise ValueError(
                f'slices {self.slices} have {sum(self.slices)} channels in all, '
                f"not the code's {self.code_channels}"
            )
        for name in ('synthesis_widths', 'synthesis_blocks'):
            if len(getattr(self, name)) != len(self.levels):
                raise ValueError(f'{name} has one number for each of {", ".join(self.levels)}')
        if len(self.analysis_widths) != self.code_index:
            raise ValueError(
                f'analysis_widths has {len(self.analysis_widths)} numbers, but {self.code_level} '
                f'lies {self.code_index} levels under {self.levels[0]}'
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON-serialisable values."""
        values = super().to_dict()
        if self.synthesis_kernel == 1:
            del values['synthesis_kernel']  # fingerprints from before stay valid
        return values

    @property
    def code_index(self) -> int:
        """Place of the code's level among the levels."""
        return self.levels.index(self.code_level)

"""A small head for semantic segmentation, for detectors that bring none.

The semantic branch of Kirillov et al., *Panoptic Feature Pyramid Networks* (CVPR 2019), as narrow
as it pleases: every level is brought to the finest one's size by convolutions and doublings, the
levels are summed, and one convolution tells the classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from torch import Tensor, nn

from msfc.heads.base import StoredHead
from msfc.heads.semantic import SemanticHead, check_class_count, resized
from msfc.settings import check_number, check_texts
from msfc.types import Pyramid

GROUPS = 8
"""Of the normalisation; widths are multiples of it."""


@dataclass(frozen=True)
class FpnSemanticConfig:
    """Architecture of a :class:`FpnSemanticHead`.

    Attributes:
        class_names: names of the classes.
        levels: the pyramid's levels, finest first, each of half the size of the one before.
        feature_channels: channels of each level.
        channels: width of the head, a multiple of :data:`GROUPS`.

    Raises:
        ValueError: an impossible value; the message names it.
    """

    class_names: tuple[str, ...]
    levels: tuple[str, ...] = ('p2', 'p3', 'p4', 'p5')
    feature_channels: int = 256
    channels: int = 32

    def __post_init__(self) -> None:
        names = check_class_count(check_texts(self.class_names, 'class_names'))
        object.__setattr__(self, 'class_names', names)
        object.__setattr__(self, 'levels', check_texts(self.levels, 'levels'))
        check_number(self.feature_channels, 'feature_channels', 1, 4096, whole=True)
        check_number(self.channels, 'channels', GROUPS, 4096, whole=True)
        if self.channels % GROUPS:
            raise ValueError(f'channels is {self.channels}, not a multiple of {GROUPS}')


class FpnSemanticHead(SemanticHead, StoredHead):
    """The semantic branch of a panoptic FPN."""

    kind: ClassVar[str] = 'fpn_semantic'

    def __init__(self, config: FpnSemanticConfig) -> None:
        super().__init__()
        self._config = config
        self.class_names = config.class_names
        self.branches = nn.ModuleDict({
            level: nn.ModuleList(
                _convolution(config.feature_channels if k == 0 else config.channels, config)
                for k in range(max(doublings, 1))
            )
            for doublings, level in enumerate(config.levels)
        })
        self.predictor = nn.Conv2d(config.channels, len(config.class_names), 1)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> FpnSemanticHead:
        """Build from the result of :meth:`config`, with random weights.

        Raises:
            ValueError: a key is unknown or missing, or a value impossible; the message names it.
        """
        given = {key: value for key, value in config.items() if key != 'type'}
        known = [entry.name for entry in fields(FpnSemanticConfig)]
        if unknown := sorted(set(given) - set(known)):
            raise ValueError(f'unknown settings of the head: {unknown}; known are {known}')
        if 'class_names' not in given:
            raise ValueError('the head needs class_names')
        return cls(FpnSemanticConfig(**given))

    def config(self) -> dict[str, Any]:
        """Return the architecture as JSON data."""
        settings = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self._config).items()
        }
        return {'type': self.kind, **settings}

    def logits(self, pyramid: Pyramid) -> Tensor:
        """Return what speaks for each class, N x classes, at the finest level's size."""
        finest = pyramid[self._config.levels[0]]
        total = finest.new_zeros(())
        for doublings, level in enumerate(self._config.levels):
            maps, branch = pyramid[level], self.branches[level]
            assert isinstance(branch, nn.ModuleList)
            for step, layer in enumerate(branch):
                maps = layer(maps)
                if doublings:
                    # To the very size of the level that comes next: edges may be odd.
                    finer = self._config.levels[doublings - step - 1]
                    height, width = pyramid[finer].shape[-2:]
                    maps = resized(maps, (height, width))
            total = total + maps
        logits: Tensor = self.predictor(total)
        return logits


def _convolution(channels: int, config: FpnSemanticConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, config.channels, 3, padding=1, bias=False),
        nn.GroupNorm(GROUPS, config.channels),
        nn.ReLU(),
    )

"""The learned codec: analysis, entropy model with rates, synthesis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msfc.codecs.base import FeatureCodec
from msfc.codecs.learned.config import LearnedConfig
from msfc.codecs.learned.entropy import Coded, EntropyModel
from msfc.codecs.learned.transforms import Analysis, Synthesis
from msfc.types import Pyramid, Size
from msfc.wire.coder import Code, CodeShape
from msfc.wire.key_fit import fit_key_arrays
from msfc.wire.learned import EDGE_ARRAYS, LearnedCoder, fitted_tables


class LearnedCodec(FeatureCodec):
    """A pyramid to a rounded, entropy-coded map and back, at a rate chosen per image.

    Rates are 0 .. K - 1, cheapest first; all are of the same networks, with gains of their own
    for each channel of the code.

    Args:
        settings: the architecture.
    """

    kind = 'learned'
    analysis: Analysis
    synthesis: Synthesis
    typical_bytes: Tensor

    def __init__(self, settings: LearnedConfig | None = None) -> None:
        super().__init__()
        self.settings = settings or LearnedConfig()
        config = self.settings
        self.channels = config.channels
        self.levels = config.levels
        self.code_channels = config.code_channels
        self.default_rate = (config.rates - 1) // 2
        self.analysis = Analysis(config)
        self.entropy = EntropyModel(config)
        self.inverse_gain = nn.Parameter((-self.analysis.log_gain.detach()).exp())
        self.rate_offset = nn.Parameter(torch.zeros(config.rates, config.code_channels))
        self.synthesis = Synthesis(config)
        self.register_buffer('typical_bytes', torch.ones(config.rates))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> LearnedCodec:
        """Build a codec from its :meth:`config`; absent keys have their default.

        Raises:
            ValueError: if a key is unknown or a value impossible.
        """
        values = {key: value for key, value in config.items() if key != 'type'}
        return cls(LearnedConfig.from_dict(values))

    def config(self) -> dict[str, Any]:
        """Return the type and the settings."""
        return {'type': self.kind, **self.settings.to_dict()}

    def code_shape(self, sizes: Mapping[str, Size]) -> CodeShape:
        """Return C' and the size of the code's level."""
        return (self.code_channels, *sizes[self.settings.code_level])

    def coder_settings(self) -> dict[str, Any]:
        """Return those of the entropy model's coder."""
        return {'coding': LearnedCoder.coding, 'slices': list(self.settings.slices)}

    def coder_arrays(self) -> dict[str, NDArray[Any]]:
        """Return what :class:`~msfc.wire.learned.LearnedCoder` is made of, both halves' parts."""
        state = dict(self.entropy.state_dict())
        for name in ('inverse_gain', 'rate_offset', 'typical_bytes'):
            state[name] = getattr(self, name)
        analysis = self.analysis.state_dict()
        state |= {name: analysis[name] for name in EDGE_ARRAYS}
        return {name: value.detach().cpu().numpy() for name, value in state.items()}

    @property
    def fitted(self) -> bool:
        """Whether it has been trained: then it knows what its rates take."""
        return bool((self.typical_bytes != 1).any())

    @torch.no_grad()
    def fit_tables(self, pyramids: Iterable[Pyramid]) -> None:
        """Fit the tables of probabilities to the symbols that are written for some pyramids.

        Symbols stay as they are: only the bits that they take change.
        """
        coder = LearnedCoder(self.coder_arrays(), self.settings.slices)
        counts = np.zeros(self.entropy.frequencies.shape, np.int64)
        for pyramid in pyramids:
            for code in self.analyse(pyramid).float().cpu().numpy():
                for rate in coder.rates:
                    counts += coder.count(code, rate)
        self.entropy.frequencies.copy_(torch.from_numpy(fitted_tables(counts)))

    @torch.no_grad()
    def fit_references(self, pairs: Iterable[tuple[Pyramid, Pyramid]]) -> None:
        """Fit the tables of coding against key frames to pairs of frames.

        What is coded alone stays as it is, to the byte. It takes about a second a pair.

        Args:
            pairs: the pyramid of a key frame and that of one that could refer to it, some
                hundreds, of all that cameras do.
        """
        codes: list[tuple[Code, Code]] = []
        for pair in pairs:
            first, second = (self.analyse(one).float().cpu().numpy() for one in pair)
            codes += zip(first, second, strict=True)
        self.entropy.set_key_arrays(
            fit_key_arrays(self.coder_arrays(), self.settings.slices, codes)
        )

    def make_room(self, names: Iterable[str]) -> None:
        """Make room for tables that not all models have; see :meth:`FeatureCodec.make_room`."""
        if any(name.startswith('entropy.key_') for name in names):
            self.entropy.make_room_for_keys()

    def analyse(self, pyramid: Pyramid) -> Tensor:
        """Compress a pyramid; see :meth:`FeatureCodec.analyse`.

        The code has the size of the code's level, and no gain yet.
        """
        self.check_pyramid(pyramid)
        code: Tensor = self.analysis(pyramid)
        return code

    def synthesise(self, code: Tensor, sizes: Mapping[str, Size]) -> Pyramid:
        """Rebuild a pyramid; see :meth:`FeatureCodec.synthesise`."""
        self.check_code(code, sizes)
        pyramid: Pyramid = self.synthesis(code, sizes)
        for level, features in pyramid.items():
            size = tuple(features.shape[-2:])
            if tuple(sizes.get(level, size)) != size:
                raise ValueError(
                    f'{level} is {size[0]} x {size[1]} with a code of {code.shape[-2]} x '
                    f'{code.shape[-1]} cells, not {sizes[level]}'
                )
        return pyramid

    def forward(
        self, pyramid: Pyramid, rate: int | None = None
    ) -> tuple[Pyramid, Tensor | None]:
        """Compress and rebuild a pyramid; see :meth:`FeatureCodec.forward`.

        Without a rate the code is not rounded, and has the gains of the last one. With one,
        gradients reach both halves, and the bits are what training minimises.
        """
        rates = torch.full(
            (len(pyramid[self.levels[0]]),),
            self.settings.rates - 1 if rate is None else self.coder().check_rate(rate),
            device=self.inverse_gain.device,
        )
        if rate is not None:
            normalised, coded = self.compress(pyramid, rates)
            return self.synthesis.restored(normalised), coded.bits
        scaled = self.scaled(self.analyse(pyramid), rates)
        return self.synthesise(self._received(scaled, rates), level_sizes(pyramid)), None

    def compress(self, pyramid: Pyramid, rates: Tensor) -> tuple[Pyramid, Coded]:
        """Compress and rebuild with a rate for each image.

        Args:
            pyramid: at least the codec's levels.
            rates: the rate of each image, N int64.

        Returns:
            The rebuilt levels at mean 0 and standard deviation 1
            (:meth:`~msfc.codecs.learned.transforms.Synthesis.restored` takes them), and what was
            coded.
        """
        return self.through(self.analyse(pyramid), level_sizes(pyramid), rates)

    def through(
        self, code: Tensor, sizes: Mapping[str, Size], rates: Tensor
    ) -> tuple[Pyramid, Coded]:
        """Send codes and rebuild; see :meth:`compress`.

        Args:
            code: what :meth:`analyse` returns, N x C' x h x w.
            sizes: height and width in cells of the levels.
            rates: the rate of each image, N int64.
        """
        coded = self.count(self.scaled(code, rates), rates)
        return self.synthesis.normalised(self._received(coded.values, rates), sizes), coded

    def scaled(self, code: Tensor, rates: Tensor) -> Tensor:
        """Return codes, N x C' x h x w, times the gains of the rate of each, N int64."""
        return code.float() * self.analysis.log_gain[rates].exp()[:, :, None, None]

    def count(self, scaled: Tensor, rates: Tensor) -> Coded:
        """Round what :meth:`scaled` returns, and count its bits."""
        coded: Coded = self.entropy(scaled, self.analysis.hyper(scaled), rates)
        return coded

    def _received(self, values: Tensor, rates: Tensor) -> Tensor:
        received = values * self.inverse_gain[rates][:, :, None, None]
        return received + self.rate_offset[rates][:, :, None, None]


def level_sizes(pyramid: Pyramid) -> dict[str, Size]:
    """Return height and width of each level of a pyramid."""
    return {
        level: (features.shape[-2], features.shape[-1]) for level, features in pyramid.items()
    }

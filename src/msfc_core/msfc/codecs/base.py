"""The seam between detectors and codecs: what a *feature codec* can do.

A feature codec makes of a pyramid one small map, the *code*, on the robot (``analysis``) and a
pyramid of the code behind the link (``synthesis``). Bytes are its coder's business, packets are
nobody's here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msfc.types import Pyramid, Size
from msfc.wire.coder import CodeShape, PayloadCoder
from msfc.wire.coders import build_coder


class FeatureCodec(nn.Module, ABC):
    """Compresses a pyramid to one map and rebuilds it.

    Attributes:
        kind: its ``type`` in configurations.
        default_rate: the rate that a model has where nobody says another.
        channels: channels C of every pyramid level.
        levels: the pyramid levels that it needs and rebuilds, finest first, without ``p6``.
        code_channels: channels C' of the code.
        analysis: the robot's half. All other weights and tables are needed behind the link, and
            belong to the model's fingerprint.
        synthesis: the other half.
    """

    kind: ClassVar[str]
    default_rate: int
    channels: int
    levels: tuple[str, ...]
    code_channels: int
    analysis: nn.Module
    synthesis: nn.Module

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return what :func:`build_codec` needs to build this architecture.

        The result is JSON-serialisable and has the key ``type``.
        """

    @abstractmethod
    def code_shape(self, sizes: Mapping[str, Size]) -> CodeShape:
        """Return channels, height and width in cells of the code.

        Args:
            sizes: height and width in cells of every level.
        """

    @abstractmethod
    def analyse(self, pyramid: Pyramid) -> Tensor:
        """Compress a pyramid.

        Args:
            pyramid: at least :attr:`levels`, each N x C x h_k x w_k.

        Returns:
            The code, N x C' x h x w, not quantised.

        Raises:
            ValueError: if a level is missing or does not have C channels.
        """

    @abstractmethod
    def synthesise(self, code: Tensor, sizes: Mapping[str, Size]) -> Pyramid:
        """Rebuild a pyramid.

        Args:
            code: N x C' x h x w, as the coder read it.
            sizes: height and width in cells of :attr:`levels`; ``p6`` may be left out.

        Returns:
            :attr:`levels` and ``p6``, each N x C x h_k x w_k, finest first.

        Raises:
            ValueError: if the code or the sizes do not fit.
        """

    @abstractmethod
    def coder_settings(self) -> dict[str, Any]:
        """Return what :func:`msfc.wire.coders.build_coder` needs, but for arrays; JSON data."""

    def coder_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that it needs besides, the tables that the codec has now."""
        return {}

    def coder(self) -> PayloadCoder:
        """Return what makes bytes of this codec's codes, with the tables that it has now."""
        return build_coder(self.coder_settings(), self.coder_arrays())

    @abstractmethod
    def forward(
        self, pyramid: Pyramid, rate: int | None = None
    ) -> tuple[Pyramid, Tensor | None]:
        """Compress and rebuild a pyramid, as training does it.

        Args:
            pyramid: as for :meth:`analyse`.
            rate: one of the coder's rates; None for no quantisation at all.

        Returns:
            The rebuilt pyramid, and the bits of each of the N codes; None without a rate.
        """

    def make_room(self, names: Iterable[str]) -> None:
        """Make room for tensors that not all models of this kind have.

        Args:
            names: of all tensors that are about to be loaded, as in the codec's own state.
        """

    def check_pyramid(self, pyramid: Pyramid) -> None:
        """Check that a pyramid has the codec's levels and channels.

        Raises:
            ValueError: if it does not.
        """
        for level in self.levels:
            if level not in pyramid:
                raise ValueError(f'the pyramid has no level {level}')
            if pyramid[level].shape[1] != self.channels:
                raise ValueError(
                    f'level {level} has {pyramid[level].shape[1]} channels, '
                    f'the codec {self.channels}'
                )

    def check_code(self, code: Tensor, sizes: Mapping[str, Size]) -> None:
        """Check that a code has C' channels, and that all levels have a size.

        Raises:
            ValueError: if not.
        """
        if code.shape[1] != self.code_channels:
            raise ValueError(
                f'the code has {code.shape[1]} channels, the codec {self.code_channels}'
            )
        missing = [level for level in self.levels if level not in sizes]
        if missing:
            raise ValueError(f'no size for level {", ".join(missing)}')


def build_codec(config: dict[str, Any]) -> FeatureCodec:
    """Build a codec with random weights from its :meth:`FeatureCodec.config`.

    Args:
        config: ``type`` is ``msfc`` or ``learned``; the other keys are that type's own.

    Raises:
        ValueError: an unknown type, or a key that the type does not know.
    """
    kind = config.get('type')
    if kind == 'msfc':
        from msfc.codecs.msfc.codec import MSFC

        return MSFC.from_config(config)
    if kind == 'learned':
        from msfc.codecs.learned.codec import LearnedCodec

        return LearnedCodec.from_config(config)
    raise ValueError(f"unknown codec type {kind!r}: choose 'msfc' or 'learned'")


def transmit(coder: PayloadCoder, code: Tensor, rate: int) -> tuple[Tensor, list[bytes]]:
    """Send codes: make payloads of them and read these again.

    Args:
        coder: of the codec.
        code: N x C' x h x w; no gradient goes through.
        rate: one of the coder's rates.

    Returns:
        What the receiver sees of the code, on the same device, and the N payloads.
    """
    values = code.detach().float().cpu().numpy()
    payloads = [coder.write(one, rate) for one in values]
    read = [coder.read(data, values.shape[1:], rate) for data in payloads]
    return torch.from_numpy(np.stack(read)).to(code.device), payloads

"""Camera image to packet: a network gives a code, a coder makes bytes of it.

Importing this module does not import torch: a robot without PyTorch needs it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msfc.pipeline.edge_network import EdgeNetwork
from msfc.pipeline.stopwatch import Stopwatch
from msfc.wire.coder import PayloadCoder
from msfc.wire.packet import FeaturePacket


class EdgePipeline:
    """Camera image to packet; :func:`msfc.pipeline.torch_network.edge_pipeline` makes a model's.

    Args:
        network: gives the code of an image.
        coder: makes bytes of it.
        fingerprint: of the model whose decoder is needed.
        rate: one that the coder knows.

    Raises:
        ValueError: if the rate is unknown.
    """

    def __init__(
        self, network: EdgeNetwork, coder: PayloadCoder, fingerprint: str, rate: int
    ) -> None:
        self._network = network
        self._coder = coder
        self._fingerprint = fingerprint
        self.rate = rate

    @property
    def fingerprint(self) -> str:
        """The model's fingerprint, as in every packet."""
        return self._fingerprint

    @property
    def rates(self) -> tuple[int, ...]:
        """The rates that the coder knows, cheapest first."""
        return self._coder.rates

    @property
    def rate(self) -> int:
        """The rate of the next packets; may be set, to one of :attr:`rates`."""
        return self._rate

    @rate.setter
    def rate(self, rate: int) -> None:
        self._rate = self._coder.check_rate(rate)

    def encode(self, image: NDArray[np.uint8], sequence: int = 0) -> FeaturePacket:
        """Compress one image.

        Args:
            image: H x W x 3, uint8, BGR; any strides, may be read-only.
            sequence: number of the frame, taken modulo 2**32.

        Raises:
            ValueError: if the image is of another kind or empty.
            PacketError: if the network gives values that are not numbers.
        """
        rate = self._rate
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(f'an image is H x W x 3 uint8, got {image.shape} {image.dtype}')
        output = self._network(image)
        watch = Stopwatch()
        data = self._coder.write(output.code, rate)
        pack_time = watch.lap()

        channels, height, width = output.code.shape
        valid, padded = output.sizes.valid[0], output.sizes.padded
        return FeaturePacket(
            sequence=sequence % 2**32,
            reference=0,
            image_height=image.shape[0],
            image_width=image.shape[1],
            valid_height=valid[0],
            valid_width=valid[1],
            padded_height=padded[0],
            padded_width=padded[1],
            channels=channels,
            feature_height=height,
            feature_width=width,
            rate=rate,
            coding=self._coder.coding,
            model=self._fingerprint,
            preprocess_time=_float32(output.durations['preprocess']),
            backbone_time=_float32(output.durations['backbone']),
            encode_time=_float32(output.durations['encode']),
            pack_time=_float32(pack_time),
            data=data,
        )


def _float32(seconds: float) -> float:
    """Return a duration as the message carries it."""
    return float(np.float32(seconds))

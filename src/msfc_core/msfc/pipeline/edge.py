"""Camera image to packet: a network gives a code, a coder makes bytes of it.

Importing this module does not import torch: a robot without PyTorch needs it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msfc.pipeline.edge_network import EdgeNetwork, EdgeOutput
from msfc.pipeline.references import Draft, KeyFrames
from msfc.pipeline.stopwatch import Stopwatch
from msfc.types import Size
from msfc.wire.coder import CodeShape, PayloadCoder
from msfc.wire.packet import FeaturePacket


class EdgeFrame:
    """The code of one image, and the payloads made of it: one for a rate, written when asked for.

    Args:
        output: what the network made of the image.
        image_size: height and width of the image in pixels.
        coder: makes bytes of the code.
        fingerprint: of the model whose decoder is needed.
        keys: the sender's key frames; by default there are none.
    """

    def __init__(
        self,
        output: EdgeOutput,
        image_size: Size,
        coder: PayloadCoder,
        fingerprint: str,
        keys: KeyFrames | None = None,
    ) -> None:
        self.output = output
        self.image_size = image_size
        self._coder = coder
        self._fingerprint = fingerprint
        self._keys = keys or KeyFrames(coder)
        self._payloads: dict[int, Draft] = {}
        self._pack_time = 0.0

    @property
    def code_shape(self) -> CodeShape:
        """Channels, height and width in cells of the code."""
        channels, height, width = self.output.code.shape
        return channels, height, width

    @property
    def fixed_length(self) -> bool:
        """Whether a payload's length is known before it is written."""
        return self._coder.fixed_length and not self._keys.interval

    @property
    def written(self) -> tuple[int, ...]:
        """The rates whose payloads have been written, in that order."""
        return tuple(self._payloads)

    def expected_bytes(self, rate: int) -> float:
        """Return the length that payloads of this size and rate usually have.

        Raises:
            ValueError: if the rate is unknown.
        """
        return self._coder.expected_bytes(self.code_shape, rate)

    def payload_bytes(self, rate: int) -> int:
        """Return the length of this code's payload: exact, so that it may have to be written.

        Raises:
            ValueError: if the rate is unknown.
            PacketError: if the network gave values that are not numbers.
        """
        if self.fixed_length:
            return int(self.expected_bytes(rate))
        return len(self.payload(rate))

    def alone_bytes(self, rate: int) -> int:
        """Return the length that the payload has without a reference; it may have to be written.

        Raises:
            ValueError: if the rate is unknown.
            PacketError: if the network gave values that are not numbers.
        """
        return self._draft(rate).alone_bytes

    def payload(self, rate: int) -> bytes:
        """Return the payload of a rate, the same one whenever it is asked for.

        Raises:
            ValueError: if the rate is unknown.
            PacketError: if the network gave values that are not numbers.
        """
        return self._draft(rate).data

    def _draft(self, rate: int) -> Draft:
        draft = self._payloads.get(rate)
        if draft is None:
            watch = Stopwatch()
            draft = self._payloads[rate] = self._keys.draft(self.output.code, rate)
            self._pack_time += watch.lap()
        return draft

    def packet(self, rate: int, sequence: int = 0) -> FeaturePacket:
        """Return the packet of a rate; its ``pack_time`` is that of all payloads written so far.

        Where there are key frames it is taken to be sent: ask for one packet of a frame.

        Args:
            rate: one that the coder knows.
            sequence: number of the frame, taken modulo 2**32.

        Raises:
            ValueError: if the rate is unknown.
            PacketError: if the network gave values that are not numbers.
        """
        draft, sequence = self._draft(rate), sequence % 2**32
        channels, height, width = self.code_shape
        durations = self.output.durations
        valid, padded = self.output.sizes.valid[0], self.output.sizes.padded
        return FeaturePacket(
            sequence=sequence,
            reference=self._keys.commit(draft, sequence),
            image_height=self.image_size[0],
            image_width=self.image_size[1],
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
            preprocess_time=_float32(durations['preprocess']),
            backbone_time=_float32(durations['backbone']),
            encode_time=_float32(durations['encode']),
            pack_time=_float32(self._pack_time),
            data=draft.data,
        )


class EdgePipeline:
    """Camera image to packet; :func:`msfc.pipeline.torch_network.edge_pipeline` makes a model's.

    :meth:`analyse` runs the network, and the :class:`EdgeFrame` that it gives has a packet for any
    rate; :meth:`encode` does both at :attr:`rate`.

    Args:
        network: gives the code of an image.
        coder: makes bytes of it.
        fingerprint: of the model whose decoder is needed.
        rate: one that the coder knows.
        key_interval: frames from one key frame to the next; 0 for none, when every packet
            decodes alone.

    Attributes:
        keys: the key frames: what the receiver says of them goes in here.

    Raises:
        ValueError: if the rate is unknown, or there are to be key frames and the coder has none.
    """

    def __init__(
        self,
        network: EdgeNetwork,
        coder: PayloadCoder,
        fingerprint: str,
        rate: int,
        key_interval: int = 0,
    ) -> None:
        self._network = network
        self._coder = coder
        self._fingerprint = fingerprint
        self.keys = KeyFrames(coder, key_interval)
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

    def analyse(self, image: NDArray[np.uint8]) -> EdgeFrame:
        """Run the network on one image; nothing is coded yet.

        Args:
            image: H x W x 3, uint8, BGR; any strides, may be read-only.

        Raises:
            ValueError: if the image is of another kind or empty.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(f'an image is H x W x 3 uint8, got {image.shape} {image.dtype}')
        size = (image.shape[0], image.shape[1])
        output = self._network(image)
        return EdgeFrame(output, size, self._coder, self._fingerprint, self.keys)

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
        return self.analyse(image).packet(rate, sequence)


def _float32(seconds: float) -> float:
    """Return a duration as the message carries it."""
    return float(np.float32(seconds))

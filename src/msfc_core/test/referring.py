"""A coder with references for tests: the packed one, of differences where it refers to a key."""

from __future__ import annotations

import zlib

import numpy as np

from msfc.codecs.msfc.codec import MSFC, MSFCConfig
from msfc.model import SplitModel
from msfc.wire.coder import Code, CodeShape, Key
from msfc.wire.packed import PackedCoder
from msfc.wire.packet import PacketError, RefusalReason
from msfc.wire.packing import Bytes
from tiny import CHANNELS, CODE_CHANNELS, tiny_model

BITS = 8


class ReferringCoder(PackedCoder):
    """Eight bits an element, whatever the rate.

    Payloads against a key frame are its digest, two bytes, and five bytes for each element that
    differs: place and value.
    """

    uses_references = True

    def write(self, code: Code, rate: int, reference: Key | None = None) -> bytes:
        """Write; see :class:`ReferringCoder`."""
        data = super().write(code, BITS)
        if reference is None:
            return data
        symbols, known = np.frombuffer(data, np.uint8), reference.values.ravel()
        places = np.flatnonzero(symbols != known)
        parts = [int(place).to_bytes(4, 'big') + bytes([symbols[place]]) for place in places]
        return reference.digest.to_bytes(2, 'big') + b''.join(parts)

    def read(
        self, data: Bytes, shape: CodeShape, rate: int, reference: Key | None = None
    ) -> Code:
        """Read."""
        if reference is None:
            return super().read(data, shape, BITS)
        if not self.refers_to(data, reference):
            raise PacketError(RefusalReason.MISSING_REFERENCE, 'another key frame')
        symbols, content = reference.values.astype(np.uint8).ravel(), bytes(data)[2:]
        for start in range(0, len(content), 5):
            symbols[int.from_bytes(content[start : start + 4], 'big')] = content[start + 4]
        return super().read(symbols.tobytes(), shape, BITS)

    def check(self, data: Bytes, shape: CodeShape, rate: int) -> None:
        """Check nothing: payloads have any length."""

    def write_key(self, code: Code, rate: int) -> tuple[bytes, Key]:
        """Write."""
        data = super().write(code, BITS)
        return data, _key(data, (code.shape[0], code.shape[1], code.shape[2]), rate)

    def read_key(self, data: Bytes, shape: CodeShape, rate: int) -> tuple[Code, Key]:
        """Read."""
        return super().read(data, shape, BITS), _key(data, shape, rate)

    def refers_to(self, data: Bytes, key: Key) -> bool:
        """Compare the digests."""
        return bytes(data)[:2] == key.digest.to_bytes(2, 'big')


def _key(data: Bytes, shape: CodeShape, rate: int) -> Key:
    values = np.frombuffer(data, np.uint8).astype(np.int16)
    return Key(shape, rate, values, np.zeros(0, np.int16), zlib.crc32(data) % 4096)


class ReferringCodec(MSFC):
    """A codec with that coder."""

    def coder(self) -> PackedCoder:
        """Return it."""
        return ReferringCoder()


def referring_model() -> SplitModel:
    """Return a tiny model with that codec, of eight bits."""
    model = tiny_model()
    codec = ReferringCodec(MSFCConfig(CHANNELS, CODE_CHANNELS, se_reduction=4))
    codec.load_state_dict(model.require_codec().state_dict())
    return SplitModel(model.detector, codec, 8).eval()

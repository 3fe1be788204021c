"""The packed coding, number 0: every element quantised to n bits, one after the other."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from msfc.wire.coder import Code, CodeShape, Key, PayloadCoder
from msfc.wire.packet import PacketError, RefusalReason
from msfc.wire.packing import Bytes, byte_length, pack, packed_size, spare_bits, unpack
from msfc.wire.quantizer import BIT_DEPTHS, FLOAT_BITS, dequantize, quantize

VALUE_TOLERANCE = 1e-5
"""How far beyond [-1, 1] a raw float may be."""


class PackedCoder(PayloadCoder):
    """Uniformly quantised elements in n bits each; a rate is n, and 32 is float32.

    All payloads of one shape and rate have one length. It has no references.
    """

    coding: ClassVar[int] = 0
    fixed_length: ClassVar[bool] = True
    rates = BIT_DEPTHS

    def write(self, code: Code, rate: int, reference: Key | None = None) -> bytes:
        """Quantise and pack; see :meth:`PayloadCoder.write`."""
        self._check_settings(rate, reference)
        try:
            symbols = quantize(code, rate)
        except ValueError as error:
            raise PacketError(RefusalReason.NOT_FINITE, str(error)) from error
        return pack(symbols, rate)

    def read(
        self, data: Bytes, shape: CodeShape, rate: int, reference: Key | None = None
    ) -> Code:
        """Unpack and dequantise; see :meth:`PayloadCoder.read`."""
        self._check_settings(rate, reference)
        return dequantize(unpack(data, math.prod(shape), rate), rate).reshape(shape)

    def check(self, data: Bytes, shape: CodeShape, rate: int) -> None:
        """Check length, spare bits and raw floats; see :meth:`PayloadCoder.check`."""
        count, length = math.prod(shape), byte_length(data)
        needed = packed_size(count, rate)
        if length != needed:
            raise PacketError(
                RefusalReason.BAD_PAYLOAD_LENGTH,
                f'{count} elements of {rate} bits take {needed} bytes, but the payload has '
                f'{length}',
            )
        if spare_bits(data, count, rate):
            raise PacketError(
                RefusalReason.BAD_SPARE_BITS,
                'the unused bits of the last payload byte are not zero',
            )
        if rate == FLOAT_BITS:
            _check_floats(data)

    def expected_bytes(self, shape: CodeShape, rate: int) -> int:
        """Return the length that payloads of this shape and rate have.

        Raises:
            ValueError: if the rate is unknown.
        """
        return packed_size(math.prod(shape), rate)

    def steps(self, rate: int) -> NDArray[np.float32]:
        """Return the distance of neighbouring values; see :meth:`PayloadCoder.steps`."""
        self.check_rate(rate)
        step = 0.0 if rate == FLOAT_BITS else 2 / (2**rate - 1)
        return np.array([step], np.float32)

    def rate_name(self, rate: int) -> str:
        """Return what tables call a rate: n, as in the paper."""
        return f'n={rate}'

    def _check_settings(self, rate: int, reference: Key | None) -> None:
        self.check_rate(rate)
        if reference is not None:
            raise ValueError('packed payloads have no reference')


def _check_floats(data: Bytes) -> None:
    # Minimum and maximum carry NaN and infinity along and, unlike masks, take no memory.
    values = np.frombuffer(data, np.dtype('<f4'))
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise PacketError(
            RefusalReason.NOT_FINITE, 'the payload has values that are not finite'
        )
    if low < -1 - VALUE_TOLERANCE or high > 1 + VALUE_TOLERANCE:
        raise PacketError(
            RefusalReason.OUT_OF_RANGE,
            f'the payload has values {low:g} .. {high:g} outside -1 .. 1',
        )

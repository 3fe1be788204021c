"""What makes bytes of a code and a code of bytes, whatever the network around it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from msfc.wire.packing import Bytes

CodeShape: TypeAlias = tuple[int, int, int]
"""Channels C', height and width in cells of a code."""

Code: TypeAlias = NDArray[np.float32]
"""The code of one image, C' x h x w."""


@dataclass(frozen=True)
class Key:
    """What both ends keep of a key frame: what other frames are coded against.

    Whole numbers, the same at both ends.

    Attributes:
        shape: of its code.
        rate: its own.
        values: of its code, h w x C', in the coder's units at that rate.
        side: what else of it helps; empty if nothing.
        digest: tells it from other key frames, 0 to 4095.
    """

    shape: CodeShape
    rate: int
    values: NDArray[np.int16]
    side: NDArray[np.int16]
    digest: int

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        return self.values.nbytes + self.side.nbytes


class PayloadCoder(ABC):
    """Between the code of one image and the payload of its packet, bit-exact on every machine.

    A codec makes its own (:meth:`msfc.codecs.base.FeatureCodec.coder`), so that tables which a
    coder needs come with the model. Both ends read the same values, on whatever hardware.

    Attributes:
        coding: the number of the coding in packets.
        rates: the rates that it knows, cheapest first; what one means is the coding's.
        uses_references: whether a payload may be coded against a key frame.
        fixed_length: whether all payloads of one shape and rate have one length, which
            :meth:`expected_bytes` then gives exactly; without references.
    """

    coding: ClassVar[int]
    rates: tuple[int, ...]
    uses_references: ClassVar[bool] = False
    fixed_length: ClassVar[bool] = False

    @abstractmethod
    def write(self, code: Code, rate: int, reference: Key | None = None) -> bytes:
        """Return the payload of a code.

        Args:
            code: C' x h x w float32.
            rate: one of :attr:`rates`.
            reference: the key frame that it is coded against, if against any; of its shape, at
                whatever rate.

        Raises:
            ValueError: if the rate is unknown, or the reference does not fit.
            PacketError: if a value is not a number.
        """

    @abstractmethod
    def read(
        self, data: Bytes, shape: CodeShape, rate: int, reference: Key | None = None
    ) -> Code:
        """Return the code that a payload holds, a new array.

        Args:
            data: a payload; contiguous.
            shape: of the code.
            rate: one of :attr:`rates`, the one that it was written at.
            reference: as it was written with.

        Raises:
            ValueError: if it is none of this shape and rate, or the reference does not fit.
            PacketError: if only reading shows that it cannot be decoded, such as that it was
                written against another key frame.
        """

    def write_key(self, code: Code, rate: int) -> tuple[bytes, Key]:
        """Return the payload of a code without a reference, and what others can refer to.

        Raises:
            ValueError: if the rate is unknown, or the coder has no references.
            PacketError: if a value is not a number.
        """
        raise ValueError(f'coding {self.coding} has no references')

    def read_key(self, data: Bytes, shape: CodeShape, rate: int) -> tuple[Code, Key]:
        """Return what :meth:`read` does of a payload without a reference, and its key.

        Raises:
            ValueError: if it is none of this shape and rate, or the coder has no references.
            PacketError: if only reading shows that it cannot be decoded.
        """
        raise ValueError(f'coding {self.coding} has no references')

    def refers_to(self, data: Bytes, key: Key) -> bool:
        """Return whether a payload with a reference was written against this key frame.

        Another one that had the same number, as one before a restart of the sender, is told by it
        in all but one case of 4,096.
        """
        raise ValueError(f'coding {self.coding} has no references')

    @abstractmethod
    def check(self, data: Bytes, shape: CodeShape, rate: int) -> None:
        """Check what can be checked of a payload without decoding it; allocates nothing.

        Args:
            data: a payload from anywhere; contiguous.
            shape: of the code.
            rate: one of :attr:`rates`.

        Raises:
            PacketError: if it cannot be decoded.
        """

    @abstractmethod
    def expected_bytes(self, shape: CodeShape, rate: int) -> float:
        """Return the length that payloads of this shape and rate have; exact where it is fixed.

        Raises:
            ValueError: if the rate is unknown.
        """

    def steps(self, rate: int) -> NDArray[np.float32]:
        """Return how far apart values of a rate lie: C' or 1 of them; 0 where they are floats.

        Values of two codes that differ by more than half of it are of different symbols.

        Raises:
            ValueError: if the rate is unknown, or the coder has no steps.
        """
        raise ValueError(f'coding {self.coding} has no steps')

    def rate_name(self, rate: int) -> str:
        """Return what tables call a rate."""
        return f'rate {rate}'

    def check_rate(self, rate: int) -> int:
        """Return ``rate``.

        Raises:
            ValueError: if it is not one of :attr:`rates`.
        """
        if rate not in self.rates:
            choices = ', '.join(map(str, self.rates))
            raise ValueError(f'rate {rate} is not one of {choices}')
        return rate

"""What the receiver of messages tells their sender, a few times per second."""

from __future__ import annotations

import math
from dataclasses import dataclass

NUMBERS = 2**32
"""Sequence numbers and counts are taken modulo this."""


@dataclass(frozen=True)
class LinkReport:
    """A report; the fields of ``msfc_msgs/LinkReport``, which documents them, but the header.

    Raises:
        ValueError: if a field has a value that no receiver sends.
    """

    number: int
    period: float
    received: int
    received_up_to: int
    lost: int
    bitrate: float
    delay: float
    delay_trend: float
    delay_samples: int
    decode_rate: float = 0.0
    share: float = 0.0
    weight: float = 1.0
    acknowledged_key: int = 0
    keyframe_wanted: bool = False

    def __post_init__(self) -> None:
        for name in ('number', 'received', 'received_up_to', 'lost', 'acknowledged_key'):
            if not 0 <= getattr(self, name) < NUMBERS:
                raise ValueError(f'{name} is {getattr(self, name)}, no number of 32 bits')
        for name in ('bitrate', 'delay', 'decode_rate', 'share'):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise ValueError(f'{name} is {value}, but has to be 0 or more')
        for name in ('period', 'weight'):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(f'{name} is {value}, but has to be more than 0')
        if not math.isfinite(self.delay_trend):
            raise ValueError(f'delay_trend is {self.delay_trend}, no number')
        if self.delay_samples < 0:
            raise ValueError(f'delay_samples is {self.delay_samples}, but has to be 0 or more')


def ahead(number: int, other: int) -> int:
    """Return how far a number is ahead of another modulo 2**32: -2**31 to 2**31 - 1."""
    return (number - other + NUMBERS // 2) % NUMBERS - NUMBERS // 2

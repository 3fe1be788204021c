"""What the demo's link is like, and the words of a command line that say so."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_NUMBER = r'(\d+(?:\.\d+)?)'
_RATE = re.compile(_NUMBER + r'([kM]?)bit(?:/s)?', re.IGNORECASE)
_SHARE = re.compile(_NUMBER + '%')
_TIME = re.compile(_NUMBER + 'ms')
_SIZE = re.compile(_NUMBER + '(k?)B', re.IGNORECASE)

_FACTORS = {'': 1.0, 'k': 1e3, 'm': 1e6}

EXAMPLE = '200kbit,loss=5%,delay=20ms,queue=60kB'


@dataclass(frozen=True)
class LinkShape:
    """A link from the edge to the cloud.

    Attributes:
        rate: bit/s that it takes, headers of packets included; the way back is wide.
        loss: share of the packets that is lost, 0 to 1.
        delay: seconds that a packet travels, each way.
        queue: bytes that wait in front of it at most; what comes on top is dropped.

    Raises:
        ValueError: if there can be no such link.
    """

    rate: float
    loss: float = 0.0
    delay: float = 0.02
    queue: int = 60_000

    def __post_init__(self) -> None:
        if not 1e3 <= self.rate <= 1e9:
            raise ValueError(f'a link of {self.rate:g} bit/s: give 1kbit to 1000Mbit')
        if not 0.0 <= self.loss < 1.0:
            raise ValueError(f'a loss of {self.loss:.0%}: give less than 100%')
        if not (math.isfinite(self.delay) and 0.0 <= self.delay <= 10.0):
            raise ValueError(f'a delay of {self.delay:g} s: give 10000ms at most')
        if self.queue < 1500:
            raise ValueError(f'a queue of {self.queue} bytes: it has to hold a packet of 1500')

    def __str__(self) -> str:
        words = [f'{self.rate / 1e3:,g} kbit/s']
        if self.loss:
            words.append(f'{100 * self.loss:g} % of the packets lost')
        return ', '.join([*words, f'{1e3 * self.delay:g} ms on the way'])


def parse_link(text: str) -> LinkShape:
    """Return the link that a text such as :data:`EXAMPLE` says; all but the rate may be left out.

    Raises:
        ValueError: in words, if it says none.
    """
    first, *rest = text.split(',')
    rate = _RATE.fullmatch(first.strip())
    if not rate:
        raise ValueError(f'{first!r} is no rate: give one such as 200kbit or 2Mbit')
    values: dict[str, float] = {}
    for word in rest:
        name, _, value = word.strip().partition('=')
        if name in values:
            raise ValueError(f'{name} is given twice')
        values[name] = _value(name, value)
    queue = int(values.pop('queue', LinkShape.queue))
    return LinkShape(float(rate[1]) * _FACTORS[rate[2].lower()], queue=queue, **values)


def _value(name: str, text: str) -> float:
    if name == 'loss' and (found := _SHARE.fullmatch(text)):
        return float(found[1]) / 100
    if name == 'delay' and (found := _TIME.fullmatch(text)):
        return float(found[1]) / 1e3
    if name == 'queue' and (found := _SIZE.fullmatch(text)):
        return float(found[1]) * _FACTORS[found[2].lower()]
    raise ValueError(f'{f"{name}={text}"!r} is not understood: give all as in {EXAMPLE}')

"""Building a payload coder of what a model or an edge bundle says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from msfc.wire.coder import PayloadCoder
from msfc.wire.packed import PackedCoder

SETTINGS = {PackedCoder.coding: {'coding'}, 1: {'coding', 'slices'}}
"""The keys of each coding's settings."""


def build_coder(settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> PayloadCoder:
    """Build a coder.

    Args:
        settings: ``coding``, its number in packets; for coding 1 ``slices`` as well, how many
            channels of the code are decoded at a time.
        arrays: the tables that it needs; see :class:`msfc.wire.learned.LearnedCoder`.

    Raises:
        ValueError: an unknown coding or key, or arrays that do not fit.
    """
    coding = settings.get('coding')
    if coding not in SETTINGS or isinstance(coding, bool):
        raise ValueError(f'unknown coding {coding!r}: known are {", ".join(map(str, SETTINGS))}')
    if set(settings) != SETTINGS[coding]:
        raise ValueError(f'coding {coding} has just the keys {", ".join(SETTINGS[coding])}')
    if coding == PackedCoder.coding:
        return PackedCoder()
    # Beside the paper's codec nobody needs a range coder.
    from msfc.wire.learned import LearnedCoder

    slices = settings['slices']
    if not isinstance(slices, list) or not all(type(size) is int and size > 0 for size in slices):
        raise ValueError(f'slices are whole numbers over 0, got {slices!r}')
    try:
        return LearnedCoder(arrays, tuple(slices))
    except (KeyError, IndexError) as error:
        raise ValueError(f'the arrays of coding 1 do not fit: {error}') from error

"""Checks of values that people write into YAML files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

# What YAML 1.1 takes for text, though it is a number to its writer: 1e-3, 1.5e3, .5e2
_EXPONENT = re.compile(r'([+-]?)(\d*\.?\d*)e([+-]?)(\d+)', re.IGNORECASE)


def check_number(
    value: Any, where: str, low: float, high: float, whole: bool = False
) -> float:
    """Return a number of a range.

    Args:
        value: what was given.
        where: its name, for messages.
        low: least value.
        high: largest value.
        whole: only whole numbers.

    Raises:
        ValueError: it is none; the message says what to write.
    """
    kind = 'a whole number' if whole else 'a number'
    if isinstance(value, str) and looks_like_number(value):
        raise ValueError(f'{where} is the text {value!r}, not {kind}: {_how_to_write(value)}')
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or (whole and not isinstance(value, int)):
        raise ValueError(f'{where} is {value!r}, not {kind}')
    if not low <= value <= high:  # NaN too
        raise ValueError(f'{where} is {value}, not {low} to {high}')
    return value if whole else float(value)


def check_texts(values: Any, where: str) -> tuple[str, ...]:
    """Return a list of texts, not empty.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(values, (list, tuple)) or not values:
        raise ValueError(f'{where} is {values!r}, not a list of names')
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f'{where} has {value!r}, not a name')
    return tuple(values)


def check_no_number_texts(values: Mapping[Any, Any], where: str) -> None:
    """Refuse texts that were meant as numbers.

    Raises:
        ValueError: there is one; the message says what to write.
    """
    for key, value in values.items():
        if isinstance(value, str) and looks_like_number(value):
            raise ValueError(f'{where}: {key} is the text {value!r}: {_how_to_write(value)}')


def looks_like_number(text: str) -> bool:
    """Return whether a text was meant as a number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _how_to_write(text: str) -> str:
    found = _EXPONENT.fullmatch(text)
    if not found:
        return f'write {text} without quotes'
    sign, digits, exponent_sign, exponent = found.groups()
    if '.' not in digits:
        digits += '.0'
    return f'write {sign}{digits}e{exponent_sign or "+"}{exponent}'

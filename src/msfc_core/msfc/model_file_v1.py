"""Reading model files of format version 1, which knew one codec only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VERSION = 1

TYPES: dict[str, tuple[type, ...]] = {
    'detector': (dict,),
    'msfc': (dict, type(None)),
    'class_names': (list,),
    'bit_depth': (int,),
    'fingerprint': (str,),
    'weights_sha256': (str,),
    'extra': (dict,),
}
"""Keys of its ``model.json`` beside format and version, and the types of their values."""

_PREFIXES = {
    'msfc.msff.': 'codec.analysis.msff.',
    'msfc.encoder.': 'codec.analysis.encoder.',
    'msfc.decoder.': 'codec.synthesis.decoder.',
    'msfc.msfr.': 'codec.synthesis.msfr.',
}


def current_name(name: str) -> str:
    """Return today's name of a tensor."""
    for old, new in _PREFIXES.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def current_description(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checked ``model.json`` with today's keys, its version and fingerprint as it had."""
    kept = {key: value for key, value in description.items() if key not in ('msfc', 'bit_depth')}
    codec = description['msfc']
    return {
        **kept,
        'codec': None if codec is None else {'type': 'msfc', **codec},
        'rate': 0 if codec is None else description['bit_depth'],
    }

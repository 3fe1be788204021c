"""What the architectures of all codecs share: settings to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

Config = TypeVar('Config', bound='CodecConfig')

MAX_CHANNELS = 2**16 - 1
"""The wire counts channels with 16 bits."""


@dataclass(frozen=True)
class CodecConfig:
    """Architecture of a codec; every field has a default, and sequences are tuples."""

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON-serialisable values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls: type[Config], values: Mapping[str, Any]) -> Config:
        """Make a configuration of what :meth:`to_dict` returned; absent keys have their default.

        Raises:
            ValueError: if a key is unknown or a value impossible.
        """
        known = {field.name: field for field in fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f'unknown codec settings: {", ".join(unknown)}')
        made = dict(values)
        for name, value in values.items():
            if isinstance(known[name].default, tuple):
                if not isinstance(value, (list, tuple)):
                    raise ValueError(f'{name} is a list, got {value!r}')
                made[name] = tuple(value)
        return cls(**made)

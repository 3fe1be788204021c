"""What a service is made of: the YAML file of ``msfc serve``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from msfc.settings import check_number
from msfc.zoo import DEFAULT_MODEL

_RANGES = {
    'threads': (0, 1024),
    'replicas': (1, 10_000),
    'most_replicas': (0, 10_000),
    'max_batch': (1, 64),
    'max_ongoing': (1, 10_000),
    'max_queued': (1, 100_000),
    'port': (1, 65_535),
}
"""Whole numbers, and what they can be."""


@dataclass(frozen=True)
class ServeSettings:
    """Settings of a service.

    Attributes:
        model: name of a shipped model, or its folder, on every machine of the cluster.
        device: ``cpu``, ``cuda`` or ``auto``, of each replica.
        gpus: share of a GPU that each replica has.
        cpus: cores that each replica has.
        threads: of torch in each replica; 0 leaves it to torch.
        replicas: how many there are, or at least.
        most_replicas: how many Ray may make of them by load; 0 for no more.
        max_batch: requests that are decoded at once.
        batch_wait: seconds that a request waits for others to come.
        max_ongoing: requests that a replica holds, those that it works on included.
        max_queued: requests that wait for a replica at each of Ray's proxies; more are refused.
        patience: seconds after which a request is dropped that still waits in a replica.
        host: that the proxy listens at.
        port: likewise.
        ray_address: of a cluster that is there; by default one is started on this machine.

    Raises:
        ValueError: a value is impossible.
    """

    model: str = DEFAULT_MODEL
    device: str = 'auto'
    gpus: float = 0.0
    cpus: float = 1.0
    threads: int = 0
    replicas: int = 1
    most_replicas: int = 0
    max_batch: int = 8
    batch_wait: float = 0.002
    max_ongoing: int = 16
    max_queued: int = 64
    patience: float = 0.5
    host: str = '127.0.0.1'
    port: int = 8000
    ray_address: str = ''

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            check_number(getattr(self, name), name, low, high, whole=True)
        for name, most in (('gpus', 64), ('cpus', 1024), ('batch_wait', 10), ('patience', 3600)):
            check_number(getattr(self, name), name, 0, most)
        for name in ('model', 'device', 'host', 'ray_address'):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f'{name} is {getattr(self, name)!r}, not a text')
        if self.most_replicas and self.most_replicas < self.replicas:
            raise ValueError(
                f'most_replicas is {self.most_replicas}, fewer than the {self.replicas} replicas'
            )
        if self.max_ongoing < self.max_batch:
            raise ValueError(
                f'max_ongoing is {self.max_ongoing}: a batch of {self.max_batch} never comes about'
            )


def load_settings(path: Path) -> ServeSettings:
    """Read the file of ``msfc serve``.

    Raises:
        OSError: it cannot be read.
        ValueError: a setting is unknown or impossible.
    """
    try:
        values: Any = yaml.safe_load(path.read_text(encoding='utf-8')) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f'{path} is no YAML file: {error}') from error
    known = [field.name for field in fields(ServeSettings)]
    if not isinstance(values, dict):
        raise ValueError(f'{path} has no settings; it can have {", ".join(known)}')
    unknown = [str(name) for name in values if name not in known]
    if unknown:
        raise ValueError(f'{path}: unknown {", ".join(unknown)}; there is {", ".join(known)}')
    try:
        return ServeSettings(**values)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error

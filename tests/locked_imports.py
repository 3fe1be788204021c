"""What the locks in requirements/ have, and a process in which only an edge's libraries are there.

This module imports Python's own ones alone: processes of tests import it first of all.
"""

from __future__ import annotations

import re
import sys
from importlib.abc import MetaPathFinder
from importlib.metadata import packages_distributions
from pathlib import Path

REQUIREMENTS = Path(__file__).parent.parent / 'requirements'


def locked(name: str) -> dict[str, set[str]]:
    """Return the packages of a lock, each with its lines: version, and for which Pythons."""
    found: dict[str, set[str]] = {}
    for line in (REQUIREMENTS / f'{name}.lock').read_text().splitlines():
        if match := re.match(r'([a-z][a-z0-9.-]*)==(.*)', line):
            found.setdefault(match[1], set()).add(match[2].strip())
    return found


def beyond_an_edge() -> set[str]:
    """Return the modules that come with setup.sh, but not with its ``--edge``."""
    more = locked('base').keys() - locked('edge').keys() - locked('ros').keys()
    return {
        module
        for module, names in packages_distributions().items()
        if {re.sub('[-_.]+', '-', name).lower() for name in names} <= more
    }


class _Absent(MetaPathFinder):
    """Says of modules that they are not installed."""

    def __init__(self, modules: set[str]) -> None:
        self._modules = modules

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Refuse the modules."""
        if name.partition('.')[0] in self._modules:
            raise ModuleNotFoundError(f'{name} is not with an edge', name=name)


def leave_an_edge() -> None:
    """Let this process import no library that a robot's environment has not."""
    sys.meta_path.insert(0, _Absent(beyond_an_edge()))

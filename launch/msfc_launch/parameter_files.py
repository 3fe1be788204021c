"""Parameter files, read before a node is given them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from msfc_launch.errors import LaunchError


def read_parameter_file(path: Path) -> dict[str, Any]:
    """Read a parameter file; return the parameters of each node or pattern in it, nested.

    Raises:
        LaunchError: it is not there or no parameter file.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise LaunchError(f'params_file {path} cannot be read: {error.strerror}') from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        words = ' '.join(str(error).split())
        raise LaunchError(f'params_file {path} is not YAML: {words}') from error
    if content is None:
        return {}
    found = dict(_sections(content, ''))
    if not found:
        raise LaunchError(
            f"params_file {path} has no parameters: it needs a node's name or /**: and below that "
            'ros__parameters:'
        )
    return found


def _sections(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, dict):
        return
    for key, value in tree.items():
        if key == 'ros__parameters':
            yield prefix, value
        else:
            yield from _sections(value, f'{prefix}/{key}'.replace('//', '/'))


def flatten(tree: Any, prefix: str = '') -> Iterator[str]:
    """Yield the dotted names of the leaves of nested parameters."""
    if not isinstance(tree, dict):
        yield prefix.rstrip('.')
        return
    for key, value in tree.items():
        yield from flatten(value, f'{prefix}{key}.')

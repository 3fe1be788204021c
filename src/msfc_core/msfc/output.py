"""Checks before work begins whether its results can be written where they are to go."""

from __future__ import annotations

import os
from pathlib import Path


def check_output_folder(path: Path) -> Path:
    """Return a folder that is there, or can be made, and can be written to. Makes nothing.

    Raises:
        OSError: it cannot, in words.
    """
    place = path
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise NotADirectoryError(f'{path} cannot be a folder, since {place} is none: name another')
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(f'{place} cannot be written to: name another folder than {path}')
    return path


def check_output_file(path: Path) -> Path:
    """Return a file that can be written, over what is there. Makes nothing.

    Raises:
        OSError: it cannot, in words.
    """
    if path.is_dir():
        raise IsADirectoryError(f'{path} is a folder: name a file')
    if path.exists() and not path.is_file():
        return path  # such as /dev/stdout
    check_output_folder(path.parent)
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f'{path} cannot be written to: name another file')
    return path

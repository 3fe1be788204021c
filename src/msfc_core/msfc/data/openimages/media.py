"""The images and masks of OpenImages, as they lie under a folder."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')


class MediaFiles:
    """The images and masks under a folder.

    Args:
        root: the folder.
        output: folder of the data set, which may be in the first one and is passed over.
    """

    def __init__(self, root: Path, output: Path) -> None:
        self.root = root
        self.images: dict[str, str] = {}
        self._masks: dict[str, str] = {}
        archives: list[Path] = []
        seen = {output.resolve()}
        for folder, subfolders, names in os.walk(root, followlinks=True):
            here = Path(folder).resolve()
            if here in seen:
                subfolders.clear()
                continue
            seen.add(here)
            for name in names:
                stem, suffix = os.path.splitext(name)
                if '_' in stem and suffix == '.png':
                    self._masks[name] = folder
                elif suffix.lower() in IMAGE_SUFFIXES:
                    self.images[stem] = os.path.join(folder, name)
                elif suffix == '.zip' and 'mask' in stem:
                    archives.append(Path(folder) / name)
        self._members: dict[str, tuple[zipfile.ZipFile, str]] = {}
        for path in sorted(archives):
            try:
                archive = zipfile.ZipFile(path)
            except zipfile.BadZipFile as error:
                raise ValueError(f'{path} is broken: download it again') from error
            for member in archive.namelist():
                self._members[member.rpartition('/')[2]] = (archive, member)

    def has_mask(self, name: str) -> bool:
        """Return whether a mask is here."""
        return name in self._masks or name in self._members

    def read_mask(self, name: str) -> NDArray[Any] | None:
        """Return a mask, or None if it cannot be read."""
        try:
            if name in self._masks:
                data = (Path(self._masks[name]) / name).read_bytes()
            else:
                archive, member = self._members[name]
                data = archive.read(member)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error):
            return None
        if not data:
            return None
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)

    def stamp(self, image: str) -> list[int] | None:
        """Return what changes with an image, bytes and time in ns; None if it has gone."""
        try:
            state = os.stat(self.images[image])
        except OSError:
            return None
        return [state.st_size, state.st_mtime_ns]

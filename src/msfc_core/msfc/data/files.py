"""Image files and lists of what is wrong with them, as all makers of data sets need them."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import shutil
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from msfc.files import write_atomically
from msfc.types import Size

PICTURES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')

_ORIENTATION = 0x0112  # EXIF
_TURNED = (5, 6, 7, 8)  # values of it with rows and columns swapped

_JPEG_START, _JPEG_END = b'\xff\xd8\xff', b'\xff\xd9'
_PNG_START, _PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'
# In the data of a JPEG's scan, 0xFF has a zero or a restart's number behind it (ITU-T T.81, B.1).
_MARKER = re.compile(rb'\xff([^\x00\xd0-\xd7\xff])')


def find_pictures(folder: Path) -> list[Path]:
    """Return the pictures of a folder, by name.

    Raises:
        FileNotFoundError: there is no such folder, or it has no pictures.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder} is no folder')
    found = sorted(path for path in folder.rglob('*') if path.suffix.lower() in PICTURES)
    if not found:
        raise FileNotFoundError(f'{folder} has no pictures ({", ".join(PICTURES)})')
    return found


def hash_of(name: str) -> float:
    """Return a number from 0 to 1 (1 excluded) that looks random and is the same everywhere."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], 'big') / 2**48


def image_size(path: Path | str) -> Size:
    """Return height and width of an image as OpenCV will read it, turned by its EXIF entry.

    Only the file's beginning is read: see :func:`is_cut_off` for its end.

    Raises:
        OSError: it is no image, or an absurdly large one.
    """
    try:
        with Image.open(path) as file:
            width, height = file.size
            turned = _orientation(file) in _TURNED
    except Image.DecompressionBombError as error:
        raise OSError(f'{path}: {error}') from error
    return (width, height) if turned else (height, width)


def is_turned(path: Path | str) -> bool:
    """Return whether an image's EXIF entry swaps rows and columns.

    Raises:
        OSError: it is no image.
    """
    with Image.open(path) as file:
        return _orientation(file) in _TURNED


def _orientation(file: Image.Image) -> object:
    try:
        return file.getexif().get(_ORIENTATION)
    except (OSError, SyntaxError, struct.error, ValueError, KeyError, TypeError):
        return None  # a broken entry: OpenCV passes over it too


def is_cut_off(path: Path | str) -> bool:
    """Return whether a JPEG or PNG file lacks its end, as a broken download leaves it.

    OpenCV reads such a file all the same, with grey where it ends. The last bytes tell; only
    where they are others, such as those of a film behind the image, the whole file is read. What
    is damaged elsewhere is not found, nor are files of other formats looked at.

    Args:
        path: an image, see :func:`image_size`.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, 'rb') as file:
        start = file.read(len(_PNG_START))
        if start.startswith(_JPEG_START):
            end = _JPEG_END
        elif start == _PNG_START:
            end = _PNG_END
        else:
            return False
        file.seek(max(file.seek(0, os.SEEK_END) - len(end), 0))
        if file.read() == end:
            return False
        file.seek(0)
        data = file.read()
    return end not in data if end == _PNG_END else not _has_jpeg_end(data)


def _has_jpeg_end(data: bytes) -> bool:
    """Return whether a JPEG's own end is there; a preview in its header has one too."""
    place = len(_JPEG_END)
    while found := _MARKER.search(data, place):
        if found[0] == _JPEG_END:
            return True
        # Each other marker is followed by its length, which counts itself.
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2], 'big')
    return False


def place_image(source: Path, destination: Path, copy: bool) -> None:
    """Put an image where a data set has it: as a link, or a copy where links cannot be made.

    What an earlier run put there stays if it is this image: a link to it, where links will do, or
    a file of its size. Else it is replaced.

    Args:
        source: the image.
        destination: where it is to be.
        copy: copy in any case.
    """
    if destination.exists():
        linked = destination.is_symlink()
        if destination.samefile(source):
            if not (copy and linked):
                return
        elif not linked and destination.stat().st_size == source.stat().st_size:
            return
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.with_name(f'{destination.name}.part')
    temporary.unlink(missing_ok=True)
    if copy or not _link(source, temporary):
        shutil.copyfile(source, temporary)
    os.replace(temporary, destination)


def _link(source: Path, destination: Path) -> bool:
    """Make a link, and return whether the file system has links."""
    try:
        destination.symlink_to(source.resolve())
    except OSError:
        return False
    return True


def write_list(path: Path, heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str | None:
    """Write what is wrong as CSV, in place of an earlier list; none where nothing is.

    Args:
        path: the file.
        heading: names of the columns.
        rows: of text.

    Returns:
        The file's name, None if there are no rows.
    """
    path.unlink(missing_ok=True)
    table = list(rows)
    if not table:
        return None
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows([heading, *table])
    write_atomically(path, text.getvalue())
    return path.name

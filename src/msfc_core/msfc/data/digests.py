"""What data are, as a few digits: results that are kept depend on pictures and annotations."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msfc.data.coco import CocoDataset
from msfc.journal import Journal
from msfc.progress import Progress

DIGITS = 16
_CHUNK = 2**20
_BATCH = 256  # pictures between two calls of progress


def file_digest(path: Path) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()[:DIGITS]


def picture_digests(
    paths: Sequence[Path], journal: Journal | None = None, progress: Progress | None = None
) -> list[str]:
    """Return the digests of the contents of pictures, read by all cores.

    Args:
        paths: the files.
        journal: keeps digests, so that a file is read again only if its size, its times of change
            or its inode are others; the time of the last change of an inode cannot be set back.
        progress: called with (files read, files to read); not at all if there are none to read.

    Raises:
        FileNotFoundError: one is missing; names it.
    """
    digests = ['' if journal is None else _known(path, journal) for path in paths]
    todo = [index for index, digest in enumerate(digests) if not digest]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(todo), _BATCH):
            batch = todo[start : start + _BATCH]
            stamps = [_stamp(paths[index]) for index in batch]
            read = pool.map(file_digest, [paths[index] for index in batch])
            for index, stamp, digest in zip(batch, stamps, read, strict=True):
                digests[index] = digest
                if journal is not None:
                    journal.write(f'picture {paths[index].absolute()}', [stamp, digest])
            if progress:
                progress(start + len(batch), len(todo))
    return digests


def dataset_digest(
    dataset: CocoDataset,
    count: int | None = None,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> str:
    """Return a digest of a data set's annotation file and of the contents of its pictures.

    Args:
        dataset: the data.
        count: how many of its pictures, the first by id; all by default.
        journal: as in :func:`picture_digests`.
        progress: as in :func:`picture_digests`.

    Raises:
        FileNotFoundError: a picture is missing.
    """
    paths = [dataset.image_path(index) for index in range(len(dataset))[:count]]
    digest = hashlib.sha256(file_digest(dataset.annotations).encode())
    for name in picture_digests(paths, journal, progress):
        digest.update(name.encode())
    return digest.hexdigest()[:DIGITS]


def _known(path: Path, journal: Journal) -> str:
    stamp, digest = journal.get(f'picture {path.absolute()}') or (None, '')
    return str(digest) if stamp == _stamp(path) else ''


def _stamp(path: Path) -> list[int]:
    try:
        state = path.stat()
    except OSError:
        raise FileNotFoundError(f'{path} is missing or not an image') from None
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]

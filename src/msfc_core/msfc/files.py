"""Files written whole or not at all, locks that end with their process, errors with names."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a disk, quota or file that is full."""

_held: set[int] = set()


class ProcessLock:
    """An exclusive lock on a file or folder, which this process alone holds.

    A lock of ``flock`` is shared with processes that are forked meanwhile, such as those that read
    data, and lives on in them for seconds after this one was killed: they let go of it at once.

    Args:
        path: an existing file or folder.

    Raises:
        BlockingIOError: somebody else holds it.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise
        _held.add(self._descriptor)

    def __enter__(self) -> ProcessLock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Let go of the lock; further calls do nothing."""
        if self._descriptor in _held:
            _held.remove(self._descriptor)
            os.close(self._descriptor)


def _release_in_child() -> None:
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_release_in_child)


@contextmanager
def writing(path: Path, partial: Path | None = None) -> Iterator[None]:
    """Give errors while a file is written its name, those of safetensors too.

    Args:
        path: the file.
        partial: its unfinished form, which is removed where there is an error.

    Raises:
        OSError: with the file's name.
    """
    try:
        yield
    except SafetensorError as error:
        _remove(partial)
        number = re.search(r'os error (\d+)', str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from error
    except OSError as error:
        _remove(partial)
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that it is there either whole or not at all.

    Args:
        path: the file; its folder is made if need be.
        content: bytes, or text for UTF-8.

    Raises:
        OSError: it cannot be written; an earlier one is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'{path.name}.{os.getpid()}.part')
    with writing(path, partial):
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(partial, path)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _remove(path: Path | None) -> None:
    if path is not None:
        with suppress(OSError):
            path.unlink(missing_ok=True)

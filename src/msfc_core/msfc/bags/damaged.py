"""MCAP files without an end: what a robot that lost its power leaves, or a copy that broke off.

``rosbags`` reads files that are complete. :class:`MendedFile` shows it a broken one as complete:
all records up to the break, then an empty summary (MCAP specification, "Footer"). The break is
where the file ends, or the first chunk that is not whole inside: after a loss of power blocks of
zeros may stand before the end.
"""

from __future__ import annotations

import io
import struct
from bisect import bisect_right
from pathlib import Path
from typing import BinaryIO

from rosbags.rosbag2.storage_mcap import decompress

MAGIC = b'\x89MCAP0\r\n'
CHUNK, DATA_END, FOOTER = 0x06, 0x0F, 0x02

_RECORD = struct.Struct('<BQ')
_CHUNK_START = struct.Struct('<QQQII')
_LENGTH = struct.Struct('<Q')

TAIL = (
    _RECORD.pack(DATA_END, 4) + bytes(4) + _RECORD.pack(FOOTER, 20) + bytes(20) + MAGIC
)
"""How a file without a summary ends."""


class MendedFile:
    """The readable part of an MCAP file, in the form of a path that ``rosbags`` takes.

    Args:
        path: the file.

    Raises:
        ValueError: if it does not begin as an MCAP file.
    """

    suffix = '.mcap'

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open('rb') as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ValueError(f'{path} is no MCAP file')
            self._parts = _readable(file)

    def __str__(self) -> str:
        return str(self._path)

    def exists(self) -> bool:
        """Return whether it is there."""
        return self._path.exists()

    def is_dir(self) -> bool:
        """Return whether it is a folder."""
        return False

    def open(self, mode: str = 'rb') -> BinaryIO:
        """Open it for reading."""
        return io.BufferedReader(_Joined(self._path, self._parts, TAIL))


def _readable(file: BinaryIO) -> list[tuple[int, int]]:
    """Return begin and end of the parts of an open file that hold complete records."""
    size = file.seek(0, io.SEEK_END)
    end, broken = _walk(file, len(MAGIC), size)
    parts = [(0, end)]
    if broken == CHUNK:
        # Messages may lie in a file outside of chunks too: those of a chunk that is not
        # compressed can be shown there.
        start = end + _RECORD.size
        file.seek(start)
        head = file.read(_CHUNK_START.size)
        if len(head) == _CHUNK_START.size:
            compression = _CHUNK_START.unpack(head)[-1]
            inner = start + _CHUNK_START.size + compression + 8
            if compression == 0 and inner < size:
                parts.append((inner, _walk(file, inner, size)[0]))
    return parts


def _walk(file: BinaryIO, start: int, size: int) -> tuple[int, int]:
    """Return where the last complete data record ends, and the kind of what follows it, or 0."""
    while start + _RECORD.size <= size:
        file.seek(start)
        kind, length = _RECORD.unpack(file.read(_RECORD.size))
        if kind in (0, DATA_END, FOOTER) or start + _RECORD.size + length > size:
            return start, kind
        if kind == CHUNK and not _is_whole(file.read(length)):
            return start, kind
        start += _RECORD.size + length
    return start, 0


def _is_whole(chunk: bytes) -> bool:
    """Return whether the content of a chunk's record can be unpacked and consists of records."""
    try:
        _, _, size, crc, length = _CHUNK_START.unpack_from(chunk)
        place = _CHUNK_START.size + length
        compression = chunk[_CHUNK_START.size : place].decode('ascii')
        (length,) = _LENGTH.unpack_from(chunk, place)
        place += _LENGTH.size
        records = decompress(chunk[place : place + length], compression, size, crc)
    except Exception:  # rosbags lets its decompressors' errors through
        return False
    return _walk(io.BytesIO(records), 0, size)[0] == size


class _Joined(io.RawIOBase):
    """Parts of a file and a few more bytes as one file."""

    def __init__(self, path: Path, parts: list[tuple[int, int]], tail: bytes) -> None:
        self._file = path.open('rb')
        self._tail = tail
        self._parts = parts
        self._starts = [0]
        for begin, end in parts:
            self._starts.append(self._starts[-1] + end - begin)
        self._size = self._starts[-1] + len(tail)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._at >= self._size:
            return 0
        part = bisect_right(self._starts, self._at) - 1
        inside = self._at - self._starts[part]
        if part == len(self._parts):
            data = self._tail[inside : inside + len(buffer)]
        else:
            begin, end = self._parts[part]
            self._file.seek(begin + inside)
            data = self._file.read(min(len(buffer), end - begin - inside))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()

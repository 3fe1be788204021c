"""Writing bags that ``ros2 bag`` and Foxglove read."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from msfc.bags.definitions import typestore
from msfc.files import writing

_CRC = struct.Struct('<I')
_CRC_PLACE = 1 + 8 + 3 * 8  # opcode and length of the record, two times and a length

BAG_VERSION = 9
"""Version of rosbag2's metadata; Jazzy writes 9."""

FLUSH_PERIOD = 2.0
"""Seconds after which what was written goes to the disk: all that a loss of power can cost."""


def qos(*, latched: bool = False) -> Qos:
    """Return the reliable quality of service that a player is to offer a topic with."""
    zero = QosTime(0, 0)
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=1 if latched else 10,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=zero,
        lifespan=zero,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=zero,
        avoid_ros_namespace_conventions=False,
    )


class BagWriter:
    """A new bag: a rosbag2 folder with MCAP storage, chunks compressed by zstd, with checksums.

    As a context manager it closes the bag in any case, so that what was written can be read.

    Args:
        path: folder to make.

    Raises:
        ValueError: if it exists.
        OSError: if it cannot be written, at any later time too; what is on the disk can be read.
    """

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise ValueError(f'{path} exists already')
        self._path = path
        self._writer = Writer(path, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP)
        # Storage compression is what every player of MCAP undoes by itself.
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with writing(path):
            self._writer.open()
        self._add_checksums()
        self._connections: dict[str, Any] = {}
        self._flushed = time.monotonic()
        self.count = 0

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def add_topic(self, topic: str, kind: str, offered: Sequence[Qos] = ()) -> None:
        """Add a topic of one of the project's messages or of ROS 2's own."""
        self._connections[topic] = self._writer.add_connection(
            topic, kind, typestore=typestore(), offered_qos_profiles=offered or (qos(),)
        )

    def write(self, topic: str, stamp: int, data: bytes) -> None:
        """Write a serialised message.

        Args:
            topic: one that was added.
            stamp: time in nanoseconds.
            data: its CDR bytes.
        """
        with writing(self._path):
            self._writer.write(self._connections[topic], stamp, data)
        self.count += 1
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Flush if the last time was :data:`FLUSH_PERIOD` ago; call it now and then."""
        if time.monotonic() - self._flushed > FLUSH_PERIOD:
            self.flush()

    def flush(self) -> None:
        """Bring what was written to the disk, as a chunk that can be read by itself."""
        storage: Any = self._writer.storage
        with writing(self._path):
            if storage.chunk.msgs:
                storage.close_chunk()
            storage.bio.flush()
            os.fsync(storage.bio.fileno())
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Write index and metadata."""
        if self._writer.storage is not None:
            with writing(self._path):
                self._writer.close()

    def _add_checksums(self) -> None:
        """Let each chunk have the CRC-32 of its content, which rosbags checks and does not write.

        MCAP specification, "Chunk": ``uncompressed_crc`` follows two times and a length.
        """
        storage: Any = self._writer.storage
        close_chunk = storage.close_chunk

        def close_with_checksum() -> None:
            checksum = crc32(storage.chunk.bio.getbuffer())
            start = storage.bio.tell()
            close_chunk()
            end = storage.bio.tell()
            storage.bio.seek(start + _CRC_PLACE)
            storage.bio.write(_CRC.pack(checksum))
            storage.bio.seek(end)

        storage.close_chunk = close_with_checksum

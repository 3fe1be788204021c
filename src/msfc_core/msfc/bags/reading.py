"""Reading compressed features from a bag, as far as it can be read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.reader import DirectoryReader
from rosbags.rosbag2.storage_mcap import McapReader
from rosbags.typesys import (
    Stores,
    TypesysError,
    get_types_from_idl,
    get_types_from_msg,
    get_typestore,
)
from rosbags.typesys.store import Typestore

from msfc.bags.damaged import MendedFile
from msfc.bags.definitions import FEATURES, typestore

STORAGE = ('.mcap', '.db3')


class BagError(ValueError):
    """A bag that cannot be used; the message says why."""


@dataclass(frozen=True)
class BagMessage:
    """A serialised message of a bag.

    Attributes:
        topic: its topic.
        time: when it was recorded, in nanoseconds.
        data: its CDR bytes.
    """

    topic: str
    time: int
    data: bytes


class FeatureBag:
    """The topics of a bag that hold compressed features; to be used as a context manager.

    A folder as ``ros2 bag`` makes it, with or without its ``metadata.yaml``, or a storage file. Of
    an MCAP file that breaks off, all that is before the break is read, and :attr:`damage` is set.

    Args:
        path: the bag.
        topics: the topics to read; by default all of type ``msfc_msgs/CompressedFeature``.
        kind: type of the topics.

    Raises:
        BagError: if there is no such bag or topic, or nothing of it can be read.

    Attributes:
        path: the bag.
        topics: the topics that are read.
        damage: what could not be read, in a sentence; empty if nothing was found amiss so far.
    """

    def __init__(self, path: Path, topics: Sequence[str] = (), kind: str = FEATURES) -> None:
        self.path = path
        self.damage = ''
        self._kind = kind
        self._stack = ExitStack()
        self._store: Typestore | None = None
        try:
            self._readers = self._open()
            self.topics = self._choose(topics)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> FeatureBag:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the bag."""
        self._stack.close()

    @property
    def others(self) -> dict[str, int]:
        """Messages of the topics that are not read, by topic."""
        counts: dict[str, int] = {}
        for reader in self._readers:
            for connection in reader.connections:
                if connection.topic not in self.topics:
                    counts[connection.topic] = (
                        counts.get(connection.topic, 0) + connection.msgcount
                    )
        return counts

    @property
    def storage_bytes(self) -> int:
        """Bytes of the storage files."""
        files = [self.path] if self.path.is_file() else _storage_files(self.path, any_kind=True)
        return sum(file.stat().st_size for file in files)

    def messages(self) -> Iterator[BagMessage]:
        """Yield the messages as far as readable: by their times, or without an index as written.

        The times need not rise there: two topics may overtake each other, a clock may be set back.
        """
        for reader in self._readers:
            for storage in _storages(reader):
                wanted = [c for c in storage.connections if self._is_wanted(c)]
                try:
                    for connection, time, data in _read(storage, wanted):
                        yield BagMessage(connection.topic, time, bytes(data))
                except Exception as error:  # rosbags lets its decompressors' errors through
                    self._note(f'a part of {reader.path} cannot be read: {error}')

    def deserialize(self, message: BagMessage) -> Any:
        """Return a message by the definition that the bag has of it.

        Raises:
            BagError: if its bytes are not a message of that definition.
        """
        if self._store is None:
            self._store = self._definitions()
        try:
            return self._store.deserialize_cdr(message.data, self._kind)
        except Exception as error:  # generated code fails in many ways
            raise BagError(
                f'a message of {len(message.data)} bytes on {message.topic} is no {self._kind}: '
                f'{error}'
            ) from error

    def _note(self, sentence: str) -> None:
        self.damage = self.damage or sentence

    def _open(self) -> list[Reader]:
        if not self.path.exists():
            raise BagError(f'there is no bag {self.path}')
        whole = self.path.is_file() or (self.path / 'metadata.yaml').is_file()
        if whole:
            try:
                return [self._stack.enter_context(Reader(self.path))]
            except Exception as error:  # whatever a damaged file does to rosbags
                reason: Exception | str = error
        else:
            reason = 'it has no metadata.yaml'
            if not _storage_files(self.path):
                raise BagError(
                    f'{self.path} is no bag: it has no metadata.yaml and no storage file'
                )
        self._note(f'{self.path} was not closed properly or is damaged: {reason}')
        readers = []
        failures = [str(reason)]
        files = [self.path] if self.path.is_file() else _storage_files(self.path)
        for file in files:
            try:
                try:
                    readers.append(self._stack.enter_context(Reader(file)))
                except Exception:  # as above
                    if file.suffix != '.mcap':
                        raise
                    readers.append(self._stack.enter_context(Reader(MendedFile(file))))
            except Exception as error:  # as above
                failures.append(f'{file.name}: {error}')
        if not readers:
            raise BagError(f'{self.path} cannot be read: ' + '; '.join(failures))
        return readers

    def _choose(self, topics: Sequence[str]) -> tuple[str, ...]:
        kinds = {c.topic: c.msgtype for reader in self._readers for c in reader.connections}
        there = ', '.join(f'{name} ({kind})' for name, kind in sorted(kinds.items())) or 'none'
        if not topics:
            found = tuple(sorted(name for name, kind in kinds.items() if kind == self._kind))
            if not found:
                raise BagError(
                    f'{self.path} has no topic of type {self._kind}; its topics: {there}'
                )
            return found
        for topic in topics:
            if topic not in kinds:
                raise BagError(f'{self.path} has no topic {topic}; its topics: {there}')
            if kinds[topic] != self._kind:
                raise BagError(f'{topic} of {self.path} is {kinds[topic]}, not {self._kind}')
        return tuple(topics)

    def _is_wanted(self, connection: Connection) -> bool:
        return connection.topic in self.topics and connection.msgtype == self._kind

    def _definitions(self) -> Typestore:
        for reader in self._readers:
            for connection in reader.connections:
                if connection.msgtype == self._kind and connection.msgdef.data:
                    try:
                        return definitions_of(connection)
                    except TypesysError as error:
                        raise BagError(
                            f'the definition of {self._kind} in {self.path} cannot be read: '
                            f'{error}'
                        ) from error
        return typestore()


def definitions_of(connection: Connection) -> Typestore:
    """Return the types by which a connection's messages were written.

    Args:
        connection: of a bag; where that holds no definition, this project's is returned.

    Raises:
        TypesysError: if the definition cannot be read.
    """
    definition = connection.msgdef
    if not definition.data:
        return typestore()
    store = get_typestore(Stores.ROS2_JAZZY)
    types = (
        get_types_from_idl(definition.data)
        if definition.format == MessageDefinitionFormat.IDL
        else get_types_from_msg(definition.data, connection.msgtype)
    )
    store.register({name: kind for name, kind in types.items() if name not in store.types})
    return store


def _storages(reader: Reader) -> list[Any]:
    """Return what a reader reads, file by file."""
    storage = reader.storage
    # Messages that are compressed one by one are unpacked by the folder's reader.
    if isinstance(storage, DirectoryReader) and storage.metadata.compression_mode != 'message':
        return list(storage.storages)
    return [storage]


def _read(storage: Any, wanted: Sequence[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
    """Yield the messages of a file."""
    if not wanted:
        return
    if isinstance(storage, McapReader) and not storage.chunks:
        # Its messages() ends at the first that is older than the one before.
        yield from storage.messages_scan(wanted)
    else:
        yield from storage.messages(wanted)


def _storage_files(folder: Path, any_kind: bool = False) -> list[Path]:
    """Return a bag's storage files in the order of their numbers."""
    files = [
        path
        for path in folder.iterdir()
        if path.suffix in STORAGE
        or (any_kind and any(suffix in STORAGE for suffix in path.suffixes))
    ]
    return sorted(files, key=lambda path: [
        int(part) if part.isdigit() else part for part in re.split(r'(\d+)', path.name)
    ])

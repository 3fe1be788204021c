"""Append-only files of finished pieces of work, so that an interrupted run resumes."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msfc.files import ProcessLock, writing


class Journal:
    """JSON values by key, in a file with one line each.

    Every value is in the file as soon as :meth:`write` returns; a line that a killed run left
    unfinished is cut off when the file is opened again. Values stay in the file, not in memory.

    Args:
        path: the file; it and its folder are made if need be.

    Raises:
        ValueError: the file is something else, or a run that goes on has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[str, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path):
            # Not buffered: nothing is left to be written later.
            self._out = path.open('ab', buffering=0)
        self._file = path.open('rb')
        try:
            # Two runs at once would write into each other's lines.
            self._lock = ProcessLock(path)
        except BlockingIOError:
            self._close_files()
            raise ValueError(f'{path} is in use by another run: wait for its end') from None
        try:
            self._index()
        except ValueError:
            self.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, key: str) -> Any:
        self._file.seek(self._places[key])
        return json.loads(self._file.readline())[1]

    def get(self, key: str) -> Any:
        """Return the value of a key, None if there is none."""
        if key not in self:
            return None
        return self[key]

    def write(self, key: str, value: Any) -> None:
        """Add a value, in place of an earlier one of this key.

        Args:
            key: any text.
            value: what JSON can hold.

        Raises:
            ValueError: it has a number that is not finite, which JSON has no word for.
            OSError: there is no room for it; all before stays.
        """
        line = json.dumps([key, value], separators=(',', ':'), allow_nan=False) + '\n'
        place = self._out.seek(0, os.SEEK_END)
        rest = line.encode()
        try:
            with writing(self.path):
                while rest:
                    rest = rest[self._out.write(rest) :]
        except OSError:
            self._out.truncate(place)
            raise
        self._places[key] = place

    def close(self) -> None:
        """Close the file."""
        self._lock.release()
        self._close_files()

    def _close_files(self) -> None:
        self._file.close()
        self._out.close()

    def _index(self) -> None:
        self._file.seek(0)
        place = 0
        for line in self._file:
            if not line.endswith(b'\n'):
                self._out.truncate(place)
                break
            try:
                key, _ = json.loads(line)
            except (ValueError, TypeError) as error:
                raise ValueError(f'{self.path} is not a journal: {error}') from error
            self._places[key] = place
            place += len(line)


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Return 10 hexadecimal digits that change with the settings.

    Args:
        settings: what JSON can hold.
    """
    text = json.dumps(settings, sort_keys=True, separators=(',', ':'))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def journal_path(folder: Path, name: str, settings: Mapping[str, Any]) -> Path:
    """Return where the journal of a piece of work is; other settings have another file.

    Args:
        folder: for journals.
        name: what the work is, in words.
        settings: all that its results depend on, as JSON can hold it.
    """
    slug = re.sub(r'[^a-z0-9.=]+', '-', name.lower()).strip('-')
    return folder / f'{slug}-{settings_digest({"name": name, **settings})}.jsonl'

"""Files written whole, locks that end with their process, errors with the file's name."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from full_disk import full_disk
from msfc.files import ProcessLock, write_atomically, writing


def test_files_are_written_whole(tmp_path: Path) -> None:
    path = tmp_path / 'new' / 'a.txt'
    write_atomically(path, 'ä')
    write_atomically(path, b'b')
    assert path.read_bytes() == b'b'
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / 'a.txt'
    write_atomically(path, 'good')
    with full_disk(100), pytest.raises(OSError, match=r'File too large.*a\.txt'):
        write_atomically(path, 'x' * 1000)
    assert path.read_text() == 'good'
    assert list(tmp_path.iterdir()) == [path]


def test_safetensors_errors_are_told_as_others(tmp_path: Path) -> None:
    path, partial = tmp_path / 'a.safetensors', tmp_path / 'a.partial'
    with full_disk(100), pytest.raises(OSError, match=r'a\.safetensors'), writing(path, partial):
        save_file({'a': torch.zeros(1000)}, partial)
    assert not partial.exists()


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    with ProcessLock(tmp_path) as lock:
        with pytest.raises(BlockingIOError):
            ProcessLock(tmp_path)
        lock.release()
        ProcessLock(tmp_path).release()


def test_a_lock_is_not_held_by_processes_that_were_forked(tmp_path: Path) -> None:
    lock = ProcessLock(tmp_path)
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        os.write(told, b'.')
        signal.pause()
    try:
        os.read(ready, 1)
        lock.release()
        ProcessLock(tmp_path).release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(told)

"""Whether results can be written is known before work begins."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from msfc.output import check_output_file, check_output_folder


def test_what_can_be_written_passes_and_nothing_is_made(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / 'new', tmp_path / 'deep' / 'new'):
        assert check_output_folder(path) == path
        assert check_output_file(path / 'a.json') == path / 'a.json'
    (tmp_path / 'there.json').touch()
    check_output_file(tmp_path / 'there.json')
    check_output_file(Path('/dev/null'))
    check_output_folder(Path('relative') / 'folder')
    assert [path.name for path in tmp_path.iterdir()] == ['there.json']


def test_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / 'file'
    file.touch()
    with pytest.raises(IsADirectoryError, match='is a folder: name a file'):
        check_output_file(tmp_path)
    for path in (file, file / 'new', file / 'deep' / 'new'):
        with pytest.raises(NotADirectoryError, match=f'since {file} is none: name another'):
            check_output_folder(path)
    with pytest.raises(NotADirectoryError, match='is none'):
        check_output_file(file / 'a.json')
    (tmp_path / 'broken').symlink_to(tmp_path / 'nowhere')
    with pytest.raises(NotADirectoryError, match='broken is none'):
        check_output_folder(tmp_path / 'broken' / 'new')


def test_missing_rights_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As root, the system itself would refuse nothing.
    monkeypatch.setattr(os, 'access', lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(PermissionError, match=f'{tmp_path} cannot be written to'):
        check_output_folder(tmp_path / 'new')
    with pytest.raises(PermissionError, match=f'{tmp_path} cannot be written to'):
        check_output_file(tmp_path / 'a.json')
    (tmp_path / 'sub').mkdir()
    locked = tmp_path / 'sub' / 'a.json'
    locked.touch()
    monkeypatch.setattr(os, 'access', lambda path, mode: Path(path) != locked)
    with pytest.raises(PermissionError, match=r'a\.json cannot be written to: name another file'):
        check_output_file(locked)

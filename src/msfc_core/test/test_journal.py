"""Journals: finished pieces of work survive a killed run."""

from __future__ import annotations

from pathlib import Path

import pytest

from full_disk import full_disk
from msfc.journal import Journal, journal_path


def test_values_are_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / 'deep' / 'a.jsonl'
    with Journal(path) as journal:
        journal.write('1', {'x': [1, 2]})
        journal.write('zwei', 'ü')
        assert journal['1'] == {'x': [1, 2]}
    with Journal(path) as journal:
        assert list(journal) == ['1', 'zwei']
        assert (journal['zwei'], len(journal), '3' in journal) == ('ü', 2, False)
        journal.write('1', None)
        assert journal['1'] is None
    with Journal(path) as journal:
        assert (journal['1'], len(journal)) == (None, 2)


def test_unfinished_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / 'a.jsonl'
    with Journal(path) as journal:
        journal.write('1', 'one')
        journal.write('2', 'two')
    data = path.read_bytes()
    for length in range(data.index(b'\n') + 1, len(data)):
        path.write_bytes(data[:length])
        with Journal(path) as journal:
            assert list(journal) == ['1']
            journal.write('2', 'again')
            assert (journal['1'], journal['2']) == ('one', 'again')


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / 'a.jsonl'
    path.write_text('{"a": 1}\nnothing\n')
    with pytest.raises(ValueError, match='not a journal'):
        Journal(path)


def test_two_runs_do_not_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / 'a.jsonl'
    with Journal(path) as journal:
        journal.write('1', 'one')
        with pytest.raises(ValueError, match='in use by another run'):
            Journal(path)
        journal.write('2', 'two')
        assert journal['1'] == 'one'
    with Journal(path) as journal:
        assert list(journal) == ['1', '2']


def test_paths_go_with_settings(tmp_path: Path) -> None:
    one = journal_path(tmp_path, 'JPEG 4:2:0 q=5', {'images': 3})
    assert one.name.startswith('jpeg-4-2-0-q=5-')
    assert one == journal_path(tmp_path, 'JPEG 4:2:0 q=5', {'images': 3})
    assert one != journal_path(tmp_path, 'JPEG 4:2:0 q=5', {'images': 4})
    assert one != journal_path(tmp_path, 'JPEG 4/2/0 q=5', {'images': 3})


def test_what_there_is_no_room_for_is_told_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / 'a.jsonl'
    with Journal(path) as journal:
        journal.write('1', 'one')
        with full_disk(300), pytest.raises(OSError, match=r'large.*a\.jsonl'):
            journal.write('2', 'x' * 1000)
        assert journal.get('2') is None
        journal.write('3', 'three')
        assert (journal['1'], journal['3']) == ('one', 'three')
    with Journal(path) as journal:
        assert list(journal) == ['1', '3']

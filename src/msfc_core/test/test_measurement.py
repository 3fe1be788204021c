"""What a kept result depends on is in its key: pictures, categories, weights, settings."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msfc.data import CocoDataset
from msfc.data.digests import dataset_digest, file_digest, picture_digests
from msfc.evaluation.measurement import measure
from msfc.evaluation.variants import Outcome, Uncompressed
from msfc.journal import Journal
from tiny import tiny_model
from tiny_data import write_data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / 'data')


class Counting(Uncompressed):
    """Counts the images that it is asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(tiny_model().detector, **options)
        self.seen: list[int] = []

    def run(self, source: Any) -> Outcome:
        self.seen.append(source.image_id)
        return super().run(source)


def seen(data: Path, journals: Path, **options: Any) -> list[int]:
    """Return which images of the validation split a run measures anew."""
    variant = Counting(**options.pop('variant', {}))
    measure(CocoDataset(data, 'val'), [variant], journals=journals, replicates=0, **options)
    return variant.seen


def repaint(path: Path) -> None:
    """Give an image other pixels, but its size in bytes and its time of change."""
    before = path.stat()
    image = np.random.default_rng(9).integers(0, 255, cv2.imread(str(path)).shape).astype('uint8')
    cv2.imwrite(str(path), image)
    with path.open('r+b') as file:
        file.truncate(before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_was_measured_is_taken_over(data: Path, tmp_path: Path) -> None:
    journals = tmp_path / 'journals'
    assert seen(data, journals) == [5, 15, 25]
    assert seen(data, journals) == []
    elsewhere = tmp_path / 'elsewhere'
    shutil.copytree(data, elsewhere)
    assert seen(elsewhere, journals) == []


def test_other_pictures_under_the_same_annotations_are_measured(
    data: Path, tmp_path: Path
) -> None:
    journals, noisy = tmp_path / 'journals', tmp_path / 'noisy'
    seen(data, journals)
    shutil.copytree(data, noisy)
    image = cv2.imread(str(noisy / 'val' / '001.png'))
    cv2.imwrite(str(noisy / 'val' / '001.png'), 255 - image)
    assert seen(noisy, journals) == [15]
    assert seen(data, journals) == []


@pytest.mark.parametrize('options', [
    {'settings': {'noise': 2}}, {'variant': {'identity': 'other weights'}},
])
def test_other_settings_are_measured(
    data: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    seen(data, tmp_path / 'journals')
    assert seen(data, tmp_path / 'journals', **options) == [5, 15, 25]


def test_other_categories_are_measured(data: Path, tmp_path: Path) -> None:
    seen(data, tmp_path / 'journals')
    path = data / 'annotations' / 'instances_val.json'
    content = json.loads(path.read_text())
    for entry in (*content['categories'], *content['annotations']):
        key = ('name' in entry and 'id') or 'category_id'
        entry[key] += 1
    path.write_text(json.dumps(content))
    assert seen(data, tmp_path / 'journals') == [5, 15, 25]


def test_other_versions_are_measured(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(data, tmp_path / 'journals')
    monkeypatch.setattr('torchvision.__version__', '9.9')
    assert seen(data, tmp_path / 'journals') == [5, 15, 25]


def test_digests_are_of_contents(data: Path, tmp_path: Path) -> None:
    dataset = CocoDataset(data, 'train')
    before = dataset_digest(dataset)
    with Journal(tmp_path / 'a.jsonl') as journal:
        calls: list[tuple[int, int]] = []

        def digest() -> str:
            return dataset_digest(
                dataset, None, journal, lambda *counts: calls.append(counts)
            )

        assert digest() == before
        assert calls == [(7, 7)]
        assert digest() == before
        assert len(calls) == 1
        repaint(data / 'train' / '002.png')
        assert digest() != before
        assert calls[1:] == [(1, 1)]
    assert dataset_digest(dataset, 2) == dataset_digest(dataset, 2)
    assert dataset_digest(dataset, 2) != dataset_digest(dataset, 3)


def test_missing_pictures_are_named(tmp_path: Path) -> None:
    path = tmp_path / 'a.png'
    with pytest.raises(FileNotFoundError, match=r'a\.png is missing'):
        picture_digests([path])
    path.write_bytes(b'1')
    assert picture_digests([path]) == [file_digest(path)]

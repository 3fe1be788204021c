"""Checking and subsetting COCO data, on a miniature and on real images where they are."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bad_annotations import BAD_ANNOTATIONS, HEIGHT, WIDTH
from msfc.data import CocoDataset
from msfc.data.coco_subset import write_subset

POLYGON = [5.0, 5.0, 20.0, 5.0, 20.0, 15.0, 5.0, 15.0]


def real_data() -> Path | None:
    """Return the folder of a few real COCO images, if it is here."""
    given_path = os.environ.get('MSFC_COCO_TINY')
    root = Path(__file__).resolve().parents[3]
    path = Path(given_path) if given_path else root.parent / 'shared' / 'data' / 'coco_tiny'
    return path if (path / 'annotations' / 'instances_val2017.json').is_file() else None


class Miniature:
    """A COCO data set of a few plain images."""

    def __init__(self, root: Path, count: int = 6) -> None:
        self.images, self.file = root / 'val2017', root / 'annotations' / 'instances_val2017.json'
        self.images.mkdir(parents=True)
        self.file.parent.mkdir()
        self.data: dict[str, Any] = {
            'info': {'year': 2017},
            'licenses': [],
            'images': [],
            'annotations': [],
            'categories': [
                {'id': 1, 'name': 'person'}, {'id': 3, 'name': 'car'}, {'id': 44, 'name': 'bottle'}
            ],
        }
        for index in range(count):
            image_id = 100 + 3 * index
            name = f'{image_id:012d}.jpg'
            pixels = np.full((HEIGHT, WIDTH, 3), 40 * index, np.uint8)
            cv2.imwrite(str(self.images / name), pixels)
            self.data['images'].append(
                {'id': image_id, 'file_name': name, 'height': HEIGHT, 'width': WIDTH}
            )
            if index < count - 1:  # the last one has no object
                self.add(image_id, [1, 3, 44][index % 3])
                self.add(image_id, 1)

    def add(self, image_id: int, category: int, **changes: Any) -> dict[str, Any]:
        entry = {
            'id': len(self.data['annotations']) + 1, 'image_id': image_id,
            'category_id': category, 'bbox': [5.0, 5.0, 15.0, 10.0], 'area': 150.0,
            'segmentation': [POLYGON], 'iscrowd': 0, **changes,
        }
        self.data['annotations'].append(entry)
        return entry

    def save(self) -> None:
        self.file.write_text(json.dumps(self.data))

    def write(self, output: Path, **options: Any) -> Any:
        self.save()
        return write_subset(self.file, self.images, output, 'val', **options)


def written(output: Path, split: str = 'val') -> dict[str, Any]:
    data: dict[str, Any] = json.loads(
        (output / 'annotations' / f'instances_{split}.json').read_text()
    )
    return data


@pytest.fixture
def mini(tmp_path: Path) -> Miniature:
    return Miniature(tmp_path / 'coco')


def test_sound_data_stay_as_they_are(mini: Miniature, tmp_path: Path) -> None:
    output = tmp_path / 'out'
    report = mini.write(output)
    assert written(output) == mini.data
    assert (report.images, report.objects, report.crowds, report.problems) == (6, 10, 0, {})
    assert report.objects_by_class == {'person': 7, 'car': 2, 'bottle': 1}
    assert report.problem_list is None
    assert 'no problems found' in report.sentences()
    dataset = CocoDataset(output, 'val')
    assert len(dataset) == 6
    assert dataset.class_names == ('person', 'car', 'bottle')
    assert dataset[0].targets.masks.shape == (2, HEIGHT, WIDTH)


def test_classes(mini: Miniature, tmp_path: Path) -> None:
    report = mini.write(tmp_path / 'out', class_names=['Car', 'bottle'])
    data = written(tmp_path / 'out')
    assert [entry['name'] for entry in data['categories']] == ['car', 'bottle']
    assert {entry['category_id'] for entry in data['annotations']} == {3, 44}
    assert report.images == 3  # those with one of the two
    assert mini.write(tmp_path / 'all', class_names=['car'], keep_empty=True).images == 6
    with pytest.raises(ValueError, match='no class cat: choose from person, car, bottle'):
        mini.write(tmp_path / 'out', class_names=['cat'])


def test_larger_subsets_contain_smaller_ones(mini: Miniature, tmp_path: Path) -> None:
    before: set[int] = set()
    for count in (1, 3, 5):
        output = tmp_path / str(count)
        assert mini.write(output, count=count).images == count
        now = {entry['id'] for entry in written(output)['images']}
        assert before <= now
        before = now
    assert mini.write(tmp_path / 'more', count=99).images == 6
    with pytest.raises(ValueError, match='cannot be kept'):
        mini.write(tmp_path / 'none', count=0)


def test_bad_images_are_named_and_replaced(mini: Miniature, tmp_path: Path) -> None:
    names = [entry['file_name'] for entry in mini.data['images']]
    (mini.images / names[0]).unlink()
    (mini.images / names[1]).write_bytes(b'no image')
    cv2.imwrite(str(mini.images / names[2]), np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8))
    mini.data['images'][3]['file_name'] = '../val2017/' + names[3]
    mini.data['images'].append(dict(mini.data['images'][4]))
    report = mini.write(tmp_path / 'out')
    assert report.problems == {
        'image: the id is there twice': 1,
        'image: no file': 1,
        'image: the file is no image': 1,
        'image: the file has another size than the annotation file says': 1,
        'image: the file name leaves the folder': 1,
    }
    assert [entry['file_name'] for entry in written(tmp_path / 'out')['images']] == names[4:]
    rows = (tmp_path / 'out' / 'problems_val.csv').read_text().splitlines()
    assert f'image,{names[0]},no file' in rows
    assert len(rows) == 6
    assert mini.write(tmp_path / 'two', count=2).images == 2


def test_images_that_are_cut_off_are_named(mini: Miniature, tmp_path: Path) -> None:
    name, *others = [entry['file_name'] for entry in mini.data['images']]
    path = mini.images / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-2])
    report = mini.write(tmp_path / 'out')
    assert report.problems == {'image: the file is cut off': 1}
    assert [entry['file_name'] for entry in written(tmp_path / 'out')['images']] == others
    assert f'image,{name},the file is cut off' in (
        tmp_path / 'out' / 'problems_val.csv'
    ).read_text()
    path.write_bytes(whole)  # downloaded again
    assert mini.write(tmp_path / 'out').problems == {}


def test_another_folder_of_images_takes_the_place_of_the_first(
    mini: Miniature, tmp_path: Path
) -> None:
    mini.write(tmp_path / 'out')
    other = mini.images.with_name('again')
    mini.images.rename(other)
    mini.images.mkdir()
    for path in other.iterdir():
        (mini.images / path.name).write_bytes(b'no image any more')
    mini.images = other
    mini.write(tmp_path / 'out')
    assert CocoDataset(tmp_path / 'out', 'val')[0].image.shape == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize(('changes', 'reason'), BAD_ANNOTATIONS)
def test_bad_annotations_are_named(
    mini: Miniature, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    good = copy.deepcopy(mini.data['annotations'])
    mini.add(100, 1).update(changes)
    report = mini.write(tmp_path / 'out')
    assert report.problems == {f'annotation: {reason}': 1}
    assert written(tmp_path / 'out')['annotations'] == good


def test_crowds_are_kept_and_counted(mini: Miniature, tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order='F')
    mask[3:9, 4:40] = 1
    flat = mask.ravel(order='F')
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, len(flat)]).tolist()
    mini.add(100, 1, iscrowd=1, segmentation={'size': [HEIGHT, WIDTH], 'counts': counts})
    report = mini.write(tmp_path / 'out')
    assert (report.objects, report.crowds, report.problems) == (10, 1, {})


def test_objects_of_one_id_are_kept_and_numbered_anew(mini: Miniature, tmp_path: Path) -> None:
    boxes = [entry['bbox'] for entry in mini.data['annotations']]
    for entry in mini.data['annotations']:
        entry['id'] = 1
    report = mini.write(tmp_path / 'out')
    assert (report.objects, report.problems) == (len(boxes), {})
    entries = written(tmp_path / 'out')['annotations']
    assert [entry['id'] for entry in entries] == list(range(1, len(boxes) + 1))
    assert sorted(entry['bbox'] for entry in entries) == sorted(boxes)


def test_twice_the_same_category(mini: Miniature, tmp_path: Path) -> None:
    mini.data['categories'].append({'id': 3, 'name': 'cart'})
    with pytest.raises(ValueError, match='category id 3 is there twice'):
        mini.write(tmp_path / 'out')


def test_a_broken_run_goes_on(
    mini: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mini.write(tmp_path / 'out', progress=stop)
    opened = []
    from msfc.data import coco_subset

    real = coco_subset.image_size
    monkeypatch.setattr(coco_subset, 'image_size', lambda path: opened.append(path) or real(path))
    mini.write(tmp_path / 'out')
    assert len(opened) == 2  # four were looked at before
    assert written(tmp_path / 'out') == mini.data


def test_wrong_files_are_refused(mini: Miniature, tmp_path: Path) -> None:
    mini.save()
    with pytest.raises(FileNotFoundError, match='missing'):
        write_subset(tmp_path / 'no.json', mini.images, tmp_path / 'out', 'val')
    with pytest.raises(FileNotFoundError, match='folder of images'):
        write_subset(mini.file, tmp_path / 'no', tmp_path / 'out', 'val')
    with pytest.raises(ValueError, match='overwritten'):
        write_subset(mini.file, mini.images, mini.file.parents[1], 'val2017')
    for text, words in (
        ('{', 'not JSON'),
        ('[]', 'not a COCO annotation file'),
        ('{"images": [], "annotations": []}', 'not a COCO annotation file'),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', 'no file_name'),
        ('{"images": [3], "annotations": [], "categories": []}', 'an entry of images is 3'),
        ('{"images": [], "annotations": [], "categories": []}', 'no usable image'),
    ):
        mini.file.write_text(text)
        with pytest.raises(ValueError, match=words):
            write_subset(mini.file, mini.images, tmp_path / 'out', 'val')


@pytest.mark.parametrize(
    'name', ['annotations/instances_val.json', 'val/000000000100.jpg', 'val/photo.jpg', 'val',
             'report_val.json', 'problems_val.csv'],
)
def test_what_others_made_is_not_overwritten(
    mini: Miniature, tmp_path: Path, name: str
) -> None:
    path = tmp_path / 'out' / name
    path.parent.mkdir(parents=True)
    path.write_text('mine')
    with pytest.raises(ValueError, match=r'msfc data coco.*: choose another output or'):
        mini.write(tmp_path / 'out')
    assert path.read_text() == 'mine'
    assert [k for k in (tmp_path / 'out').rglob('*') if k.is_file()] == [path]


def test_annotations_that_were_edited_are_not_overwritten(
    mini: Miniature, tmp_path: Path
) -> None:
    mini.write(tmp_path / 'out')
    path = tmp_path / 'out' / 'annotations' / 'instances_val.json'
    path.write_text(path.read_text() + ' ')
    with pytest.raises(ValueError, match='is not as msfc data coco wrote it'):
        mini.write(tmp_path / 'out')
    path.unlink()
    mini.write(tmp_path / 'out')


def test_images_may_lie_where_they_belong_and_stay(mini: Miniature, tmp_path: Path) -> None:
    mini.save()
    home = mini.images.parent
    name = mini.data['images'][0]['file_name']
    other = tmp_path / 'elsewhere.json'
    mini.file.rename(other)
    write_subset(other, mini.images, home, 'val2017')
    assert len(CocoDataset(home, 'val2017')) == 6
    again = tmp_path / 'again'
    again.mkdir()
    for path in mini.images.iterdir():
        (again / path.name).write_bytes(path.read_bytes() + b'\xff\xd9')
    before = (mini.images / name).read_bytes()
    with pytest.raises(ValueError, match='val2017 was not made by'):
        write_subset(other, again, home, 'val2017')
    assert (mini.images / name).read_bytes() == before


@pytest.mark.skipif(
    real_data() is None, reason='no folder of real COCO images: set MSFC_COCO_TINY to one'
)
def test_real_images(tmp_path: Path) -> None:
    root = real_data()
    assert root is not None
    for split in ('train2017', 'val2017'):
        report = write_subset(
            root / 'annotations' / f'instances_{split}.json', root / split, tmp_path, split
        )
        assert report.images == report.found_images == 80
        assert report.problems == {}
        dataset = CocoDataset(tmp_path, split)
        assert len(dataset.class_names) == 80
        example = dataset[3]
        assert example.targets.masks.shape[1:] == example.image.shape[1:]
        assert example.targets.masks.any(dim=(1, 2)).all()
    some = write_subset(
        root / 'annotations' / 'instances_val2017.json', root / 'val2017', tmp_path / 'some',
        'val2017', ['person', 'car'], 20,
    )
    assert some.images == 20
    assert set(some.objects_by_class) == {'person', 'car'}
    assert some.objects == sum(some.objects_by_class.values()) > 0

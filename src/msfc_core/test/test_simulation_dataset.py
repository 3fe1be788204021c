import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from msfc.data import CocoDataset
from msfc.data.semantic import SemanticDataset
from msfc.simulation import dataset as module
from msfc.simulation.dataset import write_dataset
from msfc.simulation.labels import label_scene, write_labels
from msfc.simulation.objects import CLASS_NAMES
from msfc.simulation.scene import (
    EVENING,
    FRAMES_PER_SCENE,
    MIN_MASK_AREA,
    SPLITS,
    SURFACES,
    WORLD_VERSION,
    TabletopScene,
    scene_rng,
)

COUNTS = {'train': FRAMES_PER_SCENE + 2, 'val': 1, 'empty_val': 2}


@pytest.fixture(scope='module')
def dataset(drawing, tmp_path_factory):
    root = tmp_path_factory.mktemp('tabletop')
    calls = []
    files = write_dataset(root, COUNTS, 2, lambda done, total: calls.append((done, total)))
    return root, files, calls


def test_counts_and_progress(dataset):
    root, files, calls = dataset
    assert set(files) == set(COUNTS)
    for split, count in COUNTS.items():
        coco = json.loads(files[split].read_text())
        assert [image['id'] for image in coco['images']] == list(range(1, count + 1))
        assert all((root / split / image['file_name']).is_file() for image in coco['images'])
    assert calls[0][0] == 0
    assert calls[-1][0] == calls[-1][1] == 4 * FRAMES_PER_SCENE


def test_labels_of_pixels_are_those_of_the_pictures(dataset, tmp_path):
    root = tmp_path / 'tabletop'
    shutil.copytree(dataset[0], root)
    assert write_labels(root, 'val', workers=1) == 1
    found = SemanticDataset(root, 'val')
    assert found.class_names == SURFACES
    objects = CocoDataset(root, 'val')[0].targets.masks.any(0).numpy()
    assert (found[0].labels[objects] == SURFACES.index('object')).all()
    # Another picture than the one that is rendered here.
    scene = root / 'scenes' / 'val' / '000000.json'
    parts = json.loads(scene.read_text())
    parts[0]['annotations'] = []
    scene.write_text(json.dumps(parts))
    with pytest.raises(ValueError, match='another picture than the one that is rendered here'):
        label_scene(root, 'val', 0)
    (root / 'scenes' / 'world_version').write_text('0')
    with pytest.raises(ValueError, match='world version 0'):
        write_labels(root, 'val')


def test_coco_reads_it(dataset, capsys):
    root, files, _ = dataset
    coco = COCO(str(files['train']))
    assert [category['name'] for category in coco.loadCats(coco.getCatIds())] == list(CLASS_NAMES)
    assert coco.anns
    for annotation in coco.anns.values():
        image = coco.imgs[annotation['image_id']]
        mask = coco.annToMask(annotation)
        assert mask.shape == (image['height'], image['width'])
        assert mask.sum() == annotation['area']
        assert annotation['iscrowd'] == (annotation['area'] < MIN_MASK_AREA)
        assert list(coco_mask.toBbox(coco.annToRLE(annotation))) == annotation['bbox']
    picture = cv2.imread(str(root / 'train' / coco.imgs[1]['file_name']))
    assert picture.shape == (coco.imgs[1]['height'], coco.imgs[1]['width'], 3)


def test_empty_tables_have_no_objects(dataset):
    root, files, _ = dataset
    images = CocoDataset(root, 'empty_val')
    assert images.class_names == CLASS_NAMES
    assert [len(images[k].targets.labels) for k in range(len(images))] == [0, 0]
    assert json.loads(files['empty_val'].read_text())['annotations'] == []
    assert images[0].image.float().std() > 3


def test_the_evening_is_another_world(dataset, tmp_path):
    """It is darker, and its lamps are redder."""
    root, _, _ = dataset
    write_dataset(tmp_path, {'evening_train': FRAMES_PER_SCENE, 'evening_val': 1}, 2)
    day, evening = (
        np.stack([CocoDataset(place, split)[k].image.float().mean((1, 2)) for k in range(4)])
        for place, split in ((root, 'train'), (tmp_path, 'evening_train'))
    )
    assert evening.mean() < 0.7 * day.mean()
    lamp = TabletopScene(scene_rng('evening_val', 0), surroundings=EVENING).model.light_diffuse[0]
    assert lamp[2] < 0.61 * lamp[0]
    assert CocoDataset(tmp_path, 'evening_val').class_names == CLASS_NAMES


def test_broken_off_and_resumed(dataset, tmp_path):
    _, files, _ = dataset
    calls = []

    class BrokenOffError(Exception):
        pass

    def break_off(done, total):
        calls.append(done)
        if done:
            raise BrokenOffError

    with pytest.raises(BrokenOffError):
        write_dataset(tmp_path, COUNTS, 1, break_off)
    kept = sorted((tmp_path / 'scenes').rglob('*.json'))
    assert kept
    before = [path.stat().st_mtime_ns for path in kept]
    again = write_dataset(tmp_path, COUNTS, 1)
    assert [path.stat().st_mtime_ns for path in kept] == before
    for split, path in files.items():
        assert again[split].read_bytes() == path.read_bytes()


def test_a_failure_is_told_at_once(tmp_path, monkeypatch):
    begun = []

    def write_scene(root, split, scene):
        begun.append(scene)
        time.sleep(0.01)
        if not scene:
            raise OSError('no space left')

    monkeypatch.setattr(module, 'write_scene', write_scene)
    monkeypatch.setattr(
        module, 'ProcessPoolExecutor', lambda workers, mp_context: ThreadPoolExecutor(workers)
    )
    with pytest.raises(OSError, match='no space left'):
        write_dataset(tmp_path, {'train': 500 * FRAMES_PER_SCENE}, 1)
    assert len(begun) < 500


def test_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown split 'holiday': choose from train, val"):
        write_dataset(tmp_path, {'holiday': 1})
    with pytest.raises(ValueError, match='give 0 or more'):
        write_dataset(tmp_path, {'train': -1})
    assert 'clip' in SPLITS


def test_two_worlds_are_not_mixed(tmp_path, monkeypatch):
    write_dataset(tmp_path, {'train': 0})
    write_dataset(tmp_path, {'train': 0})
    monkeypatch.setattr(module, 'WORLD_VERSION', WORLD_VERSION + 1)
    with pytest.raises(ValueError, match=f'scenes of world version {WORLD_VERSION}, and this is'):
        write_dataset(tmp_path, {'train': 0})


@pytest.mark.parametrize('name', ['val/photo.png', 'annotations/instances_val.json', 'val'])
def test_what_others_made_is_not_overwritten(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('mine')
    with pytest.raises(ValueError, match='was not made by msfc data tabletop: choose another'):
        write_dataset(tmp_path, {'val': 1})
    assert [k for k in tmp_path.rglob('*') if k.is_file()] == [path]

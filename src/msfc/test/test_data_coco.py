"""Reading data sets in COCO's format."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from msfc.data import CocoDataset
from tiny_data import CLASS_NAMES, HEIGHT, SPLITS, WIDTH, write_data


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp('data'))


def edit(data, tmp_path, change):
    """Return a copy of the data set's validation split with other annotations."""
    content = json.loads((data / 'annotations' / 'instances_val.json').read_text())
    change(content)
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations' / 'instances_val.json').write_text(json.dumps(content))
    (tmp_path / 'val').symlink_to(data / 'val')
    return tmp_path


def test_classes_are_numbered_in_the_order_of_their_category_ids(data):
    dataset = CocoDataset(data, 'val')
    assert dataset.class_names == CLASS_NAMES
    assert dataset.category_ids == [3, 7]
    assert len(dataset) == SPLITS['val']


def test_examples_are_images_with_boxes_labels_and_masks(data):
    dataset = CocoDataset(data, 'train')
    example = dataset[0]
    assert example.image_id == 5
    assert example.image.shape == (3, HEIGHT, WIDTH)
    assert example.image.dtype == torch.uint8
    assert np.array_equal(
        example.image.permute(1, 2, 0).numpy(), dataset.read_image(0)[:, :, ::-1]
    )
    targets = example.targets
    assert targets.labels.tolist() == [0, 1]
    assert targets.masks.shape == (2, HEIGHT, WIDTH)
    for box, mask in zip(targets.boxes, targets.masks, strict=True):
        rows, columns = np.where(mask.numpy())
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert box.tolist() == pytest.approx(expected, abs=1)


def test_crowds_are_no_targets_and_images_without_targets_can_be_left_out(data):
    dataset = CocoDataset(data, 'train')
    empty = dataset[SPLITS['train'] - 1].targets
    assert empty.boxes.shape == (0, 4)
    assert empty.labels.shape == (0,)
    assert empty.masks.shape == (0, HEIGHT, WIDTH)
    assert len(CocoDataset(data, 'train', only_with_objects=True)) == SPLITS['train'] - 1


def test_a_flipped_example_is_its_mirror_image_and_flips_back(data):
    example = CocoDataset(data, 'train')[1]
    flipped = example.flipped()
    assert torch.equal(flipped.image, example.image.flip(-1))
    assert torch.equal(flipped.targets.masks, example.targets.masks.flip(-1))
    assert torch.equal(flipped.targets.boxes[:, 0], WIDTH - example.targets.boxes[:, 2])
    assert torch.equal(flipped.targets.boxes[:, 1], example.targets.boxes[:, 1])
    assert torch.equal(flipped.flipped().targets.boxes, example.targets.boxes)


def test_missing_annotations_say_how_to_make_them(tmp_path):
    with pytest.raises(FileNotFoundError, match='msfc data tabletop'):
        CocoDataset(tmp_path, 'train')


@pytest.mark.parametrize('content', ['', '{', '[1]', '{"images": []}', '{"annotations": [3]}'])
def test_foreign_annotations_are_refused_in_words(tmp_path, content):
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations' / 'instances_val.json').write_text(content)
    with pytest.raises(ValueError, match='not a COCO annotation file'):
        CocoDataset(tmp_path, 'val')


def test_a_split_without_images_is_refused(data, tmp_path):
    root = edit(data, tmp_path, lambda content: content['images'].clear())
    with pytest.raises(ValueError, match='no images'):
        CocoDataset(root, 'val')


def test_a_missing_image_is_named(data, tmp_path):
    root = edit(data, tmp_path, lambda content: content['images'][0].update(file_name='no.png'))
    with pytest.raises(FileNotFoundError, match=r'no\.png'):
        CocoDataset(root, 'val')[0]


def test_an_image_of_another_size_than_annotated_is_named(data, tmp_path):
    root = edit(data, tmp_path, lambda content: content['images'][0].update(height=50))
    with pytest.raises(ValueError, match=rf'000\.png is {WIDTH} x {HEIGHT} pixels.*{WIDTH} x 50'):
        CocoDataset(root, 'val')[0]

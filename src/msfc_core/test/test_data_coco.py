"""Reading data sets in COCO's format."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from msfc.data import CocoDataset
from msfc.evaluation import average_precision
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


@pytest.mark.parametrize('content', [
    '', '{', '[1]', '{"images": []}', '{"annotations": [3]}',
    '{"images": [3], "annotations": [], "categories": []}',
    '{"images": [], "annotations": [], "categories": [{"id": [1], "name": "a"}]}',
    '{"images": [{"id": 1, "file_name": "a", "height": "3", "width": 4}], "annotations": [],'
    ' "categories": []}',
])
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
    def change(content):
        content['images'][0].update(height=HEIGHT + 9)
        content['annotations'] = [  # run lengths would tell of it when the file is opened
            entry for entry in content['annotations'] if isinstance(entry['segmentation'], list)
        ]

    root = edit(data, tmp_path, change)
    dataset = CocoDataset(root, 'val')
    # Masks of another size than the annotations' would count as never found.
    for read in (dataset.__getitem__, dataset.read_image):
        with pytest.raises(
            ValueError, match=rf'000\.png is {WIDTH} x {HEIGHT} pixels.*{WIDTH} x {HEIGHT + 9}'
        ):
            read(0)


def test_an_image_that_is_cut_off_is_named(data, tmp_path):
    root = edit(data, tmp_path, lambda content: None)
    folder = root / 'val'
    folder.unlink()
    folder.mkdir()
    image = CocoDataset(data, 'val').read_image(0)
    whole = cv2.imencode('.jpg', image)[1].tobytes()
    (folder / '000.png').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r'000\.png is cut off: msfc data coco'):
        CocoDataset(root, 'val').read_image(0)
    (folder / '000.png').write_bytes(whole)
    assert CocoDataset(root, 'val').read_image(0).shape == image.shape


def perfect_results(content):
    """Return the objects of annotations as if they had been detected."""
    return [
        {
            'image_id': entry['image_id'], 'category_id': entry['category_id'],
            'bbox': entry['bbox'], 'segmentation': entry['segmentation'], 'score': 0.9,
        }
        for entry in content['annotations'] if not entry['iscrowd']
    ]


def as_rle(data):
    """Return the validation split's annotations, all masks as run lengths."""
    coco = CocoDataset(data, 'val').coco
    content = coco.dataset
    for entry in content['annotations']:
        rle = coco.annToRLE(entry)
        counts = rle['counts']
        text = counts.decode() if isinstance(counts, bytes) else counts
        entry['segmentation'] = {'size': list(rle['size']), 'counts': text}
    return content


@pytest.mark.parametrize('ids', [range(6), [1] * 6, list('abcdef')])
def test_every_object_counts_whatever_its_id(data, tmp_path, ids):
    """pycocotools takes an object of id 0 for never found, and loses one of two of one id."""
    content = as_rle(data)
    assert len(content['annotations']) == 6

    def change(loaded):
        loaded['annotations'] = [
            {**entry, 'id': key} for entry, key in zip(content['annotations'], ids, strict=True)
        ]

    root = edit(data, tmp_path, change)
    figures = average_precision(CocoDataset(root, 'val').coco, perfect_results(content))
    assert min(figures.values()) == pytest.approx(1.0)


def test_what_other_programs_leave_out_is_added(data, tmp_path):
    content = as_rle(data)
    results = perfect_results(content)

    def change(loaded):
        for entry in loaded['annotations']:
            del entry['area']
            if not entry['iscrowd']:
                del entry['iscrowd']
            else:
                entry['iscrowd'] = True

    dataset = CocoDataset(edit(data, tmp_path, change), 'val')
    assert min(average_precision(dataset.coco, results).values()) == pytest.approx(1.0)
    assert len(dataset[2].targets.labels) == 0


@pytest.mark.parametrize(('change', 'words'), [
    (lambda content: content['images'].append(content['images'][0]), 'id 5 is there twice in im'),
    (lambda content: content['categories'].append(content['categories'][0]), 'twice in categ'),
    (lambda content: content['annotations'][0].pop('bbox'), 'the box is not four numbers'),
    (lambda content: content['annotations'][0].update(bbox=[1, 2, 3]), 'not four numbers'),
    (lambda content: content['annotations'][0].update(bbox=['1'] * 4), 'not four numbers'),
    (lambda content: content['annotations'][0].pop('segmentation'), 'there is no mask'),
    (lambda content: content['annotations'][0].update(category_id=4), 'no such category'),
])
def test_entries_of_no_use_are_named(data, tmp_path, change, words):
    with pytest.raises(ValueError, match=rf'instances_val\.json: .*{words}.*: msfc data coco'):
        CocoDataset(edit(data, tmp_path, change), 'val')

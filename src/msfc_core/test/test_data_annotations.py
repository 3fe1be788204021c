"""The check of annotations, and what depends on it when a file is opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from bad_annotations import BAD_ANNOTATIONS, HEIGHT, WIDTH
from msfc.data import CocoDataset
from msfc.data.annotations import (
    EMPTY_BOX,
    NO_IMAGE,
    annotation_fault,
    is_empty_box,
    make_ids_unique,
    run_lengths,
)

GOOD = {
    'id': 4, 'image_id': 1, 'category_id': 2, 'bbox': [5, 5, 15, 10],
    'segmentation': [[5, 5, 20, 5, 20, 15, 5, 15]],
}


def write(root: Path, annotations: list[dict[str, Any]], **image: Any) -> Path:
    """Write a data set of one image, which is not there, and return its folder."""
    entry = {'id': 1, 'file_name': 'a.png', 'height': HEIGHT, 'width': WIDTH, **image}
    path = root / 'annotations' / 'instances_val.json'
    path.parent.mkdir()
    path.write_text(json.dumps({
        'images': [entry], 'annotations': annotations, 'categories': [{'id': 2, 'name': 'cup'}],
    }))
    return root


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_run_lengths_are_read_as_pycocotools_does(
    height: int, width: int, seed: int, share: float
) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    runs = run_lengths(rle['counts'].decode())
    assert runs is not None
    flat = np.repeat(np.arange(len(runs)) % 2, runs)
    assert flat.reshape(width, height).T.tolist() == mask.astype(int).tolist()
    entry = {
        'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 1, 1],
        'segmentation': {'size': [height, width], 'counts': rle['counts'].decode()},
    }
    image = {'height': height, 'width': width}
    assert annotation_fault(entry, image, {1}) == (None if mask.any() else 'the mask is empty')


@given(st.text(max_size=30) | st.text('0123456789PQo', max_size=30))
@settings(max_examples=40)
def test_no_text_of_run_lengths_hangs_or_crashes(text: str) -> None:
    runs = run_lengths(text)
    entry = {**GOOD, 'segmentation': {'size': [HEIGHT, WIDTH], 'counts': text}}
    fault = annotation_fault(entry, {'height': HEIGHT, 'width': WIDTH}, {2})
    if fault is None:
        assert runs is not None
        assert coco_mask.decode(entry['segmentation']).sum() == sum(runs[1::2])


@pytest.mark.parametrize(('changes', 'reason'), BAD_ANNOTATIONS)
def test_opening_names_an_annotation_of_no_use(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    root = write(tmp_path, [GOOD, {**GOOD, 'id': 17, **changes}])
    if reason in (EMPTY_BOX, NO_IMAGE):  # passed over
        assert len(CocoDataset(root, 'val')) == 1
        return
    with pytest.raises(ValueError, match=f'17 of image a.png: {reason}: msfc data coco'):
        CocoDataset(root, 'val')


def test_boxes_that_are_empty_in_single_precision_are_no_targets(tmp_path: Path) -> None:
    thin = {**GOOD, 'id': 5, 'bbox': [20.0, 5.0, 1e-7, 5.0]}
    assert is_empty_box(thin['bbox'])
    root = write(tmp_path, [GOOD, thin])
    assert len(CocoDataset(root, 'val', only_with_objects=True)) == 1
    (root / 'annotations' / 'instances_val.json').unlink()
    (root / 'annotations').rmdir()
    with pytest.raises(ValueError, match='no images'):
        CocoDataset(write(tmp_path, [thin]), 'val', only_with_objects=True)


def test_whole_floats_are_sizes_and_ids(tmp_path: Path) -> None:
    mask = coco_mask.encode(np.asfortranarray(np.ones((HEIGHT, WIDTH)), np.uint8))
    rle = {'size': [float(HEIGHT), float(WIDTH)], 'counts': mask['counts'].decode()}
    root = write(
        tmp_path, [{**GOOD, 'image_id': 1.0, 'category_id': 2.0, 'segmentation': rle}],
        height=float(HEIGHT), width=float(WIDTH),
    )
    dataset = CocoDataset(root, 'val', only_with_objects=True)
    assert dataset.coco.imgs[1]['height'] == HEIGHT
    assert dataset.coco.annToMask(dataset.coco.anns[4]).shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize('height', [40.5, 0, -3, float('nan'), '40', 2**40])
def test_other_sizes_are_refused_with_the_images_name(tmp_path: Path, height: Any) -> None:
    root = write(tmp_path, [GOOD], height=height)
    with pytest.raises(ValueError, match=r'image a\.png has the height'):
        CocoDataset(root, 'val')


@given(st.lists(st.integers(-2, 5) | st.text(max_size=2), max_size=8))
def test_ids_become_unique_and_stay_where_they_are(ids: list[Any]) -> None:
    entries = [{'id': key} for key in ids]
    make_ids_unique(entries)
    made = [entry['id'] for entry in entries]
    assert len(set(made)) == len(ids)
    assert all(isinstance(key, int) and key > 0 for key in made)
    if len(set(ids)) == len(ids) and all(isinstance(key, int) and key > 0 for key in ids):
        assert made == ids


@pytest.mark.parametrize('orientation', [1, 3, 6])
def test_images_are_turned_as_their_exif_entry_says(tmp_path: Path, orientation: int) -> None:
    picture = Image.new('RGB', (WIDTH, HEIGHT))
    picture.paste((255, 0, 0), (0, 0, WIDTH // 2, HEIGHT // 2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / 'val').mkdir()
    picture.save(tmp_path / 'val' / 'a.jpg', exif=exif, quality=95)
    root = write(tmp_path, [], file_name='a.jpg')
    dataset = CocoDataset(root, 'val')
    if orientation == 6:
        with pytest.raises(ValueError, match=r'is 40 x 50 pixels.*say 50 x 40 .*EXIF'):
            dataset.read_image(0)
        return
    red = dataset.read_image(0)[..., 2] > 128
    turned = red if orientation == 1 else red[::-1, ::-1]
    corner = turned[: HEIGHT // 2, : WIDTH // 2]
    assert corner.mean() > 0.95
    assert red.mean() < 0.3

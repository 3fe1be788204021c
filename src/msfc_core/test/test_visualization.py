"""Pictures of instances."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from msfc.types import Instances
from msfc.visualization import class_colour, draw_instances, label_map

SIZE = (60, 90)


def instances(*boxes, labels=None):
    """Return instances that fill their boxes, best first."""
    masks = torch.zeros(len(boxes), *SIZE, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return Instances(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.linspace(0.9, 0.5, len(boxes)),
        torch.tensor(labels or [0] * len(boxes), dtype=torch.int64),
        masks,
    )


def test_label_map_has_the_best_instance_on_top():
    labels = label_map(instances((10, 10, 40, 40), (30, 30, 60, 50)), SIZE)
    assert labels.dtype == np.uint16
    assert labels.shape == SIZE
    assert labels[0, 0] == 0
    assert labels[35, 35] == 1
    assert labels[45, 50] == 2


def test_nothing_found_leaves_map_and_picture_empty():
    image = np.full((*SIZE, 3), 7, np.uint8)
    assert not label_map(instances(), SIZE).any()
    assert np.array_equal(draw_instances(image, instances(), ['cup']), image)


def test_a_drawn_instance_is_tinted_and_the_image_kept():
    image = np.full((*SIZE, 3), 100, np.uint8)
    before = image.copy()
    picture = draw_instances(image, instances((20, 30, 70, 55), labels=[1]), ['cup', 'ball'])
    assert np.array_equal(image, before)
    assert picture.shape == image.shape
    assert picture.dtype == np.uint8
    tinted = (np.array(class_colour(1)) + 100) // 2
    assert np.abs(picture[48, 60].astype(int) - tinted).max() <= 1
    assert np.array_equal(picture[5, 5], [100, 100, 100])


def test_the_best_instance_is_drawn_on_top():
    image = np.zeros((*SIZE, 3), np.uint8)
    box = (20, 20, 70, 55)
    both = draw_instances(image, instances(box, box, labels=[1, 0]), ['cup', 'ball'])
    distances = [np.abs(both[50, 60] - np.array(class_colour(k)) / 2).sum() for k in (0, 1)]
    assert distances[1] < distances[0]


def test_track_ids_are_drawn_where_known():
    found = instances((10, 20, 80, 55))
    image = np.zeros((*SIZE, 3), np.uint8)
    pictures = [
        draw_instances(image, replace(found, track_ids=ids), ['cup'])
        for ids in (None, torch.tensor([0]), torch.tensor([1]), torch.tensor([2]))
    ]
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[1], pictures[2])
    assert not np.array_equal(pictures[2], pictures[3])


@pytest.mark.parametrize('box', [(0, 0, 4, 3), (85, 55, 90, 60), (0, 0, 90, 60)])
def test_boxes_at_the_border_and_empty_masks_are_drawn(box):
    found = instances(box)
    empty = Instances(found.boxes - 5, found.scores, found.labels, torch.zeros_like(found.masks))
    image = np.zeros((*SIZE, 3), np.uint8)
    assert draw_instances(image, found, ['a class with a rather long name']).any()
    assert draw_instances(image, empty, ['cup']).shape == image.shape


def test_read_only_images_are_drawn_on():
    image = np.zeros((*SIZE, 3), np.uint8)
    image.flags.writeable = False
    assert draw_instances(image, instances((10, 10, 40, 40)), ['cup']).any()


def test_neighbouring_classes_have_different_colours():
    colours = [class_colour(k) for k in range(80)]
    assert len(set(colours)) == len(colours)
    for one, other in pairwise(colours):
        assert max(abs(a - b) for a, b in zip(one, other, strict=True)) > 60

"""Augmentation: what it changes, what it keeps, and what of a scene a camera at fault shows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msfc.data import Example
from msfc.training.augmentation import BLIND, FAULTS, Augmentation, with_fault
from msfc.types import Targets

pytestmark = pytest.mark.usefixtures('one_thread')

HEIGHT, WIDTH = 96, 128
BOXES = [(10, 12, 50, 60), (70, 30, 110, 90), (0, 60, 40, 96)]


def example(boxes=BOXES, level=90):
    """Return an image of bright boxes on a darker ground, each box with its mask."""
    image = torch.full((3, HEIGHT, WIDTH), level, dtype=torch.uint8)
    masks = torch.zeros(len(boxes), HEIGHT, WIDTH, dtype=torch.bool)
    for k, (x1, y1, x2, y2) in enumerate(boxes):
        masks[k, y1:y2, x1:x2] = True
        image[:, y1:y2, x1:x2] = torch.tensor([180 - 30 * k, 120, 60 + 40 * k])[:, None, None]
    labels = torch.arange(len(boxes))
    return Example(7, image, Targets(torch.tensor(boxes).float().reshape(-1, 4), labels, masks))


def same(one, other):
    return torch.equal(one.image, other.image) and all(
        torch.equal(getattr(one.targets, name), getattr(other.targets, name))
        for name in ('boxes', 'labels', 'masks')
    )


def assert_sound(result):
    """Boxes are those of the masks, inside the image, and types are as they were."""
    targets = result.targets
    assert result.image.dtype == torch.uint8
    assert result.image.shape == (3, HEIGHT, WIDTH)
    assert type(result.image) is type(targets.masks) is torch.Tensor
    assert targets.masks.dtype == torch.bool
    assert len(targets.boxes) == len(targets.labels) == len(targets.masks)
    for box, mask in zip(targets.boxes, targets.masks, strict=True):
        rows, columns = torch.where(mask)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert box.tolist() == [float(side) for side in found]


class TestAugmentation:
    def test_none_changes_nothing(self):
        assert same(Augmentation().apply(example(), 3), example())

    @settings(max_examples=30)
    @given(st.integers(0, 2**63 - 1))
    def test_results_are_sound_and_follow_from_the_seed(self, seed):
        augmentation = Augmentation(faults=0.5, colour=0.4, zoom=1.5)
        state = torch.get_rng_state()
        result = augmentation.apply(example(), seed)
        assert torch.equal(torch.get_rng_state(), state)
        assert_sound(result)
        torch.manual_seed(seed % 1000)
        assert same(result, augmentation.apply(example(), seed))

    def test_zoom_moves_masks_with_the_image(self):
        areas = []
        for seed in range(20):
            result = Augmentation(zoom=1.5).apply(example(BOXES[:1]), seed)
            assert_sound(result)
            inside = result.image[0][result.targets.masks[0]].float()
            assert (inside > 150).float().mean() > 0.9
            areas.append(float(result.targets.masks[0].sum()))
        whole = float(example(BOXES[:1]).targets.masks[0].sum())
        assert min(areas) < 0.7 * whole
        assert max(areas) > 1.4 * whole

    def test_an_image_without_objects_stays_without(self):
        augmentation = Augmentation(faults=0.5, colour=0.4, zoom=1.5)
        for seed in range(5):
            result = augmentation.apply(example([]), seed)
            assert_sound(result)
            assert result.targets.masks.shape == (0, HEIGHT, WIDTH)

    def test_a_share_of_the_images_has_faults(self):
        changed = [
            not same(Augmentation(faults=0.3).apply(example(), seed), example())
            for seed in range(200)
        ]
        assert 40 <= sum(changed) <= 80


class TestFaults:
    @pytest.mark.parametrize('fault', FAULTS)
    def test_objects_are_kept_whole_or_left_out(self, fault):
        kept = []
        for seed in range(10):
            result = with_fault(example(), fault, np.random.default_rng(seed))
            assert_sound(result)
            assert not torch.equal(result.image, example().image)
            kept.append(len(result.targets.labels))
        assert (max(kept) == 0) == (fault in BLIND)

    @pytest.mark.parametrize('fault', BLIND)
    def test_blind_cameras_show_nothing_of_the_scene(self, fault):
        one, other = (
            with_fault(scene, fault, np.random.default_rng(5))
            for scene in (example(), example([], level=30))
        )
        assert torch.equal(one.image, other.image)

    def test_what_is_too_dark_or_too_bright_to_see_is_no_target(self):
        dim = dataclasses.replace(example(), image=example().image // 2)
        for fault, scene in (('dark', dim), ('over_exposed', example())):
            counts = {}
            for seed in range(60):
                result = with_fault(scene, fault, np.random.default_rng(seed))
                counts[float(result.image.float().mean())] = len(result.targets.labels)
            extreme = min(counts) if fault == 'dark' else max(counts)
            assert counts[extreme] == 0
            assert max(counts.values()) == len(BOXES)

    def test_unknown_faults_are_refused(self):
        with pytest.raises(ValueError, match="unknown fault 'rain': choose from covered, dark"):
            with_fault(example(), 'rain', np.random.default_rng(0))

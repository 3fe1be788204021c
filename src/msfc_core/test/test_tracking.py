"""Identities over time, on boxes that move as they are told to."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msfc.pipeline.tracking import InstanceTracker, TrackSettings
from msfc.types import Instances

SIZE = (480, 640)
STEP = 100_000_000
"""Nanoseconds between two images."""


def boxes(*places, scores=None, side=60.0):
    """Return instances with square boxes whose left upper corners are at places."""
    corners = torch.tensor(places, dtype=torch.float32).reshape(-1, 2)
    count = len(places)
    return Instances(
        boxes=torch.cat([corners, corners + side], dim=1),
        scores=torch.tensor(scores or [0.9] * count, dtype=torch.float32),
        labels=torch.zeros(count, dtype=torch.int64),
        masks=torch.zeros((count, *SIZE), dtype=torch.bool),
    )


class Camera:
    """Gives a tracker one image after the other."""

    def __init__(self, **values):
        self.tracker = InstanceTracker(TrackSettings(**values))
        self.stamp = 1_000 * STEP

    def see(self, *places, steps=1, size=SIZE, **values):
        """Return the ids in the image of so many steps later."""
        self.stamp += steps * STEP
        found = self.tracker.track(boxes(*places, **values), self.stamp, size)
        return None if found.track_ids is None else found.track_ids.tolist()


def test_objects_keep_their_ids_whatever_their_order():
    camera = Camera()
    assert camera.see((0, 0), (300, 200)) == [0, 0]  # once is not enough
    first = camera.see((5, 0), (300, 205))
    assert sorted(first) == [1, 2]
    for k in range(2, 20):
        places = (5 * k, 0), (300, 200 + 5 * k)
        assert camera.see(*places) == first
        assert camera.see(*places[::-1], steps=0) == first[::-1]


def test_everything_else_of_the_instances_is_kept():
    tracker = InstanceTracker()
    found = boxes((0, 0), (300, 200), scores=[0.9, 0.05])
    tracked = tracker.track(found, STEP, SIZE)
    for name in ('boxes', 'scores', 'labels', 'masks'):
        assert getattr(tracked, name) is getattr(found, name)
    assert tracked.track_ids.dtype == torch.int64


def test_unsure_instances_keep_a_track_but_begin_none():
    camera = Camera(new_score=0.6, high_score=0.5, low_score=0.1)
    camera.see((0, 0))
    (known,) = camera.see((0, 0))
    assert camera.see((2, 0), (300, 0), scores=[0.2, 0.55]) == [known, 0]
    assert camera.see((4, 0), (300, 0), scores=[0.2, 0.55]) == [known, 0]
    assert camera.see((4, 0), scores=[0.05]) == [0]


@pytest.mark.parametrize(('steps', 'same'), [(10, True), (21, False)])
def test_age_is_by_stamps_not_by_frames(steps, same):
    camera = Camera(max_age=2.0)
    camera.see((0, 0))
    (known,) = camera.see((0, 0))
    assert (camera.see((0, 0), steps=steps) == [known]) == same


def test_an_unseen_object_ages_by_stamps_whatever_the_rate():
    for rate in (1, 7):
        camera = Camera(max_age=2.0)
        camera.see((0, 0), (300, 0))
        known, _ = camera.see((0, 0), (300, 0))
        for _ in range(14 // rate):
            camera.see((300, 0), steps=rate)
        assert camera.see((0, 0), (300, 0))[0] == known
        for _ in range(28 // rate):
            camera.see((300, 0), steps=rate)
        assert camera.see((0, 0), (300, 0))[0] != known


def test_motion_is_extrapolated_over_lost_frames():
    """After half a second it has moved by more than its own size."""
    camera = Camera()
    for k in range(8):
        ids = camera.see((12 * k, 0))
    assert camera.see((12 * 13, 0), steps=6) == ids != [0]


@pytest.mark.parametrize('change', ['time', 'size'])
def test_another_time_or_size_begins_anew_without_ids_of_before(change):
    camera = Camera()
    camera.see((0, 0), (300, 0))
    before = camera.see((0, 0), (300, 0))
    size = SIZE
    if change == 'time':
        camera.stamp -= 500 * STEP
    else:
        size = (240, 320)
    assert camera.see((0, 0), (300, 0), size=size) == [0, 0]
    after = camera.see((0, 0), (300, 0), size=size)
    assert min(after) > max(before)


def test_restart_gives_no_id_again():
    camera = Camera(min_hits=1)
    camera.see((0, 0))
    camera.see((0, 0))
    camera.tracker.restart()
    camera.tracker.restart()
    camera.see((0, 0))
    assert camera.see((0, 0)) == [2]


def test_without_stamps_or_switched_off_nothing_is_followed():
    camera = Camera(enabled=False)
    assert camera.see((0, 0)) is None
    assert InstanceTracker().track(boxes((0, 0)), 0, SIZE).track_ids is None


def test_settings_change_live_and_tracks_stay():
    camera = Camera()
    camera.see((0, 0))
    (known,) = camera.see((0, 0))
    camera.tracker.settings = dataclasses.replace(camera.tracker.settings, max_age=10.0)
    assert camera.see((0, 0), steps=60) == [known]


def test_images_without_instances():
    camera = Camera()
    assert camera.see() == []
    camera.see((0, 0))
    (known,) = camera.see((0, 0))
    for _ in range(5):
        assert camera.see() == []
    assert camera.see((0, 0)) == [known]


def test_memory_is_bounded():
    """Wherever instances come up, there are never more tracks than some hundreds."""
    camera = Camera(max_age=3600.0, min_hits=1)
    generator = torch.Generator().manual_seed(0)
    most = 0
    for _ in range(40):
        places = (torch.rand(100, 2, generator=generator) * 4e6).tolist()
        for _ in range(2):
            camera.see(*places)
        most = max(most, camera.tracker.followed)
    assert 100 <= most <= 700


PLACES = st.lists(
    st.tuples(st.floats(0, 580, width=32), st.floats(0, 420, width=32)), max_size=6
)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(PLACES, st.integers(-50, 50)), max_size=8))
def test_ids_of_an_image_differ_and_are_never_taken_back(images):
    """Whatever is seen and however time goes."""
    camera = Camera()
    gone, last, stamp = set(), set(), camera.stamp
    for places, steps in images:
        ids = [k for k in camera.see(*places, steps=steps) if k]
        assert len(set(ids)) == len(ids)
        if camera.stamp < stamp:
            gone |= last
            last = set()
        stamp = camera.stamp
        assert not gone & set(ids)
        last |= set(ids)

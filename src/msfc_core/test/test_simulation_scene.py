import numpy as np
import pytest

from msfc.simulation.objects import CLASS_NAMES
from msfc.simulation.path import Shot
from msfc.simulation.scene import (
    FRAMES_PER_SCENE,
    SPLITS,
    SURFACES,
    TabletopScene,
    frames,
    scene_rng,
)

pytestmark = pytest.mark.usefixtures('drawing')

SIZE = {'width': 160, 'height': 120}

GOLDEN = ['mug', 'donut', 'can', 'donut', 'box', 'bottle', 'bottle']


@pytest.fixture(scope='module')
def scene():
    return list(frames('train', 3, **SIZE))


def test_same_seed_same_pixels_and_annotations(scene):
    again = list(frames('train', 3, **SIZE))
    assert len(scene) == len(again) == FRAMES_PER_SCENE
    for one, other in zip(scene, again, strict=True):
        assert (one.image == other.image).all()
        assert one.labels == other.labels
        assert all((a == b).all() for a, b in zip(one.masks, other.masks, strict=True))


def test_pictures_of_a_scene_differ(scene):
    assert len({frame.image.tobytes() for frame in scene}) == FRAMES_PER_SCENE


def test_annotations_are_sane(scene):
    for frame in scene:
        assert frame.image.shape == (120, 160, 3)
        assert frame.image.dtype == np.uint8
        assert all(0 <= label < len(CLASS_NAMES) for label in frame.labels)
        assert all(mask.shape == (120, 160) and mask.any() for mask in frame.masks)
        # A pixel shows one object.
        assert np.sum(frame.masks, axis=0).max() <= 1


def test_surfaces_agree_with_the_masks(scene):
    seen = set()
    for frame in scene:
        assert frame.surfaces.shape == (120, 160)
        assert frame.surfaces.dtype == np.uint8
        names = np.array(SURFACES)[frame.surfaces]
        assert (names[np.any(frame.masks, axis=0)] == 'object').all()
        seen |= set(names.ravel())
    assert {'table', 'object'} <= seen <= set(SURFACES)


@pytest.mark.parametrize('split', ['val', 'test', 'clip', 'empty_train', 'empty_val'])
def test_splits_differ(scene, split):
    other = next(frames(split, 3, **SIZE))
    assert (other.image != scene[0].image).any()


def test_no_two_scenes_share_a_seed():
    drawn = {scene_rng(split, k).bytes(8) for split in SPLITS for k in range(50)}
    assert len(drawn) == 50 * len(SPLITS)


def test_at_least_ten_classes():
    assert len(set(CLASS_NAMES)) == len(CLASS_NAMES) >= 10


def test_seeds_give_what_they_always_gave():
    """Else WORLD_VERSION has to be raised, and models were trained on another world."""
    scene = TabletopScene(scene_rng('test', 0), **SIZE)
    assert [CLASS_NAMES[label] for label in scene.labels] == GOLDEN


def test_moving_camera():
    shots = [Shot('clip', 7, **SIZE) for _ in range(2)]
    films = [list(shot.frames(3)) for shot in shots]
    for one, other in zip(*films, strict=True):
        assert (one.image == other.image).all()
    # It moves, and each frame has noise of its own.
    first, last = films[0][0], films[0][-1]
    assert any(
        (a != b).any() for a, b in zip(first.masks, last.masks, strict=False)
    ) or len(first.masks) != len(last.masks)


def test_fresh_noise_in_each_frame():
    shot = Shot('clip', 7, **SIZE)
    still = type(shot.arc)(
        lookat=shot.arc.lookat[[0, 0]],
        distance=(shot.arc.distance[0],) * 2,
        azimuth=(shot.arc.azimuth[0],) * 2,
        elevation=(shot.arc.elevation[0],) * 2,
    )
    shot.arc = still
    one, other = shot.frames(2)
    assert (one.image != other.image).any()
    assert np.abs(one.image.astype(float) - other.image).mean() < 20
    assert all((a == b).all() for a, b in zip(one.masks, other.masks, strict=True))

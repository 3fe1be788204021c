from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from msfc.geometry.depth import (
    MaskCrop,
    PointSettings,
    beside_jumps,
    check_same_view,
    depth_in_metres,
    main_interval,
    mask_at_depth,
    object_points,
    pinhole_rays,
    without_border,
)

SIZE = (48, 64)
FOCAL = (60.0, 60.0)
CENTRE = (31.5, 23.5)
RAYS = pinhole_rays(SIZE, FOCAL, CENTRE)
ALL = PointSettings(erode=0)


def crop_of(mask: NDArray[np.bool_]) -> MaskCrop:
    rows, columns = np.nonzero(mask)
    y, x = rows.min(), columns.min()
    return MaskCrop(mask[y : rows.max() + 1, x : columns.max() + 1], int(x), int(y), mask.shape)


def square(top: int = 12, left: int = 20, side: int = 20) -> NDArray[np.bool_]:
    mask = np.zeros(SIZE, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def scene(far: float = 2.0, near: float = 0.5) -> NDArray[np.float32]:
    """A square plate in front of a wall."""
    return np.where(square(), near, far).astype(np.float32)


# -- units --


def test_millimetres_and_metres() -> None:
    whole = np.array([[0, 1, 65535]], np.uint16)
    np.testing.assert_array_equal(
        depth_in_metres(whole), np.array([[np.nan, 0.001, 65.535]], np.float32)
    )
    metres = np.array([[0.0, -1.0, np.nan, np.inf, 0.25]], np.float32)
    np.testing.assert_array_equal(depth_in_metres(metres), [[np.nan] * 4 + [0.25]])
    assert metres[0, 1] == -1.0


@pytest.mark.parametrize('depth', [np.zeros((2, 2), np.int32), np.zeros((2, 2, 1), np.float32)])
def test_what_is_no_depth_image(depth: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match='a depth image'):
        depth_in_metres(depth)


def test_rays_of_a_pinhole() -> None:
    assert RAYS.shape == (*SIZE, 2)
    np.testing.assert_allclose(RAYS[0, 0], [-31.5 / 60, -23.5 / 60], rtol=1e-6)
    np.testing.assert_allclose(RAYS[47, 63], [31.5 / 60, 23.5 / 60], rtol=1e-6)


@pytest.mark.parametrize('focal', [(0.0, 60.0), (60.0, -1.0), (np.nan, 60.0)])
def test_a_camera_that_is_none(focal: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match='finite focal lengths above 0'):
        pinhole_rays(SIZE, focal, CENTRE)


@pytest.mark.parametrize(
    'values', [{'erode': -1}, {'gap': 0.0}, {'min_points': 0}, {'min_depth': 3.0, 'max_depth': 2}]
)
def test_settings_that_make_no_sense(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match='has to be'):
        PointSettings(**values)  # type: ignore[arg-type]


# -- masks at other resolutions --


@given(
    height=st.integers(1, 40), width=st.integers(1, 40), factor=st.integers(1, 4),
    data=st.data(),
)  # fmt: skip
def test_a_mask_at_a_whole_multiple_is_itself_enlarged(
    height: int, width: int, factor: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    full = rng.random((height, width)) < 0.5
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    crop = MaskCrop(full[top:, left:], left, top, (height, width))
    rows, columns, mask = mask_at_depth(crop, (height * factor, width * factor))
    placed = np.zeros((height * factor, width * factor), bool)
    placed[rows, columns] = mask
    expected = np.zeros_like(full)
    expected[top:, left:] = full[top:, left:]
    assert (placed == np.kron(expected, np.ones((factor, factor), bool))).all()


def test_a_mask_at_half_the_resolution() -> None:
    mask = square(12, 20, 20)
    rows, columns, half = mask_at_depth(crop_of(mask), (24, 32))
    assert (rows, columns) == (slice(6, 16), slice(10, 20))
    assert half.all()


def test_a_mask_between_the_depth_pixels_has_none() -> None:
    crop = MaskCrop(np.ones((1, 1), bool), 0, 0, SIZE)
    _, _, mask = mask_at_depth(crop, (12, 16))
    assert mask.size == 0
    assert not len(object_points(np.ones((12, 16), np.float32), RAYS[::4, ::4], crop, ALL))


@pytest.mark.parametrize('depth_size', [(48, 64), (24, 32), (240, 424), (720, 1280)])
def test_sizes_of_one_view(depth_size: tuple[int, int]) -> None:
    image_size = (480, 640) if depth_size[0] < 100 else (360, 640)
    check_same_view(image_size, depth_size)


@pytest.mark.parametrize('depth_size', [(480, 848), (640, 480), (0, 0)])
def test_sizes_of_two_views(depth_size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r'not of the same view|have none'):
        check_same_view((480, 640), depth_size)


@pytest.mark.parametrize(('x', 'y'), [(-1, 0), (0, -1), (61, 0), (0, 45)])
def test_a_mask_outside_of_its_image(x: int, y: int) -> None:
    with pytest.raises(ValueError, match='a mask reaches to'):
        MaskCrop(np.ones((4, 4), bool), x, y, SIZE)


# -- borders --


def test_the_border_is_left_out() -> None:
    mask = np.ones((20, 30), bool)
    assert without_border(mask, 2).sum() == 16 * 26
    assert without_border(mask, 0) is mask


def test_less_is_left_out_of_thin_objects() -> None:
    thin = np.ones((4, 50), bool)
    assert without_border(thin, 2).sum() == thin.sum()
    assert without_border(np.ones((8, 50), bool), 2).sum() == 6 * 48
    assert without_border(np.ones((20, 20), bool), 2, least=300).sum() == 18 * 18


def test_an_object_goes_on_beyond_the_image() -> None:
    mask = np.ones((20, 30), bool)
    inner = without_border(mask, 2, touches=((True, False), (False, True)))
    assert inner[:18, 2:].all()
    assert inner.sum() == 18 * 28


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_eroded_as_opencv_does(seed: int, radius: int) -> None:
    import cv2

    mask = np.random.default_rng(seed).random((12, 17)) < 0.97
    found = without_border(mask, radius, least=0)
    kernels = [np.ones((2 * r + 1, 2 * r + 1), np.uint8) for r in range(radius, -1, -1)]
    expected = [
        cv2.erode(mask.astype(np.uint8), k, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        for k in kernels
    ]
    assert any((found == other).all() for other in expected)


# -- depth --


def test_a_plate_before_a_wall() -> None:
    points = object_points(scene(), RAYS, crop_of(square()), PointSettings(erode=2))
    assert points.dtype == np.float32
    assert len(points) == 16 * 16
    np.testing.assert_allclose(points[:, 2], 0.5)
    # 20 columns from 20 on, two less at either end: pixels 22 to 37.
    np.testing.assert_allclose(points[:, 0].min(), (22 - 31.5) / 60 * 0.5, rtol=1e-5)
    np.testing.assert_allclose(points[:, 0].max(), (37 - 31.5) / 60 * 0.5, rtol=1e-5)


def test_a_mask_and_not_its_box_chooses() -> None:
    triangle = np.tril(np.ones((20, 20), bool))
    mask = np.zeros(SIZE, bool)
    mask[12:32, 20:40] = triangle
    depth = np.where(mask, 0.5, 0.51).astype(np.float32)
    points = object_points(depth, RAYS, crop_of(mask), ALL)
    assert len(points) == triangle.sum()
    assert set(points[:, 2].tolist()) == {0.5}


@pytest.mark.parametrize('wall', [0.8, 2.0, 9.0])
def test_a_mask_that_is_too_large(wall: float) -> None:
    mask = square(8, 16, 28)
    points = object_points(scene(far=wall), RAYS, crop_of(mask), ALL)
    # Of the plate without what is beside the jump.
    assert len(points) == 18 * 18
    assert points[:, 2].max() == pytest.approx(0.5)


def test_something_before_the_object() -> None:
    depth = scene()
    depth[20:23] = 0.3
    points = object_points(depth, RAYS, crop_of(square()), ALL)
    assert set(points[:, 2].tolist()) == {0.5}


def test_mixed_pixels_between_object_and_wall() -> None:
    depth = scene()
    rng = np.random.default_rng(0)
    edge = square() ^ np.pad(square()[13:31, 21:39], ((13, 17), (21, 25)))
    depth[edge] = rng.uniform(0.5, 2.0, edge.sum())
    points = object_points(depth, RAYS, crop_of(square()), ALL)
    assert len(points) > 200
    assert (points[:, 2] == 0.5).mean() > 0.98
    assert points[:, 2].max() < 0.53


@given(st.floats(0.0, 0.6), st.integers(0, 2**32 - 1), st.sampled_from([np.nan, 0.0, np.inf]))
def test_holes(share: float, seed: int, nothing: float) -> None:
    depth = scene()
    depth[np.random.default_rng(seed).random(SIZE) < share] = nothing
    points = object_points(depth_in_metres(depth), RAYS, crop_of(square()), ALL)
    assert np.isfinite(points).all()
    assert (points[:, 2] == 0.5).all()
    assert len(points) > 100


def test_no_depth_at_all() -> None:
    depth = np.full(SIZE, np.nan, np.float32)
    assert object_points(depth, RAYS, crop_of(square()), ALL).shape == (0, 3)


@pytest.mark.parametrize(
    'settings',
    [PointSettings(min_depth=0.6), PointSettings(max_depth=0.4), PointSettings(min_points=401)],
)
def test_too_near_too_far_too_few(settings: PointSettings) -> None:
    depth = np.full(SIZE, 0.5, np.float32)
    assert not len(object_points(depth, RAYS, crop_of(square()), settings))


def test_rays_of_another_image() -> None:
    with pytest.raises(ValueError, match='are not those of a depth image'):
        object_points(np.ones((24, 32), np.float32), RAYS, crop_of(square()), ALL)


def test_a_tilted_surface_is_one_thing() -> None:
    depth = np.broadcast_to(np.linspace(0.4, 0.9, SIZE[1], dtype=np.float32), SIZE)
    points = object_points(depth, RAYS, crop_of(square()), ALL)
    assert len(points) == 400


def test_jumps_are_marked_on_both_sides() -> None:
    depth = np.array([[1.0, 1.01, 2.0, np.nan, 5.0]], np.float32)
    assert beside_jumps(depth, 0.03).tolist() == [[False, True, True, False, False]]
    assert beside_jumps(depth.T, 0.03).T.tolist() == [[False, True, True, False, False]]


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 5.0), st.floats(1.2, 5.0))
def test_the_larger_of_two_clusters(seed: int, near: float, ratio: float) -> None:
    rng = np.random.default_rng(seed)
    one = near * (1 + 0.01 * rng.random(600))
    other = near * ratio * (1 + 0.01 * rng.random(200))
    depths = rng.permutation(np.concatenate([one, other])).astype(np.float32)
    low, high = main_interval(depths, 0.03)
    assert low == pytest.approx(one.min(), rel=1e-6)
    assert high == pytest.approx(one.max(), rel=1e-6)


@given(st.lists(st.floats(0.125, 100, width=32), min_size=1, max_size=50), st.floats(0.001, 1))
def test_an_interval_holds_a_depth(depths: list[float], gap: float) -> None:
    values = np.array(depths, np.float32)
    low, high = main_interval(values, gap)
    assert values.min() <= low <= high <= values.max()
    assert ((values >= low) & (values <= high)).any()

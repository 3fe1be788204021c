from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from msfc.geometry.boxes import OrientedBox, horizontal_basis, smallest_box, upright_box
from msfc.geometry.depth import MaskCrop, PointSettings, pinhole_rays
from msfc.geometry.objects import LocatedObject, locate_objects
from msfc.geometry.transforms import (
    RigidTransform,
    matrix_to_quaternion,
    quaternion_to_matrix,
)

COMPONENT = st.floats(-1, 1)
DIRECTION = st.tuples(COMPONENT, COMPONENT, COMPONENT).filter(lambda v: np.linalg.norm(v) > 0.1)
ROTATION = st.tuples(COMPONENT, COMPONENT, COMPONENT, COMPONENT).filter(
    lambda q: np.linalg.norm(q) > 0.1
)


def filled(size: tuple[float, float, float]) -> NDArray[np.float64]:
    """Points that fill a box around 0."""
    grid = [np.linspace(-side / 2, side / 2, 9) for side in size]
    return np.stack(np.meshgrid(*grid), axis=-1).reshape(-1, 3)


def heading(angle: float) -> NDArray[np.float64]:
    return np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )


@pytest.mark.parametrize('make', [upright_box, smallest_box])
@settings(max_examples=25, deadline=None)
@given(
    up=DIRECTION, angle=st.floats(-3, 3), middle=st.tuples(*[st.floats(-5, 5)] * 3),
    sides=st.tuples(st.floats(0.5, 1.0), st.floats(0.05, 0.4), st.floats(0.05, 1.0)),
)  # fmt: skip
def test_a_box_is_found_again(make, up, angle, middle, sides) -> None:  # type: ignore[no-untyped-def]
    turn = horizontal_basis(up) @ heading(angle)
    box = make(filled(sides) @ turn.T + middle, up, 0.0)
    np.testing.assert_allclose(box.centre, middle, atol=0.01)
    np.testing.assert_allclose(box.size, sides, atol=0.02)
    np.testing.assert_allclose(box.rotation @ box.rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(box.rotation) == pytest.approx(1)
    np.testing.assert_allclose(box.rotation[:, 2], np.array(up) / np.linalg.norm(up), atol=1e-9)
    # The long side lies as it should, one way or the other.
    assert abs(box.rotation[:, 0] @ turn[:, 0]) > np.cos(np.deg2rad(1))


@settings(max_examples=25, deadline=None)
@given(up=DIRECTION, seed=st.integers(0, 2**32 - 1), count=st.integers(1, 200))
def test_all_points_are_inside_unless_trimmed(up, seed, count) -> None:  # type: ignore[no-untyped-def]
    points = np.random.default_rng(seed).normal(size=(count, 3))
    for make in (upright_box, smallest_box):
        box = make(points, up, 0.0)
        inside = np.abs((points - box.centre) @ box.rotation) <= box.size / 2 + 1e-9
        assert inside.all()
        assert box.size[0] >= box.size[1] >= 0
        trimmed = make(points, up, 0.1)
        assert (trimmed.size <= box.size[[0, 0, 2]] + 1e-9).all()


def test_the_smallest_box_is_no_larger() -> None:
    points = filled((0.3, 0.2, 0.1))[:300] @ heading(0.3).T
    upright, smallest = upright_box(points, (0, 0, 1), 0.0), smallest_box(points, (0, 0, 1))
    assert np.prod(smallest.size[:2]) <= np.prod(upright.size[:2]) + 1e-9


def test_few_outliers_do_not_count() -> None:
    points = np.concatenate([filled((0.4, 0.2, 0.1)), [[3.0, 0, 0], [0, 0, -3.0]]])
    assert upright_box(points, (0, 0, 1), 0.01).size == pytest.approx([0.4, 0.2, 0.1], abs=0.02)


def test_what_is_round_has_no_direction() -> None:
    around = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    points = np.stack([np.cos(around), np.sin(around), np.zeros(100)], axis=1)
    rng = np.random.default_rng(0)
    for _ in range(5):
        box = upright_box(points + rng.normal(0, 0.01, points.shape), (0, 0, 1), 0.0)
        assert abs(box.rotation[0, 0]) == pytest.approx(1) or abs(box.rotation[1, 0]) == (
            pytest.approx(1)
        )


def test_one_point() -> None:
    box = upright_box([[1.0, 2.0, 3.0]], (0, -1, 0))
    assert box.centre == pytest.approx([1, 2, 3])
    assert box.size == pytest.approx([0, 0, 0])


@pytest.mark.parametrize('up', [(0, 0, 0), (np.nan, 0, 1), (0, 1), (np.inf, 0, 0)])
def test_up_that_is_no_direction(up: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match='does not tell where up is'):
        upright_box([[0.0, 0.0, 1.0]], up)


@pytest.mark.parametrize('points', [np.zeros((0, 3)), np.zeros((2, 2)), [[0, 0, np.nan]]])
def test_points_that_are_none(points: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match='a box is around'):
        upright_box(points, (0, 0, 1))


def test_corners() -> None:
    box = OrientedBox(np.array([1.0, 0, 0]), np.array([2.0, 4.0, 6.0]), np.eye(3))
    corners = box.corners()
    assert corners.min(0).tolist() == [0, -2, -3]
    assert corners.max(0).tolist() == [2, 2, 3]


# -- rotations --


@given(ROTATION)
def test_a_quaternion_and_back(quaternion: tuple[float, ...]) -> None:
    matrix = quaternion_to_matrix(quaternion)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-9)
    again = matrix_to_quaternion(matrix)
    unit = np.array(quaternion) / np.linalg.norm(quaternion)
    assert abs(again @ unit) == pytest.approx(1, abs=1e-6)
    assert again[3] >= 0


def test_a_known_quaternion() -> None:
    half = np.sqrt(0.5)
    # A quarter turn about z takes x to y.
    assert quaternion_to_matrix((0, 0, half, half)) @ [1, 0, 0] == pytest.approx([0, 1, 0])
    transform = RigidTransform.from_quaternion((0, 0, half, half), (1, 2, 3))
    assert transform.apply([[1, 0, 0]])[0] == pytest.approx([1, 3, 3])


@pytest.mark.parametrize('quaternion', [(0, 0, 0, 0), (np.nan, 0, 0, 1), (0, 0, 1)])
def test_a_quaternion_that_is_none(quaternion: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match='is no rotation'):
        quaternion_to_matrix(quaternion)


# -- objects --


def plates() -> tuple[NDArray[np.float32], list[MaskCrop]]:
    """Two plates at 0.5 and 1 m, and a mask over nothing."""
    depth = np.full((48, 64), np.nan, np.float32)
    depth[10:30, 5:25], depth[10:40, 35:60] = 0.5, 1.0
    size = (48, 64)
    return depth, [
        MaskCrop(np.ones((20, 20), bool), 5, 10, size),
        MaskCrop(np.ones((8, 64), bool), 0, 40, size),
        MaskCrop(np.ones((30, 25), bool), 35, 10, size),
    ]


def test_objects_without_depth_are_left_out() -> None:
    depth, crops = plates()
    rays = pinhole_rays((48, 64), (60, 60), (31.5, 23.5))
    settings = PointSettings(erode=0)
    found = list(locate_objects(depth, rays, crops, settings, (0, -1, 0), 0.0))
    assert [place.index for place in found] == [0, 2]
    assert [float(place.box.centre[2]) for place in found] == pytest.approx([0.5, 1.0])
    # 25 columns at 1 m: 24 / 60 m between the outer ones.
    assert found[1].box.size == pytest.approx([24 / 60, 0, 29 / 60], abs=1e-6)


def test_in_another_frame() -> None:
    depth, crops = plates()
    rays = pinhole_rays((48, 64), (60, 60), (31.5, 23.5))
    # The camera looks along the frame's x, one metre above its origin.
    rotation = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    transform = RigidTransform(rotation, np.array([0, 0, 1.0]))
    (near, _) = locate_objects(
        depth, rays, crops, PointSettings(erode=0), (0, 0, 1), 0.0, transform
    )
    assert near.box.centre[0] == pytest.approx(0.5)
    assert near.points[:, 0] == pytest.approx(0.5)
    assert near.box.size[2] == pytest.approx(19 / 60 * 0.5)


@given(st.integers(1, 500), st.integers(1, 600))
def test_points_are_taken_evenly(count: int, most: int) -> None:
    points = np.arange(3 * count, dtype=np.float32).reshape(count, 3)
    box = upright_box(points, (0, 0, 1))
    thinned = LocatedObject(0, points, box).thinned(most)
    assert 0 < len(thinned) <= most
    assert 2 * len(thinned) >= min(count, most)

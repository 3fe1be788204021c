"""Upright boxes around points: one axis is vertical, the others follow the points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msfc.geometry.transforms import matrix_to_quaternion

ROUND = 1.1
"""Ratio of a footprint's spreads up to which it counts as round, and has no direction."""

TURNS = 180
"""Directions that are tried in a quarter turn for the smallest footprint."""


@dataclass(frozen=True)
class OrientedBox:
    """A box with one vertical axis.

    Attributes:
        centre: 3, in metres.
        size: 3, in metres along its axes: the longer horizontal one, the other one, the height.
        rotation: 3 x 3, whose columns are these axes in the frame of the points, right-handed.
    """

    centre: NDArray[np.float64]
    size: NDArray[np.float64]
    rotation: NDArray[np.float64]

    @property
    def quaternion(self) -> NDArray[np.float64]:
        """Its orientation as x, y, z, w."""
        return matrix_to_quaternion(self.rotation)

    def corners(self) -> NDArray[np.float64]:
        """Return its corners, 8 x 3."""
        signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
        return self.centre + (signs * self.size / 2) @ self.rotation.T


def upright_box(points: ArrayLike, up: ArrayLike, trim: float = 0.002) -> OrientedBox:
    """Return an upright box around points, turned as their principal axis lies.

    The axis is that of the points as seen from above (PCA); points that look alike from all
    sides have none, and the box then lies along the frame's x axis (y, where that is vertical).

    Args:
        points: N x 3 in metres, N 1 or more.
        up: 3, what points up in their frame, of any length.
        trim: part of the points that is left outside at either end of each axis.

    Raises:
        ValueError: if there is no point, one is not finite, or ``up`` has no direction.
    """
    cloud = _checked(points)
    basis = horizontal_basis(up)
    flat = (cloud - cloud.mean(0)) @ basis[:, :2]
    spreads, axes = np.linalg.eigh(flat.T @ flat / len(flat))
    main = axes[:, 1] if spreads[1] > ROUND**2 * spreads[0] else np.array([1.0, 0.0])
    return _box(cloud, basis, np.arctan2(main[1], main[0]), trim)


def smallest_box(points: ArrayLike, up: ArrayLike, trim: float = 0.0) -> OrientedBox:
    """Return the upright box with the smallest footprint, to half a degree.

    Args:
        points: N x 3 in metres, N 1 or more.
        up: 3, what points up in their frame, of any length.
        trim: part of the points that is left outside at either end of each axis.

    Raises:
        ValueError: if there is no point, one is not finite, or ``up`` has no direction.
    """
    cloud = _checked(points)
    basis = horizontal_basis(up)
    flat = (cloud - cloud.mean(0)) @ basis[:, :2]
    angles = np.arange(TURNS) * (np.pi / 2 / TURNS)
    areas = np.ones(TURNS)
    for direction in (
        np.stack([np.cos(angles), np.sin(angles)]),
        np.stack([-np.sin(angles), np.cos(angles)]),
    ):
        low, high = np.quantile(flat @ direction, [trim, 1 - trim], axis=0)
        areas *= high - low
    return _box(cloud, basis, float(angles[np.argmin(areas)]), trim)


def horizontal_basis(up: ArrayLike) -> NDArray[np.float64]:
    """Return 3 x 3 whose columns are two horizontal directions and ``up``, right-handed.

    The first is the frame's x axis as far as that is horizontal, or y where x is vertical.

    Raises:
        ValueError: if ``up`` has no direction.
    """
    vertical = np.asarray(up, np.float64)
    length = np.linalg.norm(vertical) if vertical.shape == (3,) else 0.0
    if not np.isfinite(length) or length < 1e-9:
        raise ValueError(f'{np.asarray(up).tolist()} does not tell where up is: give a direction')
    vertical = vertical / length
    axis = np.array([1.0, 0.0, 0.0]) if abs(vertical[0]) < 0.9 else np.array([0.0, 1.0, 0.0])
    first = axis - vertical * (axis @ vertical)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(vertical, first), vertical], axis=1)


def _checked(points: ArrayLike) -> NDArray[np.float64]:
    cloud = np.asarray(points, np.float64)
    if cloud.ndim != 2 or cloud.shape[1] != 3 or not len(cloud):
        raise ValueError(f'a box is around N x 3 points, N 1 or more, not {cloud.shape}')
    if not np.isfinite(cloud).all():
        raise ValueError('a box is around finite points')
    return cloud


def _box(
    cloud: NDArray[np.float64], basis: NDArray[np.float64], angle: float, trim: float
) -> OrientedBox:
    """Return the box of a heading, turned so that its first side is the longer one."""
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = basis @ np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    low, high = np.quantile(cloud @ rotation, [trim, 1 - trim], axis=0)
    size, middle = high - low, (low + high) / 2
    centre = rotation @ middle
    first, second, vertical = rotation.T
    if size[1] > size[0]:
        size = size[[1, 0, 2]]
        first, second = second, -first
    # Of the two ways that an axis can point, always the same.
    if first @ basis[:, 0] < -1e-9:
        first, second = -first, -second
    return OrientedBox(centre, size, np.stack([first, second, vertical], axis=1))

"""Rotations and rigid transforms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class RigidTransform:
    """What takes the coordinates of one frame to those of another.

    Attributes:
        rotation: 3 x 3.
        translation: 3, in metres.
    """

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]

    @classmethod
    def from_quaternion(cls, quaternion: ArrayLike, translation: ArrayLike) -> RigidTransform:
        """Make one as messages have it.

        Args:
            quaternion: x, y, z, w.
            translation: x, y, z in metres.

        Raises:
            ValueError: if the quaternion is none.
        """
        return cls(quaternion_to_matrix(quaternion), np.asarray(translation, np.float64))

    def apply(self, points: ArrayLike) -> NDArray[np.float64]:
        """Return points in the other frame, N x 3."""
        return np.asarray(points, np.float64) @ self.rotation.T + self.translation


def quaternion_to_matrix(quaternion: ArrayLike) -> NDArray[np.float64]:
    """Return the rotation of a quaternion x, y, z, w of any length, 3 x 3.

    Raises:
        ValueError: if it is zero or not finite.
    """
    values = np.asarray(quaternion, np.float64)
    length = np.linalg.norm(values)
    if values.shape != (4,) or not np.isfinite(length) or length < 1e-9:
        raise ValueError(f'{values.tolist()} is no rotation')
    x, y, z, w = values / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def matrix_to_quaternion(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the quaternion x, y, z, w of a rotation, of length 1 and with w 0 or more.

    It is the eigenvector of the largest eigenvalue of a symmetric matrix (Bar-Itzhack, "New
    method for extracting the quaternion from a rotation matrix", 2000), which has no special
    cases.

    Args:
        rotation: 3 x 3, orthonormal and right-handed.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    symmetric = np.array(
        [
            [xx - yy - zz, yx + xy, zx + xz, zy - yz],
            [yx + xy, yy - xx - zz, zy + yz, xz - zx],
            [zx + xz, zy + yz, zz - xx - yy, yx - xy],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    quaternion = np.linalg.eigh(symmetric)[1][:, -1]
    return -quaternion if quaternion[3] < 0 else quaternion

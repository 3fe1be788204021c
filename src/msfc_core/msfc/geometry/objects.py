"""Objects in metres: the points under each mask and the box around them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msfc.geometry.boxes import OrientedBox, upright_box
from msfc.geometry.depth import MaskCrop, PointSettings, object_points
from msfc.geometry.transforms import RigidTransform


@dataclass(frozen=True)
class LocatedObject:
    """An object that has depth.

    Attributes:
        index: which of the masks it is, from 0.
        points: N x 3 in metres, of its visible surface.
        box: the upright box around them.
    """

    index: int
    points: NDArray[np.float32]
    box: OrientedBox

    def thinned(self, most: int) -> NDArray[np.float32]:
        """Return at most so many of its points, evenly taken; ``most`` is 1 or more."""
        return self.points[:: max(1, -(-len(self.points) // most))]


def locate_objects(
    depth: NDArray[np.float32],
    rays: NDArray[np.float32],
    crops: Sequence[MaskCrop],
    settings: PointSettings,
    up: ArrayLike,
    trim: float = 0.002,
    transform: RigidTransform | None = None,
) -> Iterator[LocatedObject]:
    """Yield the objects that have depth, in the order of their masks.

    Args:
        depth: h x w in metres, NaN where there is none, of the view of the camera image.
        rays: h x w x 2, see :func:`msfc.geometry.depth.pinhole_rays`.
        crops: the objects' masks.
        settings: which depth pixels count.
        up: 3, what points up in the frame of the result.
        trim: part of the points that is left outside at either end of each axis of a box.
        transform: from the optical frame to that of the result; None stays in it.

    Raises:
        ValueError: if a mask is not of the same view as the depth image, or ``up`` has no
            direction.
    """
    for index, crop in enumerate(crops):
        points = object_points(depth, rays, crop, settings)
        if not len(points):
            continue
        if transform is not None:
            points = transform.apply(points).astype(np.float32)
        yield LocatedObject(index, points, upright_box(points, up, trim))

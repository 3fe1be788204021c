"""The points of an object: the depth pixels that its mask chooses, without what is not the object.

A mask is never right to the pixel, and a depth camera has no value at some pixels and a mean of
near and far at the edges of things. So the mask's border is left out, so are jumps of depth, and
of what is left the depths that lie together and are most count as the object's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfc.types import Size

MILLIMETRES = 1000.0
"""Units of a 16-bit depth image in a metre (REP 118)."""

ASPECT_TOLERANCE = 0.02
"""Part by which the shapes of two images of the same view may differ, through rounding."""

LEAST_LEFT = 0.5
"""Part of a mask that has to be left without its border; of thin objects less is taken off."""

SPARSE = 0.002
"""Part of an object's points up to which an interval of depth counts as empty."""

MOST_BINS = 4096
"""Intervals of depth at most, whatever the gap is."""


@dataclass(frozen=True)
class PointSettings:
    """What of the depth pixels under a mask counts as the object.

    Attributes:
        erode: pixels of the depth image that are left out along the border of the mask.
        gap: jump of depth, as a part of the depth, that separates two things.
        min_depth: depths in metres below it are none.
        max_depth: depths in metres beyond it are none.
        min_points: an object with fewer points has none.

    Raises:
        ValueError: if a value makes no sense.
    """

    erode: int = 2
    gap: float = 0.03
    min_depth: float = 0.1
    max_depth: float = 10.0
    min_points: int = 20

    def __post_init__(self) -> None:
        if self.erode < 0 or self.gap <= 0 or self.min_points < 1:
            raise ValueError('erode has to be 0 or more, gap above 0, min_points 1 or more')
        if not 0 <= self.min_depth < self.max_depth:
            raise ValueError(
                f'min_depth {self.min_depth:g} m has to be 0 or more and below max_depth '
                f'{self.max_depth:g} m'
            )


@dataclass(frozen=True)
class MaskCrop:
    """An object's mask as the messages carry it: cropped to its box in the camera image.

    Attributes:
        mask: height x width bool, the pixels of the box.
        x: column of the box's left edge.
        y: row of its upper edge.
        image_size: height and width of the camera image in pixels.

    Raises:
        ValueError: if the box leaves the image.
    """

    mask: NDArray[np.bool_]
    x: int
    y: int
    image_size: Size

    def __post_init__(self) -> None:
        height, width = self.mask.shape
        bottom, right = self.y + height, self.x + width
        if min(self.x, self.y) < 0 or bottom > self.image_size[0] or right > self.image_size[1]:
            raise ValueError(
                f'a mask reaches to column {right}, row {bottom} of an image of '
                f'{self.image_size[1]} x {self.image_size[0]} pixels'
            )


def depth_in_metres(depth: NDArray[Any]) -> NDArray[np.float32]:
    """Return a depth image in metres, NaN where nothing was measured.

    Args:
        depth: H x W, uint16 in millimetres with 0 for nothing, or floating point in metres with
            NaN, infinity, 0 or less for nothing (REP 118).

    Raises:
        ValueError: if it has another shape or type.
    """
    if depth.ndim != 2:
        raise ValueError(f'a depth image is H x W, not {depth.shape}')
    if depth.dtype == np.uint16:
        metres = depth.astype(np.float32) / np.float32(MILLIMETRES)
    elif np.issubdtype(depth.dtype, np.floating):
        metres = depth.astype(np.float32)
    else:
        raise ValueError(
            f'a depth image has uint16 millimetres or floating point metres, not {depth.dtype}'
        )
    metres[~(np.isfinite(metres) & (metres > 0))] = np.nan
    return metres


def pinhole_rays(
    size: Size, focal: tuple[float, float], centre: tuple[float, float]
) -> NDArray[np.float32]:
    """Return where the pixels of an ideal camera look, as x / z and y / z.

    Args:
        size: height and width of its image in pixels.
        focal: focal lengths fx and fy in pixels.
        centre: principal point cx and cy; pixel centres have whole coordinates.

    Returns:
        H x W x 2.

    Raises:
        ValueError: if a focal length is not above 0 or a value is not finite.
    """
    if not np.isfinite([*focal, *centre]).all() or min(focal) <= 0:
        raise ValueError(
            f'a camera has finite focal lengths above 0, not fx {focal[0]:g}, fy {focal[1]:g} '
            f'with cx {centre[0]:g}, cy {centre[1]:g}'
        )
    height, width = size
    rays = np.empty((height, width, 2), np.float32)
    rays[..., 0] = (np.arange(width) - centre[0]) / focal[0]
    rays[..., 1] = (np.arange(height)[:, None] - centre[1]) / focal[1]
    return rays


def object_points(
    depth: NDArray[np.float32],
    rays: NDArray[np.float32],
    crop: MaskCrop,
    settings: PointSettings,
) -> NDArray[np.float32]:
    """Return the points of an object's visible surface.

    Args:
        depth: h x w, in metres, NaN where there is none, of the view of the camera image; its
            resolution may be another.
        rays: h x w x 2, where the depth pixels look, see :func:`pinhole_rays`.
        crop: the object's mask.
        settings: what counts as the object.

    Returns:
        N x 3 in metres in the optical frame, in row order of their pixels. None where they are
        fewer than ``min_points``.

    Raises:
        ValueError: if depth and camera image have different shapes, so that they are not of the
            same view, or the rays are not those of the depth image.
    """
    if rays.shape != (*depth.shape, 2):
        raise ValueError(f'rays of {rays.shape} are not those of a depth image of {depth.shape}')
    height, width = depth.shape
    rows, columns, mask = mask_at_depth(crop, (height, width))
    nothing = np.empty((0, 3), np.float32)
    if not mask.any():
        return nothing
    touches = (
        (rows.start == 0, rows.stop == height),
        (columns.start == 0, columns.stop == width),
    )
    inner = without_border(mask, settings.erode, settings.min_points, touches)
    z = np.where(inner, depth[rows, columns], np.nan)
    with np.errstate(invalid='ignore'):
        z[~((z >= settings.min_depth) & (z <= settings.max_depth))] = np.nan
    z[beside_jumps(z, settings.gap)] = np.nan
    chosen = np.isfinite(z)
    values = z[chosen]
    if values.size < settings.min_points:
        return nothing
    near, far = main_interval(values, settings.gap)
    chosen[chosen] = (values >= near) & (values <= far)
    if chosen.sum() < settings.min_points:
        return nothing
    z = z[chosen][:, None]
    return np.concatenate([rays[rows, columns][chosen] * z, z], axis=1)


def mask_at_depth(
    crop: MaskCrop, depth_size: Size
) -> tuple[slice, slice, NDArray[np.bool_]]:
    """Return a mask at the pixels of a depth image of the same view.

    A depth pixel belongs to the object if the pixel of the camera image at its centre does.

    Args:
        crop: the mask.
        depth_size: height and width of the depth image in pixels.

    Returns:
        Rows and columns of the depth image, and the mask there.

    Raises:
        ValueError: if the two images have different shapes.
    """
    check_same_view(crop.image_size, depth_size)
    places, chosen = [], []
    for start, length, full, size in zip(
        (crop.y, crop.x), crop.mask.shape, crop.image_size, depth_size, strict=True
    ):
        # In whole numbers, so that equal sizes give every pixel itself.
        at = (2 * np.arange(size) + 1) * full // (2 * size)
        inside = np.flatnonzero((at >= start) & (at < start + length))
        first = int(inside[0]) if inside.size else 0
        places.append(slice(first, first + inside.size))
        chosen.append(at[inside] - start)
    return places[0], places[1], crop.mask[np.ix_(*chosen)]


def check_same_view(image_size: Size, depth_size: Size) -> None:
    """Check that a depth image can be of the same view as a camera image.

    Args:
        image_size: height and width of the camera image in pixels.
        depth_size: height and width of the depth image in pixels.

    Raises:
        ValueError: if they have different shapes.
    """
    (height, width), (rows, columns) = image_size, depth_size
    if min(height, width, rows, columns) < 1:
        raise ValueError(f'images of {width} x {height} and {columns} x {rows} pixels have none')
    # Half a pixel of either side is rounding.
    slack = ASPECT_TOLERANCE + 0.5 / min(rows, columns)
    if abs((columns * height) / (rows * width) - 1) > slack:
        raise ValueError(
            f'a depth image of {columns} x {rows} pixels is not of the same view as a camera '
            f'image of {width} x {height}: publish the depth registered to the camera'
        )


def without_border(
    mask: NDArray[np.bool_],
    pixels: int,
    least: int = 1,
    touches: tuple[tuple[bool, bool], tuple[bool, bool]] = ((False, False), (False, False)),
) -> NDArray[np.bool_]:
    """Return a mask without a border; less is taken off where too little would be left.

    Args:
        mask: H x W.
        pixels: width of the border.
        least: pixels that have to be left, beside the part :data:`LEAST_LEFT`.
        touches: whether the mask's first and last row, then column, are the image's: the object
            goes on there, and has no border.
    """
    least = max(least, int(np.ceil(LEAST_LEFT * mask.sum())))
    for radius in range(pixels, 0, -1):
        inner = mask
        for axis, (first, last) in enumerate(touches):
            inner = _erode(inner, radius, axis, first, last)
        if inner.sum() >= least:
            return inner
    return mask


def _erode(
    mask: NDArray[np.bool_], radius: int, axis: int, first: bool, last: bool
) -> NDArray[np.bool_]:
    """Erode along an axis; an end that is the image's repeats its pixels."""
    lines = np.moveaxis(mask, axis, 0)
    ends = [
        np.repeat(line, radius, axis=0) if repeated else np.zeros_like(line).repeat(radius, axis=0)
        for line, repeated in ((lines[:1], first), (lines[-1:], last))
    ]
    padded = np.concatenate([ends[0], lines, ends[1]])
    length = len(lines)
    inner = padded[:length].copy()
    for shift in range(1, 2 * radius + 1):
        inner &= padded[shift : shift + length]
    return np.moveaxis(inner, 0, axis)


def beside_jumps(depth: NDArray[np.float32], gap: float) -> NDArray[np.bool_]:
    """Return which pixels differ from a neighbour's depth by a jump: mixed ones are among them.

    Args:
        depth: H x W in metres; NaN is no neighbour.
        gap: difference of neighbours, as a part of the nearer one's depth, that is a jump.
    """
    found = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        # Views, so that what is set in them is set in the result.
        lines, marks = np.moveaxis(depth, axis, 0), np.moveaxis(found, axis, 0)
        one, other = lines[:-1], lines[1:]
        with np.errstate(invalid='ignore'):
            jumps = np.abs(one - other) > gap * np.minimum(one, other)
        marks[:-1] |= jumps
        marks[1:] |= jumps
    return found


def main_interval(depths: NDArray[np.float32], gap: float) -> tuple[float, float]:
    """Return the nearest and farthest of the depths that lie together and are most.

    Args:
        depths: N in metres, N 1 or more.
        gap: width of an interval without depths, as a part of the median depth, that separates.
    """
    nearest, farthest = float(depths.min()), float(depths.max())
    width = max(gap * float(np.median(depths)) / 2, (farthest - nearest) / MOST_BINS)
    if width <= 0:
        return nearest, farthest
    bins = ((depths - nearest) / width).astype(np.int64)
    counts = np.bincount(bins)
    # Where each alone would count as empty, all do.
    occupied = np.flatnonzero(counts > min(SPARSE * depths.size, counts.max() - 1))
    # Two empty intervals in a row are a gap.
    groups = np.split(occupied, np.flatnonzero(np.diff(occupied) > 2) + 1)
    largest = max(groups, key=lambda group: counts[group].sum())
    inside = depths[(bins >= largest[0]) & (bins <= largest[-1])]
    return float(inside.min()), float(inside.max())

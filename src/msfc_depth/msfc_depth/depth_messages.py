"""Depth images and their calibration, from messages to arrays. Nothing of a message is trusted."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from msfc_msgs.msg import Instance
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image

from msfc.geometry.depth import MaskCrop, depth_in_metres, pinhole_rays
from msfc.types import Size
from msfc_ros.masks import mask_of

ENCODINGS: dict[str, np.dtype[Any]] = {
    '16UC1': np.dtype(np.uint16),
    'mono16': np.dtype(np.uint16),
    '32FC1': np.dtype(np.float32),
}
"""Encodings of depth images (REP 118), and their samples; some drivers say mono16."""

MAX_PIXELS = 2**26
"""Pixels of a depth image at most."""

MAX_MASK_PIXELS = 2**28
"""Pixels of all masks of a message at most: packed, a few bytes can claim any number."""

MODELS = ('', 'plumb_bob', 'rational_polynomial')
"""Models of distortion that OpenCV's coefficients are of; without coefficients any will do."""

FISHEYE = 'equidistant'
"""The model of wide lenses, which OpenCV treats apart."""


class DepthError(ValueError):
    """A message that cannot be used.

    Attributes:
        reason: why, in a word.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def depth_from_message(message: Image) -> NDArray[np.float32]:
    """Return a depth image in metres, NaN where nothing was measured, H x W.

    Args:
        message: 16UC1 in millimetres or 32FC1 in metres; rows may be padded, and samples may have
            either order of bytes.

    Raises:
        DepthError: if the encoding is another one, or the sizes do not agree with the data.
    """
    sample = ENCODINGS.get(message.encoding)
    if sample is None:
        raise DepthError(
            'encoding',
            f'depth images of encoding {message.encoding!r} are not understood; those understood '
            'are 16UC1 (millimetres) and 32FC1 (metres)',
        )
    height, width, step = message.height, message.width, message.step
    if not 0 < height * width <= MAX_PIXELS:
        raise DepthError('size', f'a depth image of {width} x {height} pixels is not accepted')
    row = width * sample.itemsize
    if step < row or not step * (height - 1) + row <= len(message.data) <= step * height:
        raise DepthError(
            'length',
            f'{height} rows of {width} pixels of {message.encoding}, {step} bytes each, do not '
            f'make {len(message.data)} bytes',
        )
    data = np.frombuffer(message.data, np.uint8)
    rows = np.lib.stride_tricks.as_strided(data, (height, row), (step, 1), writeable=False)
    pixels: NDArray[Any] = np.ascontiguousarray(rows).view(sample)
    if bool(message.is_bigendian) != (sys.byteorder == 'big'):
        pixels = pixels.byteswap()
    return depth_in_metres(pixels)


def crops_of(instances: Sequence[Instance], size: Size) -> list[MaskCrop]:
    """Return the masks of instances, in their order.

    Args:
        instances: the instances.
        size: height and width of the camera image in pixels.

    Raises:
        DepthError: if one does not have its box's size, its box leaves the image, or they have too
            many pixels.
    """
    pixels = sum(item.width * item.height for item in instances)
    if pixels > MAX_MASK_PIXELS:
        raise DepthError('size', f'masks of {pixels} pixels in one message are not accepted')
    return [_crop(item, size) for item in instances]


def _crop(item: Instance, size: Size) -> MaskCrop:
    try:
        mask = mask_of(item)
    except ValueError as error:
        raise DepthError('mask', str(error)) from error
    try:
        return MaskCrop(mask, item.x, item.y, size)
    except ValueError as error:
        raise DepthError('mask', f'instance {item.id}: {error}') from error


class RayTable:
    """Where the pixels of a camera look; made anew only when its calibration changes."""

    def __init__(self) -> None:
        self._key: object = None
        self._rays: NDArray[np.float32] = np.empty((0, 0, 2), np.float32)

    def rays(self, info: CameraInfo, size: Size) -> NDArray[np.float32]:
        """Return x / z and y / z of the pixels of a depth image, H x W x 2.

        Args:
            info: its calibration; the lens's distortion is undone.
            size: its height and width in pixels.

        Raises:
            DepthError: if the calibration is none, or that of other images.
        """
        key = (size, info.height, info.width, info.distortion_model, tuple(info.d), tuple(info.k),
               info.binning_x, info.binning_y, info.roi.width, info.roi.height)  # fmt: skip
        if key != self._key:
            self._rays = _rays(info, size)
            self._key = key
        return self._rays


def _rays(info: CameraInfo, size: Size) -> NDArray[np.float32]:
    height, width = size
    if (info.height, info.width) != size:
        raise DepthError(
            'camera_info',
            f'the calibration is of {info.width} x {info.height} pixels, but the depth image has '
            f"{width} x {height}: give the depth image's own camera_info",
        )
    whole = (info.roi.height or height, info.roi.width or width) == size
    if max(info.binning_x, info.binning_y) > 1 or not whole:
        raise DepthError(
            'camera_info',
            'the calibration is of a binned image or of a region of one, which is not understood: '
            'give that of the depth image as it is',
        )
    fx, cx, fy, cy = info.k[0], info.k[2], info.k[4], info.k[5]
    try:
        plain = pinhole_rays(size, (fx, fy), (cx, cy))
    except ValueError as error:
        raise DepthError('camera_info', f'the camera is not calibrated: {error}') from error
    if not any(info.d):
        return plain
    return _undistorted(info, size, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]))


def _undistorted(
    info: CameraInfo, size: Size, matrix: NDArray[np.float64]
) -> NDArray[np.float32]:
    coefficients: Sequence[float] = list(info.d)
    pixels = np.indices(size)[::-1].transpose(1, 2, 0).reshape(-1, 1, 2).astype(np.float64)
    try:
        if info.distortion_model == FISHEYE:
            points = cv2.fisheye.undistortPoints(pixels, matrix, np.array(coefficients[:4]))
        elif info.distortion_model in MODELS:
            points = cv2.undistortPoints(pixels, matrix, np.array(coefficients))
        else:
            raise DepthError(
                'camera_info',
                f'distortion of the model {info.distortion_model!r} is not understood; those '
                f'understood are {", ".join((*MODELS[1:], FISHEYE))}',
            )
    except cv2.error as error:
        raise DepthError(
            'camera_info', f'the distortion coefficients {coefficients} are none: {error.err}'
        ) from error
    return np.asarray(points, np.float32).reshape(*size, 2)

"""Image messages to arrays.

The conversion itself is done by ``cv_bridge`` where it imports cleanly, else by ``rosbags-image``,
which takes the same messages. Everything that they would believe of a message is checked before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from msfc_ros.images import image_to_message

CHANNELS = {'bgr8': 3, 'rgb8': 3, 'bgra8': 4, 'rgba8': 4, 'mono8': 1}
"""Encodings that are understood, with their bytes per pixel."""

MAX_SIDE = 2**14
"""Longest side of an image in pixels; beyond it the message is taken for damaged."""


class ImageError(ValueError):
    """An image message that cannot be used.

    Attributes:
        reason: why, in one word. The message says it in one sentence.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def _load_converter() -> tuple[str, Callable[[Image], NDArray[np.uint8]]]:
    try:
        # An older build beside numpy 2 fails here, with ImportError or worse.
        from cv_bridge import CvBridge

        bridge = CvBridge()
        bridge.imgmsg_to_cv2(
            image_to_message(np.zeros((1, 1, 3), np.uint8), Image().header, 'rgb8'), 'bgr8'
        )
        return 'cv_bridge', lambda message: bridge.imgmsg_to_cv2(message, 'bgr8')
    except Exception:
        from rosbags.image import image_to_cvimage

        return 'rosbags-image', lambda message: image_to_cvimage(message, 'bgr8')


CONVERTER, _convert = _load_converter()
"""Name of the library that converts."""


def image_to_bgr(message: Image) -> NDArray[np.uint8]:
    """Convert an image message.

    Args:
        message: an image of one of the encodings in :data:`CHANNELS`; rows may be padded.

    Returns:
        H x W x 3, uint8, BGR; it may share the message's memory.

    Raises:
        ImageError: if the encoding is another one, or the sizes do not agree with the data.
    """
    pixels = _checked_rows(message)
    height, width = message.height, message.width
    if message.encoding == 'bgr8':
        return pixels.reshape(height, width, 3)
    if message.step == pixels.shape[1]:
        return _convert(message)
    # The converters differ in what they make of padded rows: give them none.
    return _convert(image_to_message(_shaped(pixels, message), message.header, message.encoding))


def _checked_rows(message: Image) -> NDArray[np.uint8]:
    """Return the pixels as H x (W * bytes per pixel), without the rows' padding."""
    height, width, step = message.height, message.width, message.step
    channels = CHANNELS.get(message.encoding)
    if channels is None:
        raise ImageError(
            'encoding',
            f'images of encoding {message.encoding!r} are not understood; those understood are '
            + ', '.join(sorted(CHANNELS)),
        )
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise ImageError(
            'size',
            f'an image of {width} x {height} pixels is not accepted: each side has to be '
            f'1 to {MAX_SIDE}',
        )
    row = width * channels
    if step < row:
        raise ImageError(
            'step',
            f'a row of {width} pixels of {message.encoding} takes {row} bytes, but the step is '
            f'{step}',
        )
    # The last row's padding may be missing: nobody needs it.
    needed, length = step * (height - 1) + row, len(message.data)
    if not needed <= length <= step * height:
        raise ImageError(
            'length',
            f'{height} rows of {step} bytes take {step * height} bytes, but the image has '
            f'{length}',
        )
    data = np.frombuffer(message.data, np.uint8)
    return np.lib.stride_tricks.as_strided(data, (height, row), (step, 1), writeable=False)


def _shaped(pixels: NDArray[Any], message: Image) -> NDArray[Any]:
    channels = CHANNELS[message.encoding]
    shape: tuple[int, ...] = (message.height, message.width)
    return pixels.reshape(*shape, channels) if channels > 1 else pixels.reshape(shape)

"""Arrays to image messages. Imports no torch, so that a camera starts fast.

Byte arrays go in as :class:`array.array`: rclpy takes those as they are, but checks every element
of anything else, which takes 48 ms per megabyte of a numpy array.
"""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header


def to_bytes_field(data: Any) -> array.array[int]:
    """Return contiguous bytes as the type that a ``uint8[]`` field takes without checking."""
    values = array.array('B')
    values.frombytes(memoryview(data).cast('B'))
    return values


def image_to_message(image: NDArray[Any], header: Header, encoding: str) -> Image:
    """Make an image message.

    Args:
        image: H x W or H x W x C, uint8 or uint16, as the encoding says.
        header: the header of the camera image.
        encoding: ``bgr8``, ``mono16`` and so on, as sensor_msgs/image_encodings.hpp names them.
    """
    pixels = np.ascontiguousarray(image)
    little = pixels.astype(pixels.dtype.newbyteorder('<'), copy=False)
    return Image(
        header=header,
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        # Of an only row NumPy's stride may be any number.
        step=pixels.nbytes // max(len(pixels), 1),
        data=to_bytes_field(little.reshape(-1).view(np.uint8)),
    )

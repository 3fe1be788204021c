"""Camera pictures to draw instances on, found again by their stamps."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from msfc.types import Size
from msfc_ros.message_to_image import ImageError, image_to_bgr

CAPACITY = 30
"""Pictures that are kept: a second of a common camera, as features take their time."""

CANVAS = 48
"""Grey value of the canvas in place of a picture."""


class ImageStore:
    """Keeps the last few pictures. Thread-safe.

    Args:
        capacity: how many.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._pictures: OrderedDict[tuple[int, int], Image] = OrderedDict()

    def keep(self, message: Image) -> None:
        """Keep a picture, in place of the oldest if there are too many."""
        stamp = message.header.stamp
        with self._lock:
            self._pictures[stamp.sec, stamp.nanosec] = message
            while len(self._pictures) > self._capacity:
                self._pictures.popitem(last=False)

    def clear(self) -> None:
        """Forget all pictures."""
        with self._lock:
            self._pictures.clear()

    def find(self, header: Header, size: Size) -> NDArray[np.uint8]:
        """Return the picture with a header's stamp, or a dark canvas.

        Args:
            header: header of the image that is looked for.
            size: its height and width in pixels.

        Returns:
            H x W x 3, uint8, BGR, in memory of its own.
        """
        with self._lock:
            message = self._pictures.get((header.stamp.sec, header.stamp.nanosec))
        if message is not None and (message.height, message.width) == size:
            try:
                return image_to_bgr(message).copy()
            except ImageError:
                pass  # as good as no picture; the edge refuses and reports such an image
        return np.full((*size, 3), CANVAS, np.uint8)

"""The last depth images, found again by the stamps of results that come later."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from operator import itemgetter

from sensor_msgs.msg import Image

from msfc_ros.stamps import nanoseconds

BACK = 10**9
"""Nanoseconds that a stamp lies before the newest at least if the clock was set back."""


class DepthStore:
    """Keeps the last few depth images in the order of their stamps. Thread-safe.

    Args:
        capacity: how many.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._images: list[tuple[int, Image]] = []

    def keep(self, message: Image) -> None:
        """Keep an image, in place of the oldest if there are too many."""
        stamp = nanoseconds(message.header)
        with self._lock:
            if self._images and stamp < self._images[-1][0] - BACK:
                # A recording is played again, or a simulation begins anew.
                self._images.clear()
            insort(self._images, (stamp, message), key=itemgetter(0))
            del self._images[: -self._capacity]

    def clear(self) -> None:
        """Forget all images."""
        with self._lock:
            self._images.clear()

    def span(self) -> tuple[int, int] | None:
        """Return the oldest and the newest stamp in nanoseconds; None if there is no image."""
        with self._lock:
            return (self._images[0][0], self._images[-1][0]) if self._images else None

    def nearest(self, stamp: int) -> tuple[Image, int] | None:
        """Return the image whose stamp is nearest, and its stamp less the one asked for.

        Args:
            stamp: in nanoseconds.

        Returns:
            None if there is no image; of two as near the earlier one.
        """
        with self._lock:
            place = bisect_left(self._images, stamp, key=itemgetter(0))
            near = self._images[max(place - 1, 0) : place + 1]
            if not near:
                return None
            found, image = min(near, key=lambda item: abs(item[0] - stamp))
            return image, found - stamp

"""The paper's baseline: the feature pyramid as one 8 bit picture, compressed as JPEG.

Each map is quantised to 8 bits between its least and its greatest value, the channels of all
levels are tiled into one grey picture, and that is a JPEG of some quality. What the receiver needs
besides, the least and the greatest value of each map as float32, is sent and counted.

A map is a level with all its channels, as in the paper, or each channel by itself: finer steps for
more side information. Which is better depends on the quality, so measure both. p6 is not sent
where it is every second cell of p5, as in both detectors here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from msfc.evaluation.image_codecs import read_picture, smallest_jpeg
from msfc.types import Pyramid, Size

SCOPES = ('level', 'channel')
"""What one pair of least and greatest value is for."""

QUALITIES = (1, 3, 5, 10, 20, 30, 45, 60, 75, 90, 97)
"""JPEG qualities that cover what is useful."""

_HEADER_BYTES = 1  # whether p6 is sent
_TOP = 255
_RANGE = np.dtype('<f4')


@dataclass(frozen=True)
class FeatureJpeg:
    """The codec of the baseline.

    Attributes:
        quality: of JPEG, 0 to 100.
        scope: ``level`` or ``channel``.
        block_aligned: tiles begin at JPEG's blocks of 8 x 8: no ringing from one channel into the
            next, for a somewhat larger picture.

    Raises:
        ValueError: a quality or scope that there is not.
    """

    quality: int
    scope: str = 'level'
    block_aligned: bool = False

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise ValueError(f'{self.scope!r} is not one of {", ".join(SCOPES)}')
        if not 0 <= self.quality <= 100:
            raise ValueError(f'a JPEG quality is 0 to 100, not {self.quality}')

    def encode(self, pyramid: Pyramid) -> bytes:
        """Compress the pyramid of one image.

        Args:
            pyramid: levels by name, each 1 x C x h x w, as many channels in each.

        Returns:
            What is sent: one byte, the ranges, the JPEG.

        Raises:
            ValueError: it is not the pyramid of one image, or has values that are not finite.
        """
        channels = _check(pyramid)
        levels = sorted(pyramid)
        send_p6 = not _p6_follows(pyramid)
        if not send_p6:
            levels.remove('p6')
        sizes = {level: _size(pyramid[level]) for level in levels}
        layout = _Layout(sizes, channels, 8 if self.block_aligned else 1)
        picture = np.full(layout.size, _TOP // 2 + 1, np.uint8)
        ranges = []
        for level in levels:
            values = pyramid[level][0].detach().float().cpu().numpy()
            low, high = self._ranges(values)
            ranges += [low, high]
            layout.put(picture, level, _to_bytes(values, low, high))
        side = np.concatenate(ranges).astype(_RANGE).tobytes()
        return bytes([send_p6]) + side + smallest_jpeg(picture, self.quality)

    def decode(self, data: bytes, sizes: Mapping[str, Size], channels: int) -> Pyramid:
        """Rebuild a pyramid.

        Args:
            data: what :meth:`encode` gave.
            sizes: height and width of every level, ``p6`` included; follows from the image size.
            channels: of every level.

        Returns:
            The levels, each 1 x C x h x w float32, on the CPU.

        Raises:
            ValueError: the data is not of such a pyramid.
        """
        levels = sorted(sizes)
        send_p6 = bool(data[:_HEADER_BYTES] == b'\x01')
        if not send_p6:
            levels.remove('p6')
        layout = _Layout(
            {level: sizes[level] for level in levels}, channels, 8 if self.block_aligned else 1
        )
        per_level = 2 * (channels if self.scope == 'channel' else 1)
        stop = _HEADER_BYTES + per_level * len(levels) * _RANGE.itemsize
        if len(data) < stop:
            raise ValueError(f'{len(data)} bytes do not hold {stop} bytes of side information')
        ranges = np.frombuffer(data[_HEADER_BYTES:stop], _RANGE).reshape(len(levels), 2, -1)
        picture = read_picture(data[stop:], cv2.IMREAD_GRAYSCALE)
        if picture.shape != layout.size:
            raise ValueError(f'a picture of {picture.shape} decoded, {layout.size} expected')
        pyramid = {}
        for level, (low, high) in zip(levels, ranges, strict=True):
            values = _to_values(layout.take(picture, level), low, high)
            pyramid[level] = torch.from_numpy(values)[None]
        if not send_p6:
            pyramid['p6'] = _subsample(pyramid[levels[-1]])
        return pyramid

    def compress(self, pyramid: Pyramid) -> tuple[Pyramid, int]:
        """Return what the receiver rebuilds of a pyramid, and the bytes that were sent.

        Args:
            pyramid: of one image; the result is on its device.
        """
        data = self.encode(pyramid)
        sizes = {level: _size(features) for level, features in pyramid.items()}
        some = next(iter(pyramid.values()))
        rebuilt = self.decode(data, sizes, some.shape[1])
        return {level: rebuilt[level].to(some.device) for level in pyramid}, len(data)

    def _ranges(
        self, values: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the least and greatest values of a level, 1 or C of each."""
        flat = values.reshape(len(values) if self.scope == 'channel' else 1, -1)
        return flat.min(axis=1), flat.max(axis=1)


class _Layout:
    """Where the channels of each level are in the picture.

    Each level is a near-square grid of its channels, rows first. The finest level is on top; the
    others stand side by side below it, where they fit as each is half as wide as the one before.

    Args:
        sizes: height and width of a channel of each level.
        channels: per level.
        multiple: sides of the tiles are rounded up to multiples of this.
    """

    def __init__(self, sizes: Mapping[str, Size], channels: int, multiple: int) -> None:
        self._columns = math.isqrt(channels - 1) + 1
        self._rows = -(-channels // self._columns)
        self._channels, self._sizes = channels, dict(sizes)
        self._tiles = {
            level: (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
            for level, (height, width) in sizes.items()
        }
        self._origins: dict[str, Size] = {}
        finest, *others = sorted(sizes)
        self._origins[finest] = (0, 0)
        total_height, total_width = self._extent(finest)
        top, left = total_height, 0
        for level in others:
            height, width = self._extent(level)
            self._origins[level] = (top, left)
            left += width
            total_height = max(total_height, top + height)
            total_width = max(total_width, left)
        self.size = (total_height, total_width)

    def _extent(self, level: str) -> Size:
        height, width = self._tiles[level]
        return self._rows * height, self._columns * width

    def _region(self, picture: NDArray[np.uint8], level: str) -> NDArray[np.uint8]:
        (top, left), (height, width) = self._origins[level], self._extent(level)
        return picture[top : top + height, left : left + width]

    def put(
        self, picture: NDArray[np.uint8], level: str, maps: NDArray[np.uint8]
    ) -> None:
        """Write the maps of a level, C x h x w, into the picture."""
        (height, width), (tall, wide) = self._sizes[level], self._tiles[level]
        # A repeated edge costs the fewest bits.
        padded = np.pad(maps, ((0, 0), (0, tall - height), (0, wide - width)), mode='edge')
        spare = self._rows * self._columns - self._channels
        grid = np.pad(padded, ((0, spare), (0, 0), (0, 0)), constant_values=_TOP // 2 + 1)
        grid = grid.reshape(self._rows, self._columns, tall, wide).swapaxes(1, 2)
        self._region(picture, level)[:] = grid.reshape(self._extent(level))

    def take(self, picture: NDArray[np.uint8], level: str) -> NDArray[np.uint8]:
        """Return the maps of a level, C x h x w."""
        (height, width), (tall, wide) = self._sizes[level], self._tiles[level]
        grid = self._region(picture, level).reshape(self._rows, tall, self._columns, wide)
        maps = grid.swapaxes(1, 2).reshape(-1, tall, wide)
        return maps[: self._channels, :height, :width]


def _to_bytes(
    values: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32]
) -> NDArray[np.uint8]:
    span = np.where(high > low, high - low, 1).astype(np.float64)[:, None, None]
    scaled = (values - low.astype(np.float64)[:, None, None]) / span * _TOP
    return np.rint(scaled).astype(np.uint8)


def _to_values(
    symbols: NDArray[np.uint8], low: NDArray[np.float32], high: NDArray[np.float32]
) -> NDArray[np.float32]:
    span = (high.astype(np.float64) - low)[:, None, None]
    return (symbols / _TOP * span + low[:, None, None]).astype(np.float32)


def _check(pyramid: Pyramid) -> int:
    """Return the number of channels of a pyramid of one image."""
    shapes = [tuple(features.shape) for features in pyramid.values()]
    if len(pyramid) < 2 or 'p6' not in pyramid:
        raise ValueError(f'a pyramid has p6 and finer levels, not {", ".join(pyramid)}')
    if any(len(shape) != 4 or shape[:2] != (1, shapes[0][1]) for shape in shapes):
        raise ValueError(f'the pyramid of one image is 1 x C x h x w per level, not {shapes}')
    if not all(bool(torch.isfinite(features).all()) for features in pyramid.values()):
        raise ValueError('the pyramid has values that are not finite')
    return shapes[0][1]


def _p6_follows(pyramid: Pyramid) -> bool:
    coarsest = sorted(level for level in pyramid if level != 'p6')[-1]
    expected = _subsample(pyramid[coarsest])
    return expected.shape == pyramid['p6'].shape and bool(torch.equal(expected, pyramid['p6']))


def _subsample(features: Tensor) -> Tensor:
    return F.max_pool2d(features, kernel_size=1, stride=2)


def _size(features: Tensor) -> Size:
    return features.shape[-2], features.shape[-1]

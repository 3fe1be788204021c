"""What a detector does to a camera image before its network, in NumPy: a robot without PyTorch.

Detectors describe theirs (:meth:`msfc.detectors.base.SplitDetector.preprocessing`); the network
input agrees with that of their own ``preprocess`` to 1e-5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from msfc.settings import check_number
from msfc.types import ImageSizes, Size

Pixels = NDArray[np.float32]

CHANNEL_ORDERS = ('bgr', 'rgb')

MAX_EDGE = 2**16
"""No network input has a longer edge, in pixels."""


@dataclass(frozen=True)
class Preprocessing:
    """Resizes an image, normalises it and pads it with zeros.

    Attributes:
        resize: how; a key of :data:`RESIZERS`.
        min_size: short edge of the network input in pixels; 0 leaves images as they are.
        max_size: limit of its long edge in pixels.
        channels: order of the network's channels, ``rgb`` or ``bgr``.
        mean: of each channel in that order, on the scale of 0 to 255.
        std: standard deviation of each, on that scale.
        divisibility: height and width are padded to a multiple of this.

    Raises:
        ValueError: a value of another type, or beyond its range.
    """

    resize: str
    min_size: int
    max_size: int
    channels: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    divisibility: int

    def __post_init__(self) -> None:
        for name, given, known in (
            ('resize', self.resize, tuple(RESIZERS)), ('channels', self.channels, CHANNEL_ORDERS)
        ):
            if given not in known:
                raise ValueError(f'unknown {name} {given!r}: choose {" or ".join(known)}')
        check_number(self.min_size, 'min_size', 0, MAX_EDGE, whole=True)
        check_number(self.max_size, 'max_size', 1, MAX_EDGE, whole=True)
        check_number(self.divisibility, 'divisibility', 1, MAX_EDGE, whole=True)
        for name, values, least in (('mean', self.mean, -1e6), ('std', self.std, 1e-6)):
            if len(values) != 3:
                raise ValueError(f'{name} has three numbers, got {values!r}')
            for value in values:
                check_number(value, name, least, 1e6)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return {**asdict(self), 'mean': list(self.mean), 'std': list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Return what :meth:`to_dict` described.

        Raises:
            ValueError: a key is missing or unknown, or a value impossible.
        """
        known = set(cls.__dataclass_fields__)
        if not isinstance(values, Mapping) or set(values) != known:
            raise ValueError(f'preprocessing has just the keys {", ".join(sorted(known))}')
        lists = {name: values[name] for name in ('mean', 'std')}
        if not all(isinstance(value, (list, tuple)) for value in lists.values()):
            raise ValueError('mean and std of preprocessing are lists')
        return cls(**{**values, **{name: tuple(value) for name, value in lists.items()}})

    def valid_size(self, source: Size) -> Size:
        """Return the network input's size without padding, of an image of some size."""
        if not self.min_size:
            return source
        return RESIZERS[self.resize][0](source, self.min_size, self.max_size)

    def __call__(self, image: NDArray[np.uint8]) -> tuple[Pixels, ImageSizes]:
        """Make the network input of one image.

        Args:
            image: H x W x 3, uint8, BGR; any strides, may be read-only.

        Returns:
            1 x 3 x h x w float32, and the sizes.
        """
        source = (image.shape[0], image.shape[1])
        valid = self.valid_size(source)
        resized = image if valid == source else RESIZERS[self.resize][1](image, valid)
        step = self.divisibility
        padded = (-(-valid[0] // step) * step, -(-valid[1] // step) * step)
        pixels = np.zeros((1, 3, *padded), np.float32)
        for place, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            channel = resized[..., place if self.channels == 'bgr' else 2 - place]
            seen = pixels[0, place, : valid[0], : valid[1]]
            np.subtract(channel, np.float32(mean), out=seen)
            seen /= np.float32(std)
        return pixels, ImageSizes((source,), (valid,), padded)


def _torchvision_size(source: Size, min_size: int, max_size: int) -> Size:
    scale = min(min_size / min(source), max_size / max(source))
    return (max(int(source[0] * scale), 1), max(int(source[1] * scale), 1))


def _torchvision_resize(image: NDArray[np.uint8], size: Size) -> Pixels:
    """Resize bilinearly without rounding, as ``torch.nn.functional.interpolate`` does."""
    (top, bottom, down), (left, right, across) = (
        _neighbours(length, wanted) for length, wanted in zip(image.shape[:2], size, strict=True)
    )
    # Samples one by one: NumPy gathers single bytes twice as fast as pixels.
    across = np.repeat(across, 3)
    left, right = ((3 * pixel[:, None] + np.arange(3)).ravel() for pixel in (left, right))
    upper, lower = (
        _between(rows.take(left, 1).astype(np.float32), rows.take(right, 1), across)
        for rows in (image[line].reshape(size[0], -1) for line in (top, bottom))
    )
    return _between(upper, lower, down[:, None]).reshape(*size, 3)


def _between(first: Pixels, second: NDArray[Any], share: Pixels) -> Pixels:
    """Return the mean of two arrays, the second of which has a share of 0 to 1."""
    result = second.astype(np.float32)
    result -= first
    result *= share
    result += first
    return result


def _neighbours(length: int, wanted: int) -> tuple[NDArray[Any], NDArray[Any], Pixels]:
    """Return the pixels before and after each new one along an axis, and the latter's share."""
    # Single precision: what torch takes for the places decides the last bits of the pixels.
    places = np.arange(wanted, dtype=np.float32) + np.float32(0.5)
    places = places * np.float32(length / wanted) - np.float32(0.5)
    places = places.clip(np.float32(0), np.float32(length - 1))
    before = places.astype(np.int64)
    return before, np.minimum(before + 1, length - 1), places - before.astype(np.float32)


def _detectron2_size(source: Size, min_size: int, max_size: int) -> Size:
    scale = min_size / min(source)
    height, width = (
        (min_size, scale * source[1]) if source[0] < source[1] else (scale * source[0], min_size)
    )
    if max(height, width) > max_size:
        scale = max_size / max(height, width)
        height, width = height * scale, width * scale
    return (max(int(height + 0.5), 1), max(int(width + 0.5), 1))


def _pillow_resize(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Resize as Detectron2 does: by Pillow, over areas where an image shrinks, to 8 bits."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR))


RESIZERS: dict[
    str,
    tuple[Callable[[Size, int, int], Size], Callable[[NDArray[np.uint8], Size], NDArray[Any]]],
] = {
    'torchvision': (_torchvision_size, _torchvision_resize),
    'detectron2': (_detectron2_size, _pillow_resize),
}
"""By what detectors call them: the size of the network input, and how an image gets it."""

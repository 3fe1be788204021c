"""Coding 1 once more, straight from docs/wire-format.md: whole numbers and loops, and no library.

:func:`formula_arrays` makes the model that the vectors are of; :func:`decode` reads its payloads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfc.wire.learned import gaussian_tables

Arrays = Mapping[str, NDArray[Any]]


def formula_arrays(
    slices: tuple[int, ...] = (1, 2),
    context: int = 4,
    hidden: int = 5,
    hyper: int = 3,
    hyper_channels: int = 2,
    rates: int = 2,
) -> dict[str, NDArray[Any]]:
    """Return a model of whole multiples of 2**-8, by a formula in place of training."""
    count = 0

    def numbers(*shape: int, top: int = 60) -> NDArray[np.float32]:
        nonlocal count
        count += 1
        places = np.arange(int(np.prod(shape)), dtype=np.int64) + 1
        values = (places * places * 31 + places * (2 * count + 7) + 17 * count) % (2 * top + 1)
        return ((values - top) / 256).astype(np.float32).reshape(shape)

    channels = sum(slices)
    shapes = {
        'hyper_first': (hyper, hyper_channels, 3), 'hyper_spread': (4 * hyper, hyper, 1),
        'hyper_second': (hyper, hyper, 3), 'hyper_last': (4 * context, hyper, 1),
    }
    for k, size in enumerate(size for size in slices for _ in range(2)):
        shapes[f'hidden.{k}'] = (hidden, context, 1)
        shapes[f'output.{k}'] = (2 * size, hidden, 1)
    for k, size in enumerate(slices):
        shapes[f'update.{k}'] = (context, size, 3)
    arrays: dict[str, NDArray[Any]] = {}
    for name, (outputs, inputs, size) in shapes.items():
        arrays[f'{name}.weight'] = numbers(outputs, inputs, size, size)
        arrays[f'{name}.bias'] = numbers(outputs)
        if name.startswith('update'):
            arrays[f'{name}.bias'][:] = 0
        if name.startswith('output'):
            arrays[f'{name}.bias'][outputs // 2 :] += 3.25
    arrays['rate_hyper'] = numbers(rates, hyper)
    arrays['rate_context'] = numbers(rates, context)
    arrays['hyper_mean'] = numbers(rates, hyper_channels) * 8
    arrays['hyper_scale'] = numbers(rates, hyper_channels) + 3.25
    arrays['frequencies'], arrays['reaches'] = gaussian_tables()
    arrays['inverse_gain'] = 1 + numbers(rates, channels)
    arrays['rate_offset'] = numbers(rates, channels)
    arrays['typical_bytes'] = np.ones(rates, np.float32)
    arrays['log_gain'] = numbers(rates, channels) * 2
    arrays['hyper.first.weight'] = numbers(6, channels, 3, 3)
    arrays['hyper.first.bias'] = numbers(6)
    arrays['hyper.second.weight'] = numbers(hyper_channels, 6, 5, 5) * 2
    arrays['hyper.second.bias'] = numbers(hyper_channels)
    return arrays


class RangeDecoder:
    """The range decoder of docs/wire-format.md, with one number of any length."""

    def __init__(self, data: bytes) -> None:
        self.data, self.words = data, 2
        self.low, self.width = 0, 2**64 - 1

    def symbol(self, frequencies: list[int]) -> int:
        """Return the next symbol."""
        count, step, below, left = len(frequencies), self.width >> 24, 0, 0
        padded = self.data.ljust(4 * self.words, b'\0')[: 4 * self.words]
        point = (int.from_bytes(padded, 'big') - self.low) // step
        for symbol, frequency in enumerate(frequencies):
            below += frequency
            right = below * (2**24 - count) // 2**16 + symbol + 1
            if point < right:
                self.low += step * left
                self.width = step * (right - left)
                if self.width < 2**32:
                    self.low, self.width = self.low << 32, self.width << 32
                    self.words += 1
                return symbol
            left = right
        raise ValueError('damaged')


def _whole(values: NDArray[Any], bits: int, top: int) -> NDArray[np.int64]:
    return np.floor(values.astype(float) * 2**bits + 0.5).clip(-top, top).astype(np.int64)


def _convolve(
    arrays: Arrays, name: str, image: NDArray[np.int64], offset: bool = True
) -> NDArray[np.int64]:
    """Return O x h x w sums of an I x h x w image."""
    weight = _whole(arrays[f'{name}.weight'], 8, 511)
    size = weight.shape[2]
    edge, (_, height, width) = size // 2, image.shape
    padded = np.pad(image, ((0, 0), (edge, edge), (edge, edge)))
    sums = np.zeros((len(weight), height, width), np.int64)
    if offset:
        sums += _whole(arrays[f'{name}.bias'], 14, 2**24)[:, None, None]
    for i in range(size):
        for j in range(size):
            part = padded[:, i : i + height, j : j + width]
            sums += np.einsum('oc,chw->ohw', weight[:, :, i, j], part)
    return sums


def _rectify(sums: NDArray[np.int64]) -> NDArray[np.int64]:
    return ((sums + 128) >> 8).clip(0, 1023)


def _spread(image: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.int64]:
    channels, height, width = image.shape
    result = np.zeros((channels // 4, 2 * height, 2 * width), np.int64)
    for i in range(2):
        for j in range(2):
            result[:, i::2, j::2] = image[2 * i + j :: 4]
    return result[:, : size[0], : size[1]]


class Decoder:
    """Reads one payload."""

    def __init__(self, arrays: Arrays, data: bytes) -> None:
        self.arrays, self.ranges = arrays, RangeDecoder(data)

    def symbols(self, index: list[int]) -> list[int]:
        """Return the symbols of a pass, of the scales' indices in its order."""
        values, far = [0] * len(index), []
        for table in range(1, 64):
            reach = int(self.arrays['reaches'][table])
            row = [int(f) for f in self.arrays['frequencies'][table][: 2 * reach + 2]]
            for place in [place for place, given in enumerate(index) if given == table]:
                symbol = self.ranges.symbol(row)
                values[place] = symbol - reach
                if symbol == 2 * reach + 1:
                    far.append(place)
        for place in far:
            values[place] = max(-2047, min(2047, self.ranges.symbol([16] * 4096) - 2047))
        return values

    def hyper(self, rate: int, size: tuple[int, int]) -> NDArray[np.int64]:
        """Return the hyper-latent."""
        mean = _whole(self.arrays['hyper_mean'][rate], 0, 2047)
        index = _whole(self.arrays['hyper_scale'][rate], 3, 64).clip(0, 63)
        cells = -(-size[0] // 4) * -(-size[1] // 4)
        read = self.symbols([int(one) for one in index for _ in range(cells)])
        shape = (len(mean), -(-size[0] // 4), -(-size[1] // 4))
        return np.array(read).reshape(shape) + mean[:, None, None]

    def context(
        self, hyper: NDArray[np.int64], rate: int, size: tuple[int, int]
    ) -> NDArray[np.int64]:
        """Return the context before any value is known."""
        arrays, half = self.arrays, (-(-size[0] // 2), -(-size[1] // 2))
        x = _convolve(arrays, 'hyper_first', (64 * hyper).clip(-2047, 2047))
        x = x + _whole(arrays['rate_hyper'][rate], 14, 2**24)[:, None, None]
        x = _spread(_convolve(arrays, 'hyper_spread', _rectify(x)), half)
        x = _rectify(_convolve(arrays, 'hyper_second', _rectify(x)))
        x = _spread(_convolve(arrays, 'hyper_last', x), size)
        return x + _whole(arrays['rate_context'][rate], 14, 2**24)[:, None, None]

    def code(
        self, shape: tuple[int, int, int], rate: int, slices: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """Return the code."""
        size = (shape[1], shape[2])
        context = self.context(self.hyper(rate, size), rate, size)
        colour = np.indices(size).sum(0) % 2
        values = np.zeros(shape, np.int64)
        for k, count in enumerate(slices):
            first = sum(slices[:k])
            for odd in (0, 1):
                step = 2 * k + odd
                sums = _convolve(
                    self.arrays, f'output.{step}',
                    _rectify(_convolve(self.arrays, f'hidden.{step}', _rectify(context))),
                )
                mean = ((sums[:count] + 128) >> 8).clip(-2047, 2047)
                index = ((sums[count:] + 1024) >> 11).clip(0, 63)
                cells = [(int(y), int(x)) for y, x in np.argwhere(colour == odd)]
                order = [(c, y, x) for y, x in cells for c in range(count)]
                read = self.symbols([int(index[place]) for place in order])
                known = np.zeros((count, *size), np.int64)
                for place, symbol in zip(order, read, strict=True):
                    known[place] = 64 * symbol + mean[place]
                values[first : first + count] += known
                seen = known.clip(-2047, 2047)
                context = context + _convolve(self.arrays, f'update.{k}', seen, offset=False)
        gain = self.arrays['inverse_gain'][rate][:, None, None]
        offset = self.arrays['rate_offset'][rate][:, None, None]
        return (values.astype(np.float32) / np.float32(64)) * gain + offset


def decode(
    arrays: Arrays, data: bytes, shape: tuple[int, int, int], rate: int, slices: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return the code that a payload holds."""
    return Decoder(arrays, data).code(shape, rate, slices)

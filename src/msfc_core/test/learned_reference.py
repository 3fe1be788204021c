"""Coding 1 once more, straight from docs/wire-format.md: whole numbers and loops, and no library.

:func:`formula_arrays` makes the model that the vectors are of; :func:`decode` reads its payloads,
:func:`decode_frame` also those that refer to a key frame.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
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
        'hyper_second': (hyper, hyper, 3), 'hyper_last': (4 * len(slices) * context, hyper, 1),
    }
    for k, size in enumerate(size for size in slices for _ in range(2)):
        shapes[f'hidden.{k}'] = (hidden, context, 1)
        shapes[f'output.{k}'] = (2 * size, hidden, 1)
    for k, size in enumerate(slices):
        shapes[f'update.{k}'] = ((len(slices) - k) * context, size, 3)
    arrays: dict[str, NDArray[Any]] = {}
    for name, (outputs, inputs, size) in shapes.items():
        arrays[f'{name}.weight'] = numbers(outputs, inputs, size, size)
        arrays[f'{name}.bias'] = numbers(outputs)
        if name.startswith('update'):
            arrays[f'{name}.bias'][:] = 0
        if name.startswith('output'):
            arrays[f'{name}.bias'][outputs // 2 :] += 3.25
    arrays['rate_hyper'] = numbers(rates, hyper)
    arrays['rate_context'] = numbers(rates, len(slices) * context)
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
    return arrays | formula_key_arrays(rates, hyper_channels)


def _other_tables() -> NDArray[np.int32]:
    """Return tables unlike others: a tenth of their greatest number is in their last."""
    frequencies, reaches = gaussian_tables()
    for row, reach in zip(frequencies[1:], reaches[1:], strict=True):
        moved = row[reach] // 10
        row[reach] -= moved
        row[2 * reach + 1] += moved
    return frequencies


def formula_key_arrays(rates: int, hyper_channels: int) -> dict[str, NDArray[Any]]:
    """Return the same model's tables for coding against key frames."""
    r, i, d, a = np.indices((rates, 64, 13, 6))
    weight, scale = (r + 3 * i + 5 * d + 7 * a) % 17, (i + r + d - 2 * a).clip(1, 63)
    r, c, b = np.indices((rates, hyper_channels, 6))
    return {
        'key_weight': weight.astype(np.uint8),
        'key_scale': scale.astype(np.uint8),
        'key_frequencies': _other_tables(),
        'key_hyper_weight': ((5 * r + 3 * c + 4 * b) % 17).astype(np.uint8),
        'key_hyper_scale': (20 + 3 * r + c + 2 * b).clip(1, 63).astype(np.uint8),
    }


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


def default_key_arrays(arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Return what a model has that was not fitted to pairs of frames."""
    scales = _whole(arrays['hyper_scale'], 3, 64).clip(0, 63)
    shape = (len(scales), 64, 13, 6)
    _, i, _, a = np.indices(shape)
    b = np.indices((*scales.shape, 6))[2]
    return {
        'key_weight': np.array([10, 13, 11, 5, 2, 1])[a],
        'key_scale': (i - i * np.array([3, 6, 5, 2, 0, 0])[a] // 16).clip(1),
        'key_frequencies': arrays['frequencies'],
        'key_hyper_weight': np.where(b > 0, 12, 0),
        'key_hyper_scale': np.broadcast_to(scales[..., None] - 5, b.shape).clip(1),
    }


@dataclass
class Frame:
    """What was decoded: the code's whole values, C' x h x w, and the hyper-latent."""

    data: bytes
    rate: int
    values: NDArray[np.int64]
    hyper: NDArray[np.int64]


def _quotient(a: int, b: int) -> int:
    return (2 * a + b) // (2 * b)


class Decoder:
    """Reads one payload."""

    def __init__(self, arrays: Arrays, data: bytes, key: Frame | None = None) -> None:
        self.arrays = {**default_key_arrays(arrays), **arrays}
        self.data, self.ranges = data, RangeDecoder(data)
        self.key = key
        self.rows = self.arrays['frequencies' if key is None else 'key_frequencies']
        if key is not None:
            assert self.ranges.symbol([16] * 4096) == zlib.crc32(key.data) % 4096

    def symbols(self, index: list[int]) -> list[int]:
        """Return the symbols of a pass, of the scales' indices in its order."""
        values, far = [0] * len(index), []
        for table in range(1, 64):
            reach = int(self.arrays['reaches'][table])
            row = [int(f) for f in self.rows[table][: 2 * reach + 2]]
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
        shape = (len(mean), -(-size[0] // 4), -(-size[1] // 4))
        means = np.broadcast_to(mean[:, None, None], shape).copy()
        indices = np.broadcast_to(index[:, None, None], shape).copy()
        if self.key is not None and self.key.rate == rate:
            for place in np.ndindex(shape):
                distance = int(self.key.hyper[place].clip(-2047, 2047)) - int(means[place])
                b = sum(abs(distance) >= edge for edge in (1, 2, 3, 5, 9))
                weight = int(self.arrays['key_hyper_weight'][rate, place[0], b])
                means[place] += _quotient(weight * distance, 16)
                indices[place] = self.arrays['key_hyper_scale'][rate, place[0], b]
        read = self.symbols([int(one) for one in indices.ravel()])
        return np.array(read).reshape(shape) + means

    def context(
        self, hyper: NDArray[np.int64], rate: int, size: tuple[int, int]
    ) -> NDArray[np.int64]:
        """Return all slices' contexts before any value is known."""
        arrays, half = self.arrays, (-(-size[0] // 2), -(-size[1] // 2))
        x = _convolve(arrays, 'hyper_first', (64 * hyper).clip(-2047, 2047))
        x = x + _whole(arrays['rate_hyper'][rate], 14, 2**24)[:, None, None]
        x = _spread(_convolve(arrays, 'hyper_spread', _rectify(x)), half)
        x = _rectify(_convolve(arrays, 'hyper_second', _rectify(x)))
        x = _spread(_convolve(arrays, 'hyper_last', x), size)
        return x + _whole(arrays['rate_context'][rate], 14, 2**24)[:, None, None]

    def known(self, rate: int) -> NDArray[np.int64] | None:
        """Return the key frame's values at a rate."""
        if self.key is None:
            return None
        values = self.key.values.clip(-2047, 2047)
        if self.key.rate == rate:
            return values
        gains = _whole(self.arrays['inverse_gain'], 16, 2**24).clip(1)
        offsets = _whole(self.arrays['rate_offset'], 22, 2**30)
        for c, y, x in np.ndindex(values.shape):
            moved = int(values[c, y, x]) * int(gains[self.key.rate, c])
            moved += int(offsets[self.key.rate, c]) - int(offsets[rate, c])
            values[c, y, x] = min(max(_quotient(moved, int(gains[rate, c])), -2047), 2047)
        return values

    def moved(
        self, rate: int, distance: int, index: int, around: list[bool]
    ) -> tuple[int, int]:
        """Return what is added to a mean, and the index of the scale.

        Args:
            rate: the frame's.
            distance: of the key frame's value from the mean.
            index: of the scale before.
            around: of each value known in the 3 x 3 cells around, whether it has changed.
        """
        d = sum(
            abs(distance) >= edge for edge in (4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
        )
        a = 1 + sum(q * sum(around) > len(around) for q in (32, 10, 5, 2)) if around else 0
        if index == 0:
            return 0, 0
        weight = int(self.arrays['key_weight'][rate, index, d, a])
        scale = int(self.arrays['key_scale'][rate, index, d, a])
        return _quotient(weight * distance, 16), scale

    def frame(
        self, shape: tuple[int, int, int], rate: int, slices: tuple[int, ...]
    ) -> Frame:
        """Return the frame."""
        size, key = (shape[1], shape[2]), self.known(rate)
        hyper = self.hyper(rate, size)
        contexts = np.split(self.context(hyper, rate, size), len(slices))
        seen: dict[tuple[int, int], list[bool]] = {cell: [] for cell in np.ndindex(size)}
        colour = np.indices(size).sum(0) % 2
        values = np.zeros(shape, np.int64)
        for k, count in enumerate(slices):
            first = sum(slices[:k])
            for odd in (0, 1):
                step = 2 * k + odd
                sums = _convolve(
                    self.arrays, f'output.{step}',
                    _rectify(_convolve(self.arrays, f'hidden.{step}', _rectify(contexts[k]))),
                )
                mean = ((sums[:count] + 128) >> 8).clip(-2047, 2047)
                index = ((sums[count:] + 1024) >> 11).clip(0, 63)
                cells = [(int(y), int(x)) for y, x in np.argwhere(colour == odd)]
                order = [(c, y, x) for y, x in cells for c in range(count)]
                if key is not None:
                    for c, y, x in order:
                        near = [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
                        around = [one for cell in near for one in seen.get(cell, [])]
                        distance = int(key[first + c, y, x]) - int(mean[c, y, x])
                        shift, scale = self.moved(rate, distance, int(index[c, y, x]), around)
                        mean[c, y, x] += shift
                        index[c, y, x] = scale
                read = self.symbols([int(index[place]) for place in order])
                known = np.zeros((count, *size), np.int64)
                for place, symbol in zip(order, read, strict=True):
                    known[place] = 64 * symbol + mean[place]
                values[first : first + count] += known
                clipped = known.clip(-2047, 2047)
                if key is not None:
                    for c, y, x in order:
                        far = abs(int(clipped[c, y, x]) - int(key[first + c, y, x]))
                        seen[y, x].append(far >= 32)
                updates = _convolve(self.arrays, f'update.{k}', clipped, offset=False)
                for j, update in enumerate(np.split(updates, len(slices) - k), start=k):
                    contexts[j] = contexts[j] + update
        return Frame(self.data, rate, values, hyper)


def code_of(arrays: Arrays, frame: Frame) -> NDArray[np.float32]:
    """Return a frame's code."""
    gain = arrays['inverse_gain'][frame.rate][:, None, None]
    offset = arrays['rate_offset'][frame.rate][:, None, None]
    return (frame.values.astype(np.float32) / np.float32(64)) * gain + offset


def decode_frame(
    arrays: Arrays, data: bytes, shape: tuple[int, int, int], rate: int,
    slices: tuple[int, ...], key: Frame | None = None,
) -> Frame:
    """Return what a payload holds, which may refer to a key frame."""
    return Decoder(arrays, data, key).frame(shape, rate, slices)


def decode(
    arrays: Arrays, data: bytes, shape: tuple[int, int, int], rate: int, slices: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return the code that a payload holds."""
    return code_of(arrays, decode_frame(arrays, data, shape, rate, slices))

"""A second implementation of the codec: plain loops over plain numbers, slow and easy to check.

Nothing here uses torch's operators or the package; the tests compare the package with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = Mapping[str, Array]


def pack(symbols: Sequence[int], bits: int) -> bytes:
    """Write symbols into one long integer, the first in its lowest bits."""
    number = sum(symbol << (index * bits) for index, symbol in enumerate(symbols))
    return number.to_bytes(math.ceil(len(symbols) * bits / 8), 'little')


def unpack(data: bytes, count: int, bits: int) -> list[int]:
    """Read symbols bit by bit."""
    stream = [(byte >> bit) & 1 for byte in data for bit in range(8)]
    return [
        sum(stream[index * bits + bit] << bit for bit in range(bits)) for index in range(count)
    ]


def value(symbol: int, bits: int) -> Fraction:
    """Return the exact value of a symbol."""
    return Fraction(2 * symbol, 2**bits - 1) - 1


def step(bits: int) -> Fraction:
    """Return the exact distance of neighbouring values."""
    return Fraction(2, 2**bits - 1)


def align(x: Array, size: tuple[int, int]) -> Array:
    """Resample C x h x w: rows, then columns, each by areas or linearly."""
    return _resample(_resample(x, 1, size[0]), 2, size[1])


def _resample(x: Array, axis: int, length: int) -> Array:
    source = x.shape[axis]
    lines = np.moveaxis(x, axis, 0)
    result = []
    for index in range(length):
        if length < source:
            start = index * source // length
            stop = math.ceil((index + 1) * source / length)
            result.append(sum(lines[k] for k in range(start, stop)) / (stop - start))
        else:
            centre = max((index + 0.5) * source / length - 0.5, 0.0)
            below = min(math.floor(centre), source - 1)
            above = min(below + 1, source - 1)
            share = centre - below
            result.append((1 - share) * lines[below] + share * lines[above])
    return np.moveaxis(np.stack(result), 0, axis)


def conv(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Convolve C x h x w with an odd kernel, zeros around."""
    out_channels, _, rows, columns = weight.shape
    height, width = x.shape[1:]
    padded = np.pad(x, ((0, 0), (rows // 2,) * 2, (columns // 2,) * 2))
    result = np.zeros((out_channels, height, width))
    for y in range(height):
        for z in range(width):
            window = padded[:, y : y + rows, z : z + columns]
            result[:, y, z] = (weight * window).sum(axis=(1, 2, 3))
    return result if bias is None else result + bias[:, None, None]


def squeeze_excite(x: Array, w: Weights, prefix: str) -> Array:
    """Scale channels by a small network of their means."""
    means = x.mean(axis=(1, 2))
    hidden = w[f'{prefix}.fc1.weight'][:, :, 0, 0] @ means + w[f'{prefix}.fc1.bias']
    hidden = np.maximum(hidden, 0)
    scale = w[f'{prefix}.fc2.weight'][:, :, 0, 0] @ hidden + w[f'{prefix}.fc2.bias']
    return x / (1 + np.exp(-scale))[:, None, None]


def msff(maps: Sequence[Array], size: tuple[int, int], w: Weights) -> Array:
    """Fuse levels into one map."""
    stacked = np.concatenate([align(level, size) for level in maps])
    weighted = squeeze_excite(stacked, w, 'msff.se')
    return conv(weighted, w['msff.reduce.weight'], w['msff.reduce.bias'])


def ssfc_encoder(fused: Array, w: Weights) -> Array:
    """Reduce channels; batch norm with its running statistics."""
    x = conv(fused, w['encoder.conv.weight'])
    scale = w['encoder.norm.weight'] / np.sqrt(w['encoder.norm.running_var'] + 1e-5)
    offset = w['encoder.norm.bias'] - w['encoder.norm.running_mean'] * scale
    return np.tanh(x * scale[:, None, None] + offset[:, None, None])


def ssfc_decoder(code: Array, w: Weights) -> Array:
    """Restore channels."""
    x = conv(code, w['decoder.conv.weight'], w['decoder.conv.bias'])
    return np.where(x >= 0, x, w['decoder.activation.weight'][0] * x)


def msfr(fused: Array, sizes: Sequence[tuple[int, int]], w: Weights) -> list[Array]:
    """Rebuild p2' .. p5' and p6'."""
    levels = [align(fused, sizes[0])]
    for index, size in enumerate(sizes[1:]):
        weight, bias = w[f'msfr.convs.{index}.weight'], w[f'msfr.convs.{index}.bias']
        levels.append(conv(align(levels[-1], size), weight, bias) + align(fused, size))
    return [*levels, levels[-1][:, ::2, ::2]]


def codec(
    maps: Sequence[Array],
    fused_index: int,
    w: Weights,
    quantiser: Callable[[Array], Array] = lambda code: code,
) -> list[Array]:
    """Compress and rebuild a pyramid p2 .. p5; the result has p6' as well."""
    size = maps[fused_index].shape[1:]
    code = quantiser(ssfc_encoder(msff(maps, (size[0], size[1]), w), w))
    return msfr(ssfc_decoder(code, w), [(x.shape[1], x.shape[2]) for x in maps], w)

"""The integer network that decides the probabilities of coding 1: the same on every machine.

All its weights and activations are whole numbers. Its matrix products are taken in single
precision, since that is what is fast everywhere: every partial sum stays below 2**24, so that each
is exact, in whatever order and by whatever instructions it is made (Balle et al., *Integer
networks for data compression with latent-variable models*, ICLR 2019). That bound is checked for
the weights at hand when a network is built. ``docs/wire-format.md`` is the definition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]

ACTIVATION_BITS = 6
"""Fractional bits of activations, means and rebuilt values."""

WEIGHT_BITS = 8
"""Fractional bits of weights; sums have those of both."""

TOP_ACTIVATION = 1023
"""Hidden activations are 0 .. 1023."""

TOP_VALUE = 2047
"""Means, and rebuilt values as the network sees them, are -2047 .. 2047."""

TOP_WEIGHT = 511
"""Weights are -511 .. 511."""

EXACT = 2**24
"""Whole numbers up to it are exact in single precision."""

ROUNDING = 2**10
"""At most this is added to a sum before it is rounded."""

MAX_SLICES = 16
"""So many updates of a context add up to less than 2**31."""

SCALES = 64
"""Number of scales, and of tables."""

SCALE_SHIFT = ACTIVATION_BITS + WEIGHT_BITS - 3
"""A scale's index is the network's output without these bits: eighths."""


def whole(values: NDArray[Any], bits: int, top: int) -> Ints:
    """Return ``floor(values 2**bits + 1/2)``, clipped to ±top: the network's numbers of a model's.

    Exact in double precision for the single-precision numbers of a model, on every machine.
    """
    scaled = np.floor(np.asarray(values, np.float64) * 2.0**bits + 0.5)
    clipped: Ints = scaled.clip(-top, top).astype(np.int32)
    return clipped


class Layer:
    """A convolution of whole numbers.

    Args:
        weight: O x I x k x k, real weights.
        bias: O, real offsets.
        top: greatest absolute value of an input.

    Raises:
        ValueError: sums could leave the numbers that are exact.
    """

    def __init__(
        self, weight: NDArray[Any], bias: NDArray[Any], top: int
    ) -> None:
        integers = whole(weight, WEIGHT_BITS, TOP_WEIGHT)
        offsets = whole(bias, ACTIVATION_BITS + WEIGHT_BITS, EXACT)
        self.outputs, self.inputs = integers.shape[:2]
        self.bound = int(
            (np.abs(integers, dtype=np.int64).sum((1, 2, 3)) * top + np.abs(offsets)).max()
        )
        if self.bound + ROUNDING >= EXACT:
            raise ValueError(f'sums of the entropy network reach {self.bound}, past {EXACT}')
        # k x k x I x O: a row of inputs times this is a row of outputs.
        self.kernel: Floats = np.ascontiguousarray(integers.transpose(2, 3, 1, 0), np.float32)
        self.matrix: Floats = self.kernel.reshape(-1, self.outputs)
        self.offset: Floats = offsets.astype(np.float32)

    def __call__(self, rows: Floats) -> Floats:
        """Return M x O sums of M x (k k I) inputs."""
        sums: Floats = rows @ self.matrix
        sums += self.offset
        return sums

    def convolve(self, image: Floats) -> Floats:
        """Return h x w x O sums of a h x w x I image, zeros around it."""
        height, width = image.shape[:2]
        sums: Floats = self(patches(image, self.kernel.shape[0], 1))
        return sums.reshape(height, width, -1)


def patches(image: Floats, size: int, stride: int) -> Floats:
    """Return the size x size neighbourhoods of an image, zeros around it, a row each.

    Args:
        image: h x w x C.
        size: odd.
        stride: rows and columns between neighbourhoods.
    """
    edge, channels = size // 2, image.shape[2]
    if size == 1 and stride == 1:
        return image.reshape(-1, channels)
    padded = np.zeros(
        (image.shape[0] + 2 * edge, image.shape[1] + 2 * edge, channels), np.float32
    )
    padded[edge : edge + image.shape[0], edge : edge + image.shape[1]] = image
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size, channels))[:, :, 0]
    windows = windows[::stride, ::stride]
    return windows.reshape(windows.shape[0] * windows.shape[1], -1)


def rounded(sums: Floats, bits: int, low: int, high: int) -> Floats:
    """Return whole sums without their last bits, rounded half up and clipped; in place.

    Powers of two, sums below 2**24 and floor are exact in single precision.
    """
    sums += np.float32(1 << (bits - 1))
    sums *= np.float32(2.0**-bits)
    np.clip(sums, np.float32(low), np.float32(high), out=sums)
    return np.floor(sums, out=sums)


def rectify(sums: Floats) -> Floats:
    """Return the activations of sums, 0 .. 1023; in place."""
    return rounded(sums, WEIGHT_BITS, 0, TOP_ACTIVATION)


def rectify_context(context: Ints) -> Floats:
    """Return the activations of contexts, which may be beyond what single precision holds."""
    sums = context + np.int32(1 << (WEIGHT_BITS - 1))
    sums >>= WEIGHT_BITS
    np.clip(sums, 0, TOP_ACTIVATION, out=sums)
    return sums.astype(np.float32)


def clipped(values: Ints) -> Ints:
    """Return rebuilt values as the network sees them, -2047 .. 2047."""
    return np.clip(values, -TOP_VALUE, TOP_VALUE)


def spread(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Deal four times the channels out to 2 x 2 cells: h x w x 4C to size x C.

    Channel ``4 c + 2 i + j`` is channel c of the cell in row i, column j; what lies beyond
    ``size`` is left out.
    """
    height, width, channels = image.shape
    cells = image.reshape(height, width, channels // 4, 2, 2).transpose(0, 3, 1, 4, 2)
    return cells.reshape(2 * height, 2 * width, -1)[: size[0], : size[1]]


@dataclass(frozen=True)
class Board:
    """The two colours of a checkerboard of h x w cells, cells in order of rows.

    Attributes:
        cells: for each colour its cells' places in a map of h x w; the first has (0, 0).
        places: the same in a map with a cell more all around.
        edges: of the second colour's cells the four neighbours, all of the first: above, left,
            right, below.
        crosses: of the second colour's cells the five others: themselves and the diagonal ones.
        squares: of the first colour's cells all nine.
    """

    cells: tuple[NDArray[np.intp], NDArray[np.intp]]
    places: tuple[NDArray[np.intp], NDArray[np.intp]]
    edges: NDArray[np.intp]
    crosses: NDArray[np.intp]
    squares: NDArray[np.intp]


EDGES, CROSSES = (1, 3, 5, 7), (0, 2, 4, 6, 8)
"""Places in a 3 x 3 neighbourhood of the other colour's cells, and of the same colour's."""


@lru_cache(maxsize=8)
def board(height: int, width: int) -> Board:
    """Return the checkerboard of a size."""
    rows, columns = np.indices((height, width))
    colour = ((rows + columns) % 2).ravel()
    padded = ((rows + 1) * (width + 2) + columns + 1).ravel()
    cells = (np.flatnonzero(colour == 0), np.flatnonzero(colour == 1))
    places = (padded[cells[0]], padded[cells[1]])
    shifts = np.array([i * (width + 2) + j for i in (-1, 0, 1) for j in (-1, 0, 1)])
    around = [place[:, None] + shifts for place in places]
    return Board(
        cells, places,
        np.ascontiguousarray(around[1][:, EDGES]),
        np.ascontiguousarray(around[1][:, CROSSES]),
        np.ascontiguousarray(around[0]),
    )


class EntropyNetwork:
    """Means and scales of code values, from the hyper-latent and from values already known.

    Args:
        arrays: what :class:`~msfc.codecs.learned.entropy.EntropyModel` holds, by name.
        slices: how many channels are decoded at a time.

    Attributes:
        hyper_mean: R x C_z whole means of the hyper-latent.
        hyper_index: R x C_z indices of its scales.

    Raises:
        ValueError: the arrays do not fit each other, or sums would not be exact.
    """

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], slices: tuple[int, ...]
    ) -> None:
        def layer(name: str, top: int) -> Layer:
            return Layer(arrays[f'{name}.weight'], arrays[f'{name}.bias'], top)

        passes = range(2 * len(slices))
        sums = ACTIVATION_BITS + WEIGHT_BITS
        self.slices = slices
        self._first = layer('hyper_first', TOP_VALUE)
        self._spread = layer('hyper_spread', TOP_ACTIVATION)
        self._second = layer('hyper_second', TOP_ACTIVATION)
        self._last = layer('hyper_last', TOP_ACTIVATION)
        self._hidden = [layer(f'hidden.{k}', TOP_ACTIVATION) for k in passes]
        self._output = [layer(f'output.{k}', TOP_ACTIVATION) for k in passes]
        self._update = [layer(f'update.{k}', TOP_VALUE) for k in range(len(slices))]
        self._rate_hyper = whole(arrays['rate_hyper'], sums, EXACT)
        self._rate_context = whole(arrays['rate_context'], sums, EXACT)
        self.hyper_mean = whole(arrays['hyper_mean'], 0, TOP_VALUE)
        index = whole(arrays['hyper_scale'], 3, SCALES)
        self.hyper_index = index.clip(0, SCALES - 1).astype(np.uint8)
        self.hyper_channels = self._first.inputs
        self.rates = len(self.hyper_mean)
        self._width = self._hidden[0].inputs
        self._check()
        # By colour of the cells that learn of a slice and of those that it is known of.
        self._edges = [_part(update, EDGES) for update in self._update]
        self._crosses = [_part(update, CROSSES, self._width) for update in self._update[:-1]]
        self._squares = [_part(update, range(9), self._width) for update in self._update[:-1]]

    def _check(self) -> None:
        if len(self.slices) > MAX_SLICES:
            raise ValueError(f'{len(self.slices)} slices, but at most {MAX_SLICES} are possible')
        if any(update.offset.any() for update in self._update):
            raise ValueError('the entropy network adds known values without an offset')
        widths = [self._width * (len(self.slices) - k) for k in range(len(self.slices))]
        if [layer.outputs for layer in self._update] != widths:
            raise ValueError('the entropy network has not a context for each slice')
        if [layer.outputs for layer in self._output[::2]] != [2 * n for n in self.slices]:
            raise ValueError(f'the entropy network is not of slices {self.slices}')

    def begin(self, hyper: Ints, rate: int, size: tuple[int, int]) -> Context:
        """Return the context of an image before any code value is known.

        Args:
            hyper: C_z x h_z x w_z, the hyper-latent.
            rate: the image's.
            size: height and width of the code.
        """
        half = (-(-size[0] // 2), -(-size[1] // 2))
        seen = clipped(hyper.transpose(1, 2, 0) << ACTIVATION_BITS).astype(np.float32)
        sums = self._first.convolve(seen).astype(np.int32) + self._rate_hyper[rate]
        wide = spread(rectify(self._spread.convolve(rectify_context(sums))), half)
        deep = rectify(self._second.convolve(wide))
        context = spread(self._last.convolve(deep).astype(np.int32), size)
        context = context.reshape(size[0] * size[1], -1) + self._rate_context[rate]
        cells = board(*size)
        colours = [context[cells.cells[0]], context[cells.cells[1]]]
        return Context(size, colours)

    def predict(self, step: int, context: Context) -> tuple[Ints, NDArray[np.uint8]]:
        """Return means and indices of scales, each M x slice, of the M cells of one pass."""
        k, odd = divmod(step, 2)
        seen = rectify_context(context.sums[odd][:, k * self._width : (k + 1) * self._width])
        sums = self._output[step](rectify(self._hidden[step](seen)))
        count = sums.shape[1] // 2
        means = rounded(sums[:, :count].copy(), WEIGHT_BITS, -TOP_VALUE, TOP_VALUE)
        index = rounded(sums[:, count:].copy(), SCALE_SHIFT, 0, SCALES - 1)
        return means.astype(np.int32), index.astype(np.uint8)

    def learn(self, context: Context, step: int, values: Ints) -> None:
        """Add the values of a pass to the contexts of those to come.

        Args:
            context: the image's; it is changed.
            step: which pass.
            values: M x slice rebuilt values.
        """
        k, odd = divmod(step, 2)
        cells, sums = board(*context.size), context.sums
        if not odd:
            context.plane = np.zeros(
                ((context.size[0] + 2) * (context.size[1] + 2), self.slices[k]), np.float32
            )
        context.plane[cells.places[odd]] = clipped(values)
        if not odd:
            sums[1][:, k * self._width :] += _product(context.plane, cells.edges, self._edges[k])
        elif k + 1 < len(self.slices):
            later = slice((k + 1) * self._width, None)
            sums[0][:, later] += _product(context.plane, cells.squares, self._squares[k])
            sums[1][:, later] += _product(context.plane, cells.crosses, self._crosses[k])


@dataclass
class Context:
    """What is known of an image while its code is coded.

    Attributes:
        size: height and width of the code.
        sums: for each colour M x slices width: a context for each slice, side by side.
        plane: values of the slice at hand, a cell more all around.
    """

    size: tuple[int, int]
    sums: list[Ints]
    plane: Floats = None  # type: ignore[assignment]  # made by the first pass of each slice


def _part(layer: Layer, places: Sequence[int], first: int = 0) -> Floats:
    """Return a 3 x 3 kernel's matrix at some of its places, for outputs from ``first`` on."""
    kernel = layer.kernel.reshape(9, layer.inputs, layer.outputs)[list(places), :, first:]
    return np.ascontiguousarray(kernel.reshape(-1, layer.outputs - first))


def _product(plane: Floats, places: NDArray[np.intp], matrix: Floats) -> Ints:
    rows = plane.take(places.ravel(), axis=0).reshape(len(places), len(matrix))
    product: Ints = (rows @ matrix).astype(np.int32)
    return product

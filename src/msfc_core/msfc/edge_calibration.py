"""An edge bundle's graph in whole numbers of 8 bits, calibrated with pictures.

ONNX Runtime's quantiser measures the range of each tensor on the pictures, and puts a pair of
``QuantizeLinear`` and ``DequantizeLinear`` around it; runtimes run what lies between two such
pairs in whole numbers. Backbone and FPN become so, weights by channel. The codec stays in floating
point: its few operations make the symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from msfc.bags.images import extract_images
from msfc.bags.reading import STORAGE
from msfc.data.files import find_pictures
from msfc.preprocessing import Pixels
from msfc.progress import StageProgress, no_progress

INT8 = 'int8'

FEWEST_PICTURES = 8
"""With fewer the ranges would be those of single scenes."""

MOST_PICTURES = 200
"""Of a longer bag or larger folder so many are taken, evenly spread."""

CHECKED = 4
"""Pictures that are kept for the check, where nobody names others."""

SCOPES = 'pkg.torch.onnx.name_scopes'
"""Where PyTorch's exporter notes the modules that an operation comes from."""


@dataclass(frozen=True)
class Pictures:
    """Image files for an export.

    Attributes:
        check: to compare the graph with PyTorch on.
        calibration: to measure ranges on; none of them is in ``check`` by itself.
    """

    check: Sequence[Path]
    calibration: Sequence[Path] = ()


def check_calibration(precision: str, calibration: Path | None) -> None:
    """Refuse a precision without the pictures that it needs, or pictures that it does not need.

    Raises:
        ValueError: the two do not go together.
    """
    if precision == INT8 and calibration is None:
        raise ValueError(
            'precision int8 needs calibration: pictures of what the robot will see, a folder of '
            f'{FEWEST_PICTURES} to {MOST_PICTURES} of them or a bag of its camera (--calibration)'
        )
    if precision != INT8 and calibration is not None:
        raise ValueError(f'calibration is for precision int8, but precision is {precision}')


def choose_pictures(
    images: Path | None,
    calibration: Path,
    scratch: Path,
    progress: StageProgress = no_progress,
) -> Pictures:
    """Find the pictures to calibrate and to check with.

    Args:
        images: folder of the latter; a few of the former if None, which then do not calibrate.
        calibration: folder of pictures, or a bag with camera images.
        scratch: folder for the images of a bag.
        progress: shows how far the bag is.

    Raises:
        OSError: there are no such pictures.
        ValueError: there are too few, or the bag has none.
    """
    if is_bag(calibration):
        found = find_pictures(
            extract_images(calibration, scratch, progress=progress, most=MOST_PICTURES)
        )
    elif calibration.is_dir():
        found = find_pictures(calibration)
    else:
        raise FileNotFoundError(f'{calibration} is neither a folder of pictures nor a bag')
    check = [] if images is None else find_pictures(images)
    needed = FEWEST_PICTURES + (0 if check else CHECKED)
    if len(found) < needed:
        raise ValueError(
            f'{calibration} has {len(found)} pictures, but calibration needs {needed} or more, '
            'of different scenes'
        )
    if not check:
        check = spread(found, CHECKED)
        found = [path for path in found if path not in set(check)]
    return Pictures(check, spread(found, MOST_PICTURES))


def is_bag(path: Path) -> bool:
    """Return whether a path is a bag: a storage file, or a folder with one."""
    if path.is_dir():
        return any(file.suffix in STORAGE for file in path.iterdir())
    return path.is_file() and path.suffix in STORAGE


def spread(paths: Sequence[Path], most: int) -> list[Path]:
    """Return so many of a sequence at most, evenly spread."""
    if len(paths) <= most:
        return list(paths)
    return [paths[index * len(paths) // most] for index in range(most)]


class _Inputs(CalibrationDataReader):
    """Gives the quantiser network inputs, one by one."""

    def __init__(self, name: str, inputs: Iterator[Pixels]) -> None:
        self._name = name
        self._inputs = inputs

    def get_next(self) -> dict[str, Pixels] | None:
        pixels = next(self._inputs, None)
        return None if pixels is None else {self._name: pixels}


def quantise(
    path: Path,
    pictures: Sequence[Path],
    read: Callable[[Path], NDArray[np.uint8]],
    preprocess: Callable[[NDArray[np.uint8]], Pixels],
    progress: StageProgress = no_progress,
) -> None:
    """Replace a graph by one that computes backbone and FPN in whole numbers of 8 bits.

    Weights take 7 of the 8 bits: processors without VNNI add products of 8-bit numbers in 16
    bits, which would overflow.

    Args:
        path: ONNX file in single precision, as PyTorch's exporter writes it.
        pictures: to measure the ranges of tensors on.
        read: returns the image of a file, H x W x 3, uint8, BGR.
        preprocess: returns the network input of an image, 1 x 3 x H x W.
        progress: shows how far it is.

    Raises:
        OSError: a picture cannot be read.
    """
    name, codec = _input_and_codec(path)

    def inputs() -> Iterator[Pixels]:
        for index, picture in enumerate(pictures):
            progress(index, len(pictures), 'calibrating')
            yield preprocess(read(picture))

    prepared = path.with_suffix('.prepared.onnx')
    try:
        quant_pre_process(path, prepared, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            path,
            _Inputs(name, inputs()),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=codec,
            calibrate_method=CalibrationMethod.MinMax,
        )
    finally:
        prepared.unlink(missing_ok=True)


def _input_and_codec(path: Path) -> tuple[str, list[str]]:
    """Return the names of a graph's input, and of the operations of the codec."""
    graph = onnx.load(path).graph
    codec = [
        node.name
        for node in graph.node
        if any(entry.key == SCOPES and "'codec." in entry.value for entry in node.metadata_props)
    ]
    return graph.input[0].name, codec

"""Makes of a model's robot half an edge bundle, for robots without PyTorch."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msfc.data.files import find_pictures
from msfc.edge_bundle import (
    DESCRIPTION_FILE,
    GRAPH_FILES,
    TABLES_FILE,
    EdgeBundle,
    check_format,
    write_description,
)
from msfc.edge_calibration import (
    INT8,
    Pictures,
    check_calibration,
    choose_pictures,
    quantise,
)
from msfc.evaluation.versions import library_versions
from msfc.model import SplitModel
from msfc.model_file import DESCRIPTION_FILE as MODEL_DESCRIPTION
from msfc.model_file import ZOO, load_model
from msfc.output import check_output_folder
from msfc.pipeline.graph_network import GraphNetwork, open_graph
from msfc.pipeline.torch_network import TorchEdgeNetwork
from msfc.progress import StageProgress, no_progress
from msfc.types import ImageBatch, ImageSizes

PICTURES = ZOO / 'pictures'
"""Pictures of the tabletop world that bundles are checked with where nobody names others."""

OPSET = 20
"""Version of ONNX's operators, of 2023: what the runtimes of two years understand."""

TRACE = 'pkg.torch.onnx.stack_trace'
"""Where PyTorch's exporter notes the source files, with their folders, of each operation."""

TRACED_SIZE = 256
"""Height in pixels of the network input that the graph is traced with; any other is as good."""

MOST_UNITS = 512
"""Longest edge of the network input, in multiples of what it is padded to."""

TOLERANCES = {'fp32': 1e-3, 'fp16': 2e-2, 'bf16': 1e-1, INT8: 2e-1}
"""Of a code's difference, root mean square over that of the code, with each precision; where a
graph differs by more, the export is taken for wrong."""


@dataclass(frozen=True)
class EdgeCheck:
    """How a graph's codes differ from PyTorch's on some pictures.

    Attributes:
        pictures: how many.
        calibrated: pictures that the graph's ranges were measured on.
        runtime: that the graph ran in.
        largest_difference: of an element of the codes.
        relative_difference: root mean square of it, over that of the codes.
        rate: that symbols were written at.
        symbols: how many there were.
        changed: how many of them were others.
    """

    pictures: int
    calibrated: int
    runtime: str
    largest_difference: float
    relative_difference: float
    rate: int
    symbols: int
    changed: int


class EdgeHalf(nn.Module):
    """The robot's half of a model as one module: network input to code.

    Args:
        model: a model with a codec, in evaluation mode.
    """

    def __init__(self, model: SplitModel) -> None:
        super().__init__()
        self.detector = model.detector
        self.codec = model.require_codec()

    def forward(self, image: Tensor) -> Tensor:
        """Map 1 x 3 x H x W, normalised and padded, to the code, 1 x C' x h x w."""
        size = (image.shape[2], image.shape[3])
        batch = ImageBatch(image, ImageSizes((size,), (size,), size))
        return self.codec.analyse(self.detector.extract(batch)).float()


def export_edge(
    source: str,
    destination: Path,
    graph_format: str = 'onnx',
    precision: str = 'fp32',
    images: Path | None = None,
    progress: StageProgress = no_progress,
    calibration: Path | None = None,
) -> EdgeBundle:
    """Write an edge bundle, and check it against PyTorch first.

    Args:
        source: folder of a model with a codec, or name of a shipped one.
        destination: folder to write; a bundle in it is replaced.
        graph_format: ``onnx`` or ``openvino``.
        precision: that the graph is to run in, see :data:`msfc.edge_bundle.PRECISIONS`.
        images: folder of pictures to check with; if None some that come with msfc, or of those
            for calibration.
        progress: shows how far it is.
        calibration: for ``int8``, and for that alone: folder of pictures of what the robot will
            see, or a bag with camera images.

    Returns:
        What was written; its ``check`` is an :class:`EdgeCheck` as a dictionary.

    Raises:
        OSError: something is missing or cannot be written.
        ValueError: there is no such format, the model cannot be exported, or the graph gives
            other codes than PyTorch.
    """
    check_format(graph_format, precision)
    check_calibration(precision, calibration)
    if (destination / MODEL_DESCRIPTION).exists():
        raise ValueError(f'{destination} has a model in it: choose another destination')
    check_output_folder(destination)
    with tempfile.TemporaryDirectory(prefix='msfc-') as scratch:
        if calibration is None:
            pictures = Pictures(find_pictures(images or PICTURES))
        else:
            pictures = choose_pictures(images, calibration, Path(scratch), progress)
        progress(0, 3, 'loading')
        model = load_model(source)
        return _export(
            model, describe(model, graph_format, precision), destination, pictures, progress
        )


def _export(
    model: SplitModel,
    bundle: EdgeBundle,
    destination: Path,
    pictures: Pictures,
    progress: StageProgress,
) -> EdgeBundle:
    """Write and check what is described; return it with its check."""
    destination.mkdir(parents=True, exist_ok=True)
    # All that can fail happens beside an earlier bundle.
    with tempfile.TemporaryDirectory(prefix='.export-', dir=destination) as name:
        folder = Path(name)
        bundle = replace(bundle, folder=folder)
        progress(1, 3, 'exporting')
        write_graph(model, bundle, pictures.calibration, progress)
        progress(2, 3, 'checking')
        check = replace(
            compare(model, bundle, pictures.check), calibrated=len(pictures.calibration)
        )
        _refuse_difference(check, bundle.precision)
        bundle = replace(bundle, check=asdict(check))
        write_description(bundle, folder, model.require_codec().coder_arrays())
        _move(folder, destination)
    progress(3, 3, 'done')
    return replace(bundle, folder=destination)


def _refuse_difference(check: EdgeCheck, precision: str) -> None:
    """Refuse a graph that differs from PyTorch by more than its precision explains.

    Raises:
        ValueError: it does.
    """
    if check.relative_difference <= TOLERANCES[precision]:
        return
    advice = (
        ': the pictures for calibration have to be such as those that it is checked with'
        if precision == INT8
        else ''
    )
    raise ValueError(
        f'the exported graph gives other codes than PyTorch: {check.runtime} differs by '
        f'{check.relative_difference:.1%} (root mean square), and {TOLERANCES[precision]:.1%} is '
        f'the most for {precision}{advice}'
    )


def describe(model: SplitModel, graph_format: str, precision: str) -> EdgeBundle:
    """Return what a model's bundle will say.

    Raises:
        ValueError: the model has no codec, or its images cannot be prepared without PyTorch.
    """
    codec, detector = model.require_codec(), model.detector
    preprocessing = detector.preprocessing()
    # A network input so large that rounding hides nothing.
    side = 64 * max(preprocessing.divisibility, *detector.strides.values())
    _, height, _ = model.code_shape((side, side))
    tools = ('onnx', 'onnxscript', 'onnxruntime' if graph_format == 'onnx' else 'openvino')
    return EdgeBundle(
        graph_format=graph_format,
        precision=precision,
        preprocessing=preprocessing,
        code_channels=codec.code_channels,
        code_stride=side // height,
        feature_channels=detector.feature_channels,
        strides=detector.strides,
        coder_settings=codec.coder_settings(),
        rate=model.rate,
        fingerprint=model.fingerprint,
        coder=codec.coder(),
        versions=library_versions() | {name: version(name) for name in tools},
    )


def write_graph(
    model: SplitModel,
    bundle: EdgeBundle,
    calibration: Sequence[Path] = (),
    progress: StageProgress = no_progress,
) -> None:
    """Write a model's graph into a bundle's folder.

    Args:
        model: the model.
        bundle: its description.
        calibration: for precision ``int8``, pictures.
        progress: shows how far these are.

    Raises:
        OSError: it cannot be written.
        ValueError: the model cannot be exported.
    """
    path = bundle.folder / GRAPH_FILES['onnx'][0]
    write_onnx(model, path, bundle.preprocessing.divisibility)
    if bundle.precision == INT8:
        quantise(path, calibration, _read, lambda image: bundle.preprocessing(image)[0], progress)
    if bundle.graph_format == 'openvino':
        _onnx_to_openvino(path, bundle)
    elif bundle.precision == 'fp16':
        # ONNX Runtime comes with it; its import says nothing of a GPU that is not there.
        from onnxruntime.transformers.float16 import convert_float_to_float16

        onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), path)


def write_onnx(model: SplitModel, path: Path, divisibility: int) -> None:
    """Write the robot's half of a model as an ONNX file in single precision.

    Args:
        model: the model.
        path: the file.
        divisibility: height and width of the network input are multiples of this, and free.

    Raises:
        OSError: it cannot be written.
        ValueError: the model cannot be exported.
    """
    height, width = (torch.export.Dim(name, min=1, max=MOST_UNITS) for name in ('rows', 'columns'))
    # Two different edges, neither of one unit only: what is equal or 1 would be taken for fixed.
    edge = -(-TRACED_SIZE // divisibility) * divisibility
    example = torch.zeros(1, 3, edge, edge + divisibility)
    try:
        with torch.inference_mode():
            program = torch.onnx.export(
                EdgeHalf(model).eval(),
                (example,),
                dynamo=True,
                verbose=False,
                input_names=['image'],
                output_names=['code'],
                dynamic_shapes=({2: divisibility * height, 3: divisibility * width},),
                opset_version=OPSET,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().partition('\n')[0]
        raise ValueError(f'the model cannot be made a graph with free size: {reason}') from error
    assert program is not None  # None is for other exporters
    for node in program.model.graph:
        node.metadata_props.pop(TRACE, None)
    program.save(path, external_data=False)


def _onnx_to_openvino(path: Path, bundle: EdgeBundle) -> None:
    from msfc.pipeline.openvino_graph import convert_onnx

    convert_onnx(path, bundle.folder / GRAPH_FILES['openvino'][0], bundle.precision != 'fp32')
    path.unlink()


def compare(model: SplitModel, bundle: EdgeBundle, pictures: Sequence[Path]) -> EdgeCheck:
    """Run PyTorch and a bundle's graph on pictures, each with its own preprocessing.

    Args:
        model: the model.
        bundle: with the graph of it; nothing else need be in its folder.
        pictures: image files.

    Raises:
        FileNotFoundError: one is no image.
        ValueError: the graph cannot be loaded.
    """
    graph = open_graph(bundle)
    networks = (TorchEdgeNetwork(model), GraphNetwork(bundle, graph))
    coder, rate = bundle.coder, bundle.rate
    steps = coder.steps(rate)[:, None, None]
    largest, squares, total, symbols, changed = 0.0, 0.0, 0.0, 0, 0
    for picture in pictures:
        image = _read(picture)
        exact, given = (network(image).code for network in networks)
        difference = given.astype(np.float64) - exact
        largest = max(largest, float(np.abs(difference).max()))
        squares += float(np.square(difference).sum())
        total += float(np.square(exact.astype(np.float64)).sum())
        channels, height, width = exact.shape
        received = [
            coder.read(coder.write(code, rate), (channels, height, width), rate)
            for code in (exact, given)
        ]
        symbols += exact.size
        changed += int((np.abs(received[0] - received[1]) > steps / 2).sum())
    relative = float(np.sqrt(squares / total)) if total else float(squares > 0)
    return EdgeCheck(
        len(pictures), 0, graph.hardware, largest, relative, rate, symbols, changed
    )


def _read(path: Path) -> NDArray[np.uint8]:
    image: Any = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise FileNotFoundError(f'{path} is missing or not an image')
    return np.asarray(image, np.uint8)


def _move(folder: Path, destination: Path) -> None:
    """Put a bundle's files in their place; the description comes last, and tells of the others."""
    names = {path.name for path in folder.iterdir()}
    known = {name for files in GRAPH_FILES.values() for name in files} | {TABLES_FILE}
    for name in sorted(known - names):
        (destination / name).unlink(missing_ok=True)
    for name in [*sorted(names - {DESCRIPTION_FILE}), DESCRIPTION_FILE]:
        shutil.move(os.fspath(folder / name), os.fspath(destination / name))

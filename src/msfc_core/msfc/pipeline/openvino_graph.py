"""Graphs of edge bundles in OpenVINO."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfc.edge_bundle import BundleError, EdgeBundle
from msfc.preprocessing import Pixels

# OpenVINO tells its makers what it is used for, by a forked process that the node would wait for
# at its end. A robot reports to nobody: without this module OpenVINO has a stub.
sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
import openvino  # noqa: E402

from msfc.pipeline.compiled_graphs import compile_graph  # noqa: E402

HINTS = {'fp32': 'f32', 'fp16': 'f16', 'bf16': 'bf16', 'int8': 'f32'}
"""OpenVINO's names of precisions, in ``int8`` of what is left in floating point. One that a
processor does not have it replaces by float32."""


@cache
def shared_core() -> openvino.Core:
    """Return OpenVINO's core, one for the process.

    Its CPU plugin gives the thread a stack for signal handlers, and takes it back when a core
    goes: of two cores the first's memory is gone when the second restores it, and the next signal
    kills the process.
    """
    return openvino.Core()


def convert_onnx(source: Path, target: Path, half: bool) -> None:
    """Write a graph in OpenVINO's own format.

    Args:
        source: the ONNX file.
        target: the ``.xml`` file; the weights lie beside it, ``.bin``.
        half: store weights in half precision.
    """
    openvino.save_model(shared_core().read_model(source), target, compress_to_fp16=half)


class OpenVinoGraph:
    """A graph in OpenVINO; see :class:`msfc.pipeline.graph_network.Graph`.

    Args:
        bundle: the bundle, of either format.
        device: as OpenVINO names it, in small letters too; ``auto`` is the CPU.
        threads: for work on the CPU; 0 leaves it to OpenVINO.

    Raises:
        BundleError: the graph cannot be loaded.
        ValueError: there is no such device.
    """

    def __init__(self, bundle: EdgeBundle, device: str = 'auto', threads: int = 0) -> None:
        core = shared_core()
        name = 'CPU' if device == 'auto' else device.upper()
        if name not in core.available_devices:
            raise ValueError(
                f"device is '{device}', but OpenVINO finds {', '.join(core.available_devices)} "
                'here'
            )
        settings: dict[str, Any] = {'PERFORMANCE_HINT': 'LATENCY'}
        if bundle.precision in HINTS:
            settings['INFERENCE_PRECISION_HINT'] = HINTS[bundle.precision]
        if threads and name == 'CPU':
            settings['INFERENCE_NUM_THREADS'] = threads
        try:
            self._compiled = compile_graph(
                core, bundle.graph, bundle.files, name, settings
            )
            (output,) = self._compiled.outputs
        except (RuntimeError, ValueError) as error:
            raise BundleError(
                f'OpenVINO cannot load {bundle.graph}: {_last_line(error)}'
            ) from error
        shape = output.partial_shape
        known = len(shape) == 4 and shape[1].is_static
        self.code_channels = shape[1].get_length() if known else 0
        version = openvino.get_version().partition('-')[0]
        self.hardware = f'OpenVINO {version}, {name}'

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        """Compute the code, 1 x C' x h x w, of a network input, 1 x 3 x H x W."""
        return np.asarray(self._compiled(pixels)[0], np.float32)


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition('\n')[2]

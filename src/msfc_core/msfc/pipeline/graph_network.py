"""The robot's half of a model from an edge bundle, in ONNX Runtime or OpenVINO.

Importing this module imports neither PyTorch nor a runtime.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from msfc.edge_bundle import BundleError, EdgeBundle
from msfc.pipeline.edge import EdgePipeline
from msfc.pipeline.edge_network import EdgeOutput
from msfc.pipeline.stopwatch import Stopwatch
from msfc.preprocessing import Pixels

BACKENDS = {'onnx': ('onnxruntime', 'openvino'), 'openvino': ('openvino',)}
"""The runtimes that run each format's graphs, the one that ``auto`` prefers first."""


class Graph(Protocol):
    """A graph in a runtime.

    Attributes:
        hardware: what it runs on, in words.
        code_channels: channels of its output.
    """

    hardware: str
    code_channels: int

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        """Compute the code, 1 x C' x h x w, of a network input, 1 x 3 x H x W."""


class GraphNetwork:
    """An :class:`~msfc.pipeline.edge_network.EdgeNetwork` that runs a bundle's graph.

    Args:
        bundle: the bundle.
        graph: its graph.

    Raises:
        BundleError: the graph gives other codes than the bundle says.
    """

    def __init__(self, bundle: EdgeBundle, graph: Graph) -> None:
        if graph.code_channels != bundle.code_channels:
            raise BundleError(
                f'the graph {bundle.graph} gives codes of {graph.code_channels} channels, its '
                f'description says {bundle.code_channels}'
            )
        self._bundle = bundle
        self._graph = graph

    def __call__(self, image: NDArray[np.uint8]) -> EdgeOutput:
        """Compute the code of one image; the graph's time is all that of ``backbone``.

        Args:
            image: H x W x 3, uint8, BGR; any strides, may be read-only.

        Raises:
            RuntimeError: the graph gives a code of another size than the bundle says.
        """
        watch = Stopwatch()
        pixels, sizes = self._bundle.preprocessing(image)
        durations = {'preprocess': watch.lap()}
        code = self._graph(pixels)[0]
        durations |= {'backbone': watch.lap(), 'encode': 0.0}
        expected = (self._bundle.code_channels, *self._bundle.code_size(sizes.padded))
        if code.shape != expected:
            raise RuntimeError(
                f'the graph {self._bundle.graph} gave a code of shape {code.shape} in place of '
                f'{expected}'
            )
        return EdgeOutput(code, sizes, durations)


def open_graph(
    bundle: EdgeBundle,
    backend: str = 'auto',
    providers: Sequence[str] = (),
    device: str = 'auto',
    threads: int = 0,
) -> Graph:
    """Load a bundle's graph.

    Args:
        bundle: the bundle.
        backend: ``onnxruntime``, ``openvino``, or ``auto`` for the first of them that is
            installed and runs graphs of the bundle's format.
        providers: of ONNX Runtime, the first that can run an operation does; none for what is
            best of CUDA and the CPU.
        device: of OpenVINO, such as ``cpu`` or ``gpu``; ``auto`` is the CPU.
        threads: for work on the CPU; 0 leaves it to the runtime.

    Raises:
        BundleError: the graph cannot be loaded.
        ValueError: there is no such backend, provider or device, or it does not run this graph.
        ImportError: no runtime for it is installed.
    """
    chosen = choose_backend(bundle, backend)
    if chosen == 'onnxruntime':
        if device not in ('auto', 'cpu'):
            raise ValueError(
                f"device is '{device}', but ONNX Runtime chooses it by its providers: set those"
            )
        from msfc.pipeline.onnxruntime_graph import OnnxRuntimeGraph

        return OnnxRuntimeGraph(bundle, providers, threads)
    if providers:
        raise ValueError('providers are those of ONNX Runtime, but this runs in OpenVINO')
    from msfc.pipeline.openvino_graph import OpenVinoGraph

    return OpenVinoGraph(bundle, device, threads)


def choose_backend(bundle: EdgeBundle, backend: str = 'auto') -> str:
    """Return the runtime to take; see :func:`open_graph`."""
    able = BACKENDS[bundle.graph_format]
    if backend == 'auto':
        for name in able:
            if importlib.util.find_spec(name) is not None:
                return name
        raise ImportError(
            f'{bundle.folder} needs {" or ".join(able)}, and neither is installed: '
            f'pip install {able[0]}'
            if len(able) > 1
            else f'{bundle.folder} needs {able[0]}, which is not installed: pip install {able[0]}'
        )
    if backend not in able:
        raise ValueError(
            f'{bundle.folder} is an edge bundle of format {bundle.graph_format}, which runs in '
            f"{' or '.join(able)}, not in '{backend}'"
        )
    return backend


def bundle_pipeline(
    bundle: EdgeBundle, graph: Graph, rate: int | None = None, key_interval: int = 0
) -> EdgePipeline:
    """Return the pipeline that runs a bundle.

    Args:
        bundle: the bundle.
        graph: its graph, see :func:`open_graph`.
        rate: one that the codec's coder knows; the bundle's default if not given.
        key_interval: frames from one key frame to the next; 0 for none.

    Raises:
        BundleError: the graph does not fit the bundle.
        ValueError: the rate is unknown, or there are to be key frames and the coder has none.
    """
    return EdgePipeline(
        GraphNetwork(bundle, graph),
        bundle.coder,
        bundle.fingerprint,
        bundle.rate if rate is None else rate,
        key_interval,
    )

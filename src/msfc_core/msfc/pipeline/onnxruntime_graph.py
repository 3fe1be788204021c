"""Graphs of edge bundles in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from msfc.edge_bundle import BundleError, EdgeBundle
from msfc.preprocessing import Pixels

PREFERRED = ('CUDAExecutionProvider', 'CPUExecutionProvider')
"""Taken where nobody names providers. TensorRT is not among them: it builds for minutes first."""

SUFFIX = 'ExecutionProvider'

ERRORS_ONLY = 3


class OnnxRuntimeGraph:
    """A graph in ONNX Runtime; see :class:`msfc.pipeline.graph_network.Graph`.

    Args:
        bundle: the bundle, of format ``onnx``.
        providers: by ONNX Runtime's names, whose ``ExecutionProvider`` may be left out; none for
            :data:`PREFERRED`.
        threads: for work on the CPU; 0 leaves it to ONNX Runtime.

    Raises:
        BundleError: the graph cannot be loaded.
        ValueError: a provider is not there, or does not start.
    """

    def __init__(
        self, bundle: EdgeBundle, providers: Sequence[str] = (), threads: int = 0
    ) -> None:
        wanted = choose_providers(providers, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS_ONLY
        # Threads that wait for work would keep cores busy that other nodes need.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        try:
            self._session = onnxruntime.InferenceSession(
                str(bundle.graph), options, providers=wanted
            )
            (given,), (made,) = self._session.get_inputs(), self._session.get_outputs()
        except Exception as error:  # its exceptions have no common base
            raise BundleError(
                f'ONNX Runtime cannot load {bundle.graph}: {_first_line(error)}'
            ) from error
        used = self._session.get_providers()
        if providers and used[0] != wanted[0]:
            raise ValueError(
                f'the provider {wanted[0]} does not start here; ONNX Runtime took {used[0]}'
            )
        self._input = given.name
        self.code_channels = made.shape[1] if len(made.shape) == 4 else 0
        self.hardware = f'ONNX Runtime {onnxruntime.__version__}, {used[0].removesuffix(SUFFIX)}'

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        """Compute the code, 1 x C' x h x w, of a network input, 1 x 3 x H x W."""
        (code,) = self._session.run(None, {self._input: pixels})
        return np.asarray(code, np.float32)


def choose_providers(wanted: Sequence[str], available: Sequence[str]) -> list[str]:
    """Return the providers to ask for, in order.

    Args:
        wanted: as :class:`OnnxRuntimeGraph` takes them.
        available: those that ONNX Runtime was built with.

    Raises:
        ValueError: one is not available.
    """
    if not wanted:
        return [name for name in PREFERRED if name in available]
    known = {name.lower(): name for name in available}
    asked = [name if name.endswith(SUFFIX) else f'{name}{SUFFIX}' for name in wanted]
    names = [known.get(name.lower(), name) for name in asked]
    missing = [name for name in names if name not in available]
    if missing:
        raise ValueError(
            f'ONNX Runtime has no provider {", ".join(missing)} here; it has '
            f'{", ".join(available)}'
        )
    return names


def _first_line(error: Exception) -> str:
    return str(error).strip().partition('\n')[0]

"""The robot's half of a model, of a model or of an edge bundle: which it is, and loading it.

PyTorch is imported for models alone: with a bundle the node's process is without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rclpy.node import Node

from msfc.edge_bundle import is_bundle, read_bundle
from msfc.pipeline.edge import EdgePipeline
from msfc.pipeline.graph_network import bundle_pipeline, open_graph
from msfc.types import Size, pyramid_sizes
from msfc_ros.model_parameters import ModelParameters
from msfc_ros.parameters import declare

if TYPE_CHECKING:
    from msfc.model import SplitModel

BACKENDS = ('auto', 'torch', 'onnxruntime', 'openvino')


@dataclass(frozen=True)
class RobotHalf:
    """What the node needs to know of the half that it runs.

    Attributes:
        pipeline: image to packet.
        hardware: what it runs on, in words.
        code_channels: channels C' of the code.
        feature_channels: channels C of the pyramid.
        strides: of the pyramid's levels, without ``p6``.
    """

    pipeline: EdgePipeline
    hardware: str
    code_channels: int
    feature_channels: int
    strides: Mapping[str, int]

    def pyramid_sizes(self, padded: Size) -> dict[str, Size]:
        """Return the size of each level ``p2`` .. ``p6`` for a padded network input size."""
        return pyramid_sizes(self.strides, padded)


class RobotHalfParameters:
    """Which model or bundle, and what runs it: declares the parameters of a node.

    Args:
        node: the node.

    Attributes:
        model: name of a shipped model, or a directory of a model or a bundle.

    Raises:
        ValueError: if a parameter has a value that it cannot have.
    """

    def __init__(self, node: Node) -> None:
        self._model = ModelParameters(node)
        self.model = self._model.model
        self._backend: str = declare(
            node,
            'backend',
            'auto',
            "What runs the network: 'torch' a model; 'onnxruntime' or 'openvino' an edge bundle, "
            "as msfc export-edge writes it; 'auto' what fits and is installed.",
            choices=BACKENDS,
            read_only=True,
        )
        self._providers: str = declare(
            node,
            'providers',
            '',
            'Execution providers of ONNX Runtime, the preferred one first, with commas between: '
            "'Tensorrt, CUDA, CPU'. Empty for CUDA where there is it, else the CPU.",
            read_only=True,
        )

    def load(self, make_pipeline: Callable[[SplitModel], EdgePipeline] | None) -> RobotHalf:
        """Load the model or the bundle.

        Args:
            make_pipeline: makes the pipeline of a model; None for the usual one.

        Raises:
            ValueError: if it cannot be loaded, or not by this backend.
        """
        if is_bundle(self.model):
            return self._load_bundle()
        if self._backend not in ('auto', 'torch'):
            raise ValueError(
                f"parameter backend is '{self._backend}', which runs edge bundles, but "
                f"'{self.model}' is none: run  msfc export-edge {self.model} FOLDER  and set "
                'model to that folder'
            )
        return self._load_model(make_pipeline)

    def _load_model(
        self, make_pipeline: Callable[[SplitModel], EdgePipeline] | None
    ) -> RobotHalf:
        model = self._model.load()
        if make_pipeline is None:
            from msfc.pipeline.torch_network import edge_pipeline

            make_pipeline = edge_pipeline
        detector = model.detector
        return RobotHalf(
            make_pipeline(model),
            str(detector.device),
            model.require_codec().code_channels,
            detector.feature_channels,
            detector.strides,
        )

    def _load_bundle(self) -> RobotHalf:
        bundle = read_bundle(self.model)
        providers = [name.strip() for name in self._providers.split(',') if name.strip()]
        try:
            graph = open_graph(
                bundle, self._backend, providers, self._model.device, self._model.threads
            )
        except ImportError as error:
            raise ValueError(str(error)) from error
        return RobotHalf(
            bundle_pipeline(bundle, graph),
            graph.hardware,
            bundle.code_channels,
            bundle.feature_channels,
            bundle.strides,
        )

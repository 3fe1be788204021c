"""The robot's half of a model in PyTorch."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msfc.model import SplitModel
from msfc.pipeline.edge import EdgePipeline
from msfc.pipeline.edge_network import EdgeOutput
from msfc.pipeline.stopwatch import Stopwatch


class TorchEdgeNetwork:
    """An :class:`~msfc.pipeline.edge_network.EdgeNetwork` that runs a model's own modules.

    Args:
        model: a model with a codec; it is put into evaluation mode, and on a CPU into the memory
            layout that is fastest there.

    Raises:
        ValueError: if the model has no codec.
    """

    def __init__(self, model: SplitModel) -> None:
        self._codec = model.require_codec()
        self._detector = prepare_model(model).detector

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8]) -> EdgeOutput:
        """Compute the code of one image.

        Args:
            image: H x W x 3, uint8, BGR; any strides, may be read-only.
        """
        watch = device_stopwatch(self._detector.device)
        batch = self._detector.preprocess([image_to_tensor(image)])
        durations = {'preprocess': watch.lap()}
        pyramid = self._detector.extract(batch)
        durations['backbone'] = watch.lap()
        code = self._codec.analyse(pyramid)[0].float().cpu().numpy()
        durations['encode'] = watch.lap()
        return EdgeOutput(code, batch.sizes, durations)


def edge_pipeline(
    model: SplitModel, rate: int | None = None, key_interval: int = 0
) -> EdgePipeline:
    """Return the pipeline that runs a model's own modules.

    Args:
        model: a model with a codec, see :class:`TorchEdgeNetwork`. Its weights must not change
            while the pipeline is in use, as fingerprint and coder are taken once.
        rate: one that the codec's coder knows; the model's default if not given.
        key_interval: frames from one key frame to the next; 0 for none.

    Raises:
        ValueError: if the model has no codec, the rate is unknown, or there are to be key frames
            and the codec's coder has none.
    """
    network = TorchEdgeNetwork(model)
    return EdgePipeline(
        network,
        model.require_codec().coder(),
        model.fingerprint,
        model.rate if rate is None else rate,
        key_interval,
    )


def prepare_model(model: SplitModel) -> SplitModel:
    """Put a model into evaluation mode and, on a CPU, its kernels into channels-last layout."""
    model.eval()
    if model.detector.device.type == 'cpu':
        # A sixth off every stage with convolutions (ResNet-18-FPN at 640 x 480, x86).
        model.to(memory_format=torch.channels_last)
    return model


def device_stopwatch(device: torch.device) -> Stopwatch:
    """Return a stopwatch whose laps include the work that is queued on a device."""
    if device.type != 'cuda':
        return Stopwatch()
    return Stopwatch(lambda: torch.cuda.synchronize(device))


def image_to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """Convert a camera image to the detectors' convention.

    Args:
        image: H x W x 3, uint8, BGR.

    Returns:
        3 x H x W, uint8, RGB, in memory of its own.
    """
    return torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)

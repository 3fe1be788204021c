"""Split detectors: instance segmentation models that can be cut behind their feature pyramid."""

from __future__ import annotations

from typing import Any

from msfc.detectors.base import SplitDetector
from msfc.types import ImageBatch, ImageSizes, Instances, Pyramid, PyramidHook, Size, Targets

__all__ = [
    'ImageBatch',
    'ImageSizes',
    'Instances',
    'Pyramid',
    'PyramidHook',
    'Size',
    'SplitDetector',
    'Targets',
    'build_detector',
]


def build_detector(config: dict[str, Any]) -> SplitDetector:
    """Build a split detector with random weights from its :meth:`SplitDetector.config`.

    Args:
        config: ``type`` is ``torchvision`` or ``detectron2``; the other keys are that type's own.

    Raises:
        ValueError: an unknown type, or a key that the type does not know.
        ImportError: the type's package is not installed; the message says how to install it.
    """
    kind = config.get('type')
    if kind == 'torchvision':
        from msfc.detectors.torchvision import TorchvisionDetector

        return TorchvisionDetector.from_config(config)
    if kind == 'detectron2':
        from msfc.detectors.detectron2 import Detectron2Detector

        return Detectron2Detector.from_config(config)
    raise ValueError(f"unknown detector type {kind!r}: choose 'torchvision' or 'detectron2'")

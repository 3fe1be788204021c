"""Versions of the libraries that decide pixels and numbers."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import cv2
import numpy
import torch
import torchvision
from PIL import __version__ as pillow_version

import msfc


def library_versions() -> dict[str, str]:
    """Return versions by name: with others, figures may differ in their last digits."""
    versions = {
        'msfc': msfc.__version__,
        'numpy': numpy.__version__,
        'OpenCV': cv2.__version__,
        'Pillow': pillow_version,
        'torch': torch.__version__,
        'torchvision': torchvision.__version__,
    }
    with suppress(PackageNotFoundError):
        versions['detectron2'] = version('detectron2')
    return versions

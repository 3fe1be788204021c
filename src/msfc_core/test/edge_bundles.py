"""Small models with random weights and their edge bundles, for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from detector_models import MODELS, make_images
from hostile import small_learned_codec
from msfc.codecs.base import FeatureCodec
from msfc.codecs.msfc.codec import MSFC, MSFCConfig
from msfc.model import SplitModel
from msfc.model_file import save_model

CODECS = ('msfc', 'learned')


def small_model(codec: str, detector: str = 'torchvision') -> SplitModel:
    """Return a small model with random weights, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        split = MODELS[detector].make()
        channels = split.feature_channels
        made: FeatureCodec = small_learned_codec(channels)
        if codec == 'msfc':
            made = MSFC(MSFCConfig(channels=channels, code_channels=5))
        return SplitModel(split, made).eval()


def save_small_model(folder: Path, codec: str, detector: str = 'torchvision') -> Path:
    """Write a small model; return its folder."""
    save_model(small_model(codec, detector), folder, half=False)
    return folder


def picture(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return smooth noise, H x W x 3 uint8 BGR."""
    (image,) = make_images([size])
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy()[:, :, ::-1])

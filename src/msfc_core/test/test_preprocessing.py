"""Preprocessing without PyTorch gives the network the same input as with it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from detector_models import IMPLEMENTATIONS, MODELS
from msfc.detectors.base import SplitDetector
from msfc.detectors.torchvision import TorchvisionConfig, TorchvisionDetector
from msfc.pipeline.torch_network import image_to_tensor
from msfc.preprocessing import Preprocessing
from tiny import TinyDetector

TOLERANCE = 1e-5
"""Of an element of the network input, which are about -2.2 to 2.7 with torchvision's detectors,
relative to 255 over the standard deviation: the whole range of an 8 bit pixel."""

PLAIN: dict[str, Any] = {
    'resize': 'torchvision', 'min_size': 240, 'max_size': 320, 'channels': 'rgb',
    'mean': [1.0, 2.0, 3.0], 'std': [1.0, 1.0, 2.0], 'divisibility': 32,
}  # fmt: skip


@lru_cache
def detector(name: str) -> SplitDetector:
    made: SplitDetector = MODELS[name].make()
    return made.eval()


def noise(size: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def compare(split: SplitDetector, image: np.ndarray) -> None:
    preprocessing = split.preprocessing()
    with torch.inference_mode():
        batch = split.preprocess([image_to_tensor(image)])
    pixels, sizes = preprocessing(image)
    assert sizes == batch.sizes
    assert pixels.dtype == np.float32
    assert pixels.shape == tuple(batch.tensor.shape)
    range_ = 255 / min(preprocessing.std)
    np.testing.assert_allclose(pixels, batch.tensor.numpy(), rtol=0, atol=TOLERANCE * range_)


@pytest.mark.parametrize('name', IMPLEMENTATIONS)
@settings(max_examples=100)
@given(
    height=st.integers(1, 700), width=st.integers(1, 700), seed=st.integers(0, 2**32 - 1)
)
@example(height=1, width=1, seed=0)
@example(height=128, width=128, seed=0)  # needs no resizing
@example(height=128, width=213, seed=0)
@example(height=1, width=700, seed=1)
@example(height=699, width=2, seed=2)
def test_it_is_that_of_the_detector(name: str, height: int, width: int, seed: int) -> None:
    if name == 'detectron2':
        pytest.importorskip('detectron2', reason='needs Detectron2: setup.sh --detectron2')
    compare(detector(name), noise((height, width), seed))


@pytest.mark.parametrize('size', [(480, 640), (1080, 1920), (2160, 3840), (600, 800)])
def test_usual_cameras_at_the_usual_network_size(size: tuple[int, int]) -> None:
    split = TorchvisionDetector(TorchvisionConfig(('thing',), backbone='resnet18'))
    compare(split, noise(size, 5))


def test_images_may_be_views_and_read_only() -> None:
    preprocessing = Preprocessing.from_dict(PLAIN)
    image = noise((90, 70), 1)
    view = np.ascontiguousarray(image[::-1])[::-1]
    view.flags.writeable = False
    assert np.array_equal(preprocessing(view)[0], preprocessing(image)[0])
    assert np.array_equal(image, noise((90, 70), 1))


def test_the_order_of_channels() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 0] = 200  # blue
    for channels, place in (('bgr', 0), ('rgb', 2)):
        values = {**PLAIN, 'channels': channels, 'mean': [0.0] * 3, 'std': [1.0] * 3,
                  'min_size': 0}  # fmt: skip
        pixels, sizes = Preprocessing.from_dict(values)(image)
        assert sizes.valid == ((4, 4),)
        assert sizes.padded == (32, 32)
        assert (pixels[0, place, :4, :4] == 200).all()
        assert pixels.sum() == 200 * 16


def test_json_and_back() -> None:
    assert Preprocessing.from_dict(PLAIN).to_dict() == PLAIN
    described = detector('torchvision').preprocessing()
    assert Preprocessing.from_dict(described.to_dict()) == described


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'resize': 'magic'}, "unknown resize 'magic': choose torchvision or detectron2"),
        ({'resize': []}, r'unknown resize \[\]'),
        ({'channels': 'gbr'}, "unknown channels 'gbr': choose bgr or rgb"),
        ({'min_size': -1}, 'min_size is -1, not 0 to'),
        ({'max_size': 0}, 'max_size is 0'),
        ({'max_size': 10**9}, 'max_size is 1000000000, not 1 to'),
        ({'divisibility': 0}, 'divisibility is 0'),
        ({'divisibility': 1.5}, 'divisibility is 1.5, not a whole number'),
        ({'mean': [1, 2]}, 'mean has three numbers'),
        ({'mean': 'abc'}, 'mean and std of preprocessing are lists'),
        ({'std': [1, 0, 1]}, 'std is 0'),
        ({'std': [1, float('nan'), 1]}, 'std is nan'),
        ({'more': 1}, 'just the keys channels, divisibility'),
    ],
)
def test_what_is_impossible_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_dict({**PLAIN, **change})


def test_a_detector_that_says_nothing_of_it() -> None:
    with pytest.raises(ValueError, match='TinyDetector does not say how to prepare images'):
        TinyDetector().preprocessing()

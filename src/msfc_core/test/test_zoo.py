"""The shipped detector: shared with a codec, and on images in which there is nothing to detect."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from msfc.codecs.base import build_codec
from msfc.data import Example
from msfc.model import SplitModel
from msfc.model_file import load_model, save_model
from msfc.simulation.camera_model import CameraModel
from msfc.training.augmentation import with_fault
from msfc.types import Targets

pytestmark = pytest.mark.usefixtures('one_thread')

HEIGHT, WIDTH = 480, 640
CONFIDENT = 0.5


# Its model card says of what else the shipped models are not free.
@pytest.fixture(scope='module')
def model():
    return load_model('tabletop_detector').eval()


def test_a_codec_is_stored_without_the_shipped_detector(model, tmp_path):
    codec = build_codec({'type': 'learned', 'channels': model.detector.feature_channels})
    fingerprint = save_model(
        SplitModel(model.detector, codec), tmp_path, detector_from='tabletop_detector'
    )
    loaded = load_model(tmp_path)
    assert loaded.fingerprint == fingerprint
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert (tmp_path / 'model.safetensors').stat().st_size < 30_000_000


def flat(level):
    return np.full((HEIGHT, WIDTH, 3), level, np.uint8)


def covered(seed):
    nothing = Targets(
        torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0, HEIGHT, WIDTH, dtype=torch.bool)
    )
    image = torch.from_numpy(flat(90)).permute(2, 0, 1)
    return with_fault(Example(0, image, nothing), 'covered', np.random.default_rng(seed)).image


def assert_nothing_found(model, image):
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(image).permute(2, 0, 1)
    found = model([image])[0].above(CONFIDENT)
    names = [model.class_names[label] for label in found.labels]
    assert list(zip(names, found.scores.tolist(), strict=True)) == []


@pytest.mark.parametrize('level', [0, 3, 10, 30, 128, 200, 255])
def test_nothing_is_found_in_even_images(model, level):
    assert_nothing_found(model, flat(level))


@pytest.mark.parametrize('exposure', [0.001, 0.01, 1.0, 50.0])
def test_nothing_is_found_in_the_noise_of_an_even_image(model, exposure):
    camera = CameraModel(exposure=exposure, full_well=800.0, read_noise=15.0)
    assert_nothing_found(model, camera.apply(flat(90), np.random.default_rng(1)))


@pytest.mark.parametrize('seed', range(8))
def test_nothing_is_found_where_the_lens_is_covered(model, seed):
    assert_nothing_found(model, covered(seed))


@pytest.mark.usefixtures('drawing')
def test_nothing_is_found_on_an_empty_table(model):
    from msfc.simulation.scene import frames

    for frame in islice(frames('empty_val', 0), 2):
        assert_nothing_found(model, frame.image)

import numpy as np
import pytest

from msfc.simulation.camera_model import CameraModel

FLAT = np.full((120, 160, 3), 128, np.uint8)
IDEAL = CameraModel(blur=0.1, falloff=0.0, full_well=1e9, read_noise=0.0)


def taken(camera, image=FLAT, seed=0):
    return camera.apply(image, np.random.default_rng(seed)).astype(float)


def test_ideal_camera_changes_nothing():
    assert np.abs(taken(IDEAL) - FLAT).max() <= 1


def test_same_generator_same_noise():
    camera = CameraModel()
    assert (taken(camera, seed=1) == taken(camera, seed=1)).all()
    assert (taken(camera, seed=1) != taken(camera, seed=2)).any()


def test_random_camera_depends_on_the_generator():
    cameras = [CameraModel.random(np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert cameras[0] == cameras[1] != cameras[2]


def test_shot_noise_is_that_of_the_electrons():
    camera = CameraModel(blur=0.1, falloff=0.0, full_well=2000.0, read_noise=0.0)
    noisy = (taken(camera) / 255) ** 2.2
    light = (128 / 255) ** 2.2
    assert noisy.mean() == pytest.approx(light, rel=0.01)
    assert noisy.std() == pytest.approx(np.sqrt(light / 2000), rel=0.05)


def test_read_noise_is_there_in_the_dark():
    dark = np.zeros_like(FLAT)
    assert taken(IDEAL, dark).max() == 0
    assert taken(CameraModel(read_noise=20.0, full_well=1000.0), dark).std() > 5


def test_corners_are_darker():
    image = taken(CameraModel(falloff=0.4, full_well=1e9, read_noise=0.0))
    middle, corner = image[58:62, 78:82].mean(), image[:3, :3].mean()
    assert (corner / middle) ** 2.2 == pytest.approx(0.6, abs=0.03)


def test_blur_softens_edges():
    image = np.zeros_like(FLAT)
    image[:, 80:] = 200
    camera = CameraModel(blur=1.0, falloff=0.0, full_well=1e9, read_noise=0.0)
    edge = taken(camera, image)[60, :, 0]
    assert 0 < edge[79] < edge[80] < 200
    assert edge[70] == 0
    assert edge[90] == 200


def test_exposure_saturates():
    assert taken(CameraModel(exposure=100.0, falloff=0.0)).min() == 255

from __future__ import annotations

import numpy as np
import pytest

from msfc.geometry.depth import pinhole_rays
from msfc.simulation.depth_camera import DepthCamera
from msfc.simulation.path import Shot
from msfc.simulation.truth import UP, object_boxes, optical_frame

pytestmark = pytest.mark.usefixtures('drawing')

WIDTH, HEIGHT = 160, 120


@pytest.fixture(scope='module')
def shot() -> Shot:
    return Shot('clip', 7, WIDTH, HEIGHT)


def test_depth_lies_in_the_true_boxes(shot: Shot) -> None:
    """Render, camera pose and outlines agree: what is seen of an object is inside its box."""
    focal = 0.5 * HEIGHT / np.tan(np.deg2rad(shot.fovy) / 2)
    rays = pinhole_rays((HEIGHT, WIDTH), (focal, focal), ((WIDTH - 1) / 2, (HEIGHT - 1) / 2))
    boxes = object_boxes(shot.scene)
    frames = list(shot.frames(2, depth=True))
    for number, frame in enumerate(frames):
        pose = optical_frame(shot.camera(number, 2))
        assert frame.depth is not None
        assert frame.depth.shape == (HEIGHT, WIDTH)
        for mask, identity in zip(frame.masks, frame.identities, strict=True):
            z = frame.depth[mask][:, None]
            seen = np.concatenate([rays[mask] * z, z], axis=1)
            box = boxes[identity - 1]
            world = (seen - pose.translation) @ pose.rotation
            beyond = np.abs((world - box.centre) @ box.rotation) - box.size / 2
            assert beyond.max() < 0.002
    assert next(iter(shot.frames(1))).depth is None


def test_up_is_up(shot: Shot) -> None:
    pose = optical_frame(shot.camera(0, 2))
    up = pose.rotation @ UP
    np.testing.assert_allclose(pose.rotation @ pose.rotation.T, np.eye(3), atol=1e-9)
    # The camera looks down and is not rolled.
    assert up[0] == pytest.approx(0)
    assert up[1] < 0
    assert up[2] < 0


def test_faults_of_a_depth_camera() -> None:
    depth = np.full((100, 100), 0.5, np.float32)
    depth[:, 50:] = 2.0
    depth[0] = 20.0
    camera = DepthCamera()
    seen = camera.apply(depth, 600.0, np.random.default_rng(0))
    assert np.isnan(seen[0]).all()
    near, far = seen[5:, :45], seen[5:, 55:]
    assert np.isnan(near).mean() == pytest.approx(0.005, abs=0.003)
    # It grows with the square.
    ratio = np.nanstd(far) / np.nanstd(near)
    assert ratio == pytest.approx(16, rel=0.1)
    assert np.nanstd(near) == pytest.approx(0.25 * 0.08 / (600 * 0.055), rel=0.1)
    edge = seen[5:, 49:51]
    assert np.isnan(edge).mean() == pytest.approx(0.5, abs=0.15)
    assert ((edge > 0.6) & (edge < 1.9)).any()
    again = camera.apply(depth, 600.0, np.random.default_rng(0))
    np.testing.assert_array_equal(seen, again)

from contextlib import ExitStack

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

import numpy as np
from msfc_msgs.msg import InstanceArray
from sensor_msgs.msg import CameraInfo, Image

from msfc_ros.message_to_image import image_to_bgr
from msfc_sim.camera_node import CameraNode
from msfc_sim.clip import read_clip, shipped_clip
from msfc_sim.clip_player import ClipPlayer
from ros_fixtures import make_node


@pytest.fixture
def start(ros):
    with ExitStack() as nodes:

        def start(probe, node_type, **parameters):
            node = nodes.enter_context(make_node(node_type, **parameters))
            assert node.start()
            probe.executor.add_node(node)
            nodes.callback(node.stop)
            nodes.callback(probe.executor.remove_node, node)
            return node

        yield start


def listen(probe):
    return (
        probe.listen(Image, 'image_raw'),
        probe.listen(CameraInfo, 'camera_info'),
        probe.listen(InstanceArray, 'ground_truth'),
    )


def test_clip_is_played_once_in_step_with_the_results(probe, start):
    images, infos, truths = listen(probe)
    results = probe.node.create_publisher(InstanceArray, 'instances', 10)
    start(probe, ClipPlayer, rate=0.0, frames=5, result_timeout=60.0)
    clip = read_clip(shipped_clip())
    for count in range(1, 6):
        probe.wait(lambda: len(images) == len(infos) == len(truths) == count, 'a frame')  # noqa: B023
        assert images[-1].header == infos[-1].header == truths[-1].header
        assert (image_to_bgr(images[-1]) == clip[count - 1].decode()).all()
        assert truths[-1].instances == clip[count - 1].ground_truth.instances
        probe.spin(0.3)
        assert len(images) == count
        probe.wait(results.get_subscription_count, 'the player')
        results.publish(InstanceArray(header=images[-1].header))
    probe.spin(0.5)
    assert len(images) == 5
    stamps = [(m.header.stamp.sec, m.header.stamp.nanosec) for m in images]
    assert stamps == sorted(set(stamps))


def test_clip_without_results_goes_on(probe, start):
    images, _, _ = listen(probe)
    start(probe, ClipPlayer, rate=0.0, result_timeout=0.2)
    probe.wait(lambda: len(images) >= 3, 'three frames')


def test_clip_waits_for_its_subscribers(probe, start):
    images, _, _ = listen(probe)
    start(probe, ClipPlayer, rate=20.0, wait_for_subscribers=2)
    probe.spin(0.5)
    assert not images
    more, _, _ = listen(probe)
    probe.wait(lambda: images and more, 'a frame')


def test_clip_ends_or_begins_again(probe, start, tmp_path):
    from msfc_sim.clip import write_clip

    write_clip(tmp_path / 'short', read_clip(shipped_clip())[:2])
    images, _, _ = listen(probe)
    start(probe, ClipPlayer, rate=50.0, clip=str(tmp_path / 'short'), loop=False)
    probe.wait(lambda: len(images) == 2, 'two frames')
    probe.spin(0.3)
    assert len(images) == 2
    start(probe, ClipPlayer, rate=50.0, clip=str(tmp_path / 'short'), frames=5)
    probe.wait(lambda: len(images) == 7, 'five more')


def test_damaged_picture_is_found_before_the_start(ros, capfd, tmp_path):
    from msfc_sim.clip import write_clip

    frames = read_clip(shipped_clip())[:2]
    frames[1].image.data = frames[1].image.data[:5000]
    write_clip(tmp_path / 'damaged', frames)
    with make_node(ClipPlayer, clip=str(tmp_path / 'damaged')) as node:
        assert not node.start()
        assert 'an image of the clip is damaged' in capfd.readouterr().err


def test_clip_that_is_not_there(ros, capfd):
    with make_node(ClipPlayer, clip='no_such_clip') as node:
        assert not node.start()
        assert 'is no clip' in capfd.readouterr().err


def test_live_camera(drawing, probe, start):
    images, infos, truths = listen(probe)
    small = {'width': 160, 'height': 120, 'seed': 7, 'frames_per_scene': 2}
    start(probe, CameraNode, rate=20.0, frames=3, **small)
    probe.wait(lambda: len(images) == len(infos) == len(truths) == 3, 'three frames')
    for image, info, truth in zip(images, infos, truths, strict=True):
        assert image.header == info.header == truth.header
        assert image.header.frame_id == 'camera_optical_frame'
        assert image.encoding == 'bgr8'
        assert (image.height, image.width) == (info.height, info.width) == (120, 160)
        assert info.k[0] == pytest.approx(60 / np.tan(np.deg2rad(45) / 2))
        assert truth.instances
    assert not probe.node.count_publishers('depth/image')
    # The third is of another scene.
    pictures = [image_to_bgr(image).astype(float) for image in images]
    assert np.abs(pictures[0] - pictures[1]).mean() < np.abs(pictures[1] - pictures[2]).mean()


@pytest.mark.parametrize('depth', ['16UC1', '32FC1'])
def test_live_camera_with_depth(drawing, probe, start, depth):
    from msfc.simulation.path import Shot

    images, infos, _ = listen(probe)
    depths = probe.listen(Image, 'depth/image')
    depth_infos = probe.listen(CameraInfo, 'depth/camera_info')
    small = {'width': 160, 'height': 120, 'seed': 7}
    start(probe, CameraNode, rate=20.0, frames=2, depth=depth, depth_noise=False, **small)
    probe.wait(lambda: len(images) == len(depths) == len(depth_infos) == 2, 'two frames')
    assert [m.header for m in depths] == [m.header for m in images]
    assert depth_infos[0].k.tolist() == infos[0].k.tolist()
    assert (depths[0].encoding, depths[0].height, depths[0].width) == (depth, 120, 160)
    kind, unit = (np.uint16, 1e-3) if depth == '16UC1' else (np.float32, 1.0)
    sent = np.frombuffer(depths[0].data, kind).reshape(120, 160) * unit
    shot = Shot('clip', 7, 160, 120)
    with shot.scene.renderer() as renderer:
        true = shot.scene.depth(renderer, shot.camera(0, 100))
    np.testing.assert_allclose(sent, true, atol=6e-4)

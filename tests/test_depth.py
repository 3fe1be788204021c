"""Objects in metres between real processes: the simulated camera with depth, the depth node."""

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

import numpy as np
from msfc_msgs.msg import InstanceArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from msfc_depth.depth_messages import depth_from_message
from msfc_depth.output_messages import POINT

SIZE = {'width': 320, 'height': 240}
SEED = 7
SHOT = 100
FROM_TRUTH = ('--ros-args', '-r', 'instances:=ground_truth')

pytestmark = pytest.mark.usefixtures('drawing')


@pytest.fixture(scope='module')
def shot():
    from msfc.simulation.path import Shot

    return Shot('clip', SEED, **SIZE)


def frame_of(shot, number):
    """Return the optical frame of the camera at a frame of the node's shot."""
    from msfc.simulation.truth import optical_frame

    return optical_frame(shot.camera(number, SHOT))


def test_centres_and_sizes_against_the_scene(probe, start_node, shot):
    from msfc.simulation.truth import UP, object_boxes

    up = (frame_of(shot, 0).rotation @ UP).tolist()
    start_node('msfc_depth', 'depth_node', *FROM_TRUTH, vertical=up)
    points = probe.listen(PointCloud2, 'object_points', 20)
    markers = probe.listen(MarkerArray, 'object_markers', 20)
    topics = ('depth/image', 'depth/camera_info', 'ground_truth')
    probe.wait(lambda: all(map(probe.node.count_subscribers, topics)), 'the depth node')
    images = probe.listen(Image, 'image_raw', 20)
    truths = probe.listen(InstanceArray, 'ground_truth', 20)
    start_node('msfc_sim', 'camera_node', depth='16UC1', seed=SEED, rate=4.0, frames=5, **SIZE)
    probe.wait(lambda: len(images) == 5, 'five images')
    probe.wait(lambda: points and markers, 'objects')
    probe.spin(1.0)
    boxes = object_boxes(shot.scene)
    stamps = [(m.header.stamp.sec, m.header.stamp.nanosec) for m in images]
    cloud = points[0]
    number = stamps.index((cloud.header.stamp.sec, cloud.header.stamp.nanosec))
    truth = truths[number]
    assert cloud.header == truth.header
    assert cloud.header.frame_id == 'camera_optical_frame'
    (marker,) = [m for m in markers if m.markers[0].header == cloud.header]
    seen = {item.id: item for item in truth.instances}
    frame = frame_of(shot, number)
    errors, sizes = [], []
    for found in (m for m in marker.markers if m.ns == 'boxes'):
        item = seen[found.id]
        right, bottom = item.x + item.width, item.y + item.height
        if not item.x or not item.y or right == SIZE['width'] or bottom == SIZE['height']:
            continue  # cut off
        box = boxes[item.track_id - 1]
        centre = found.pose.position
        offset = np.array([centre.x, centre.y, centre.z]) - frame.apply(box.centre)
        errors.append(np.linalg.norm(offset))
        sizes.append(np.array([found.scale.x, found.scale.y, found.scale.z]) - box.size)
    # The camera sees their front only; docs/depth.md has the figures of many scenes.
    assert len(errors) >= 2
    assert max(errors) < 0.06
    assert np.median(errors) < 0.03
    assert np.max(sizes) < 0.02
    tracks = set(np.frombuffer(cloud.data, POINT)['track_id'].tolist())
    assert tracks <= {item.track_id for item in truth.instances}
    assert len(tracks) >= len(errors)


def test_without_depth_there_are_no_such_topics(probe, start_node):
    images = probe.listen(Image, 'image_raw')
    start_node('msfc_sim', 'camera_node', seed=SEED, frames=2, **SIZE)
    probe.wait(lambda: images, 'an image')
    assert not probe.node.count_publishers('depth/image')


def test_depth_images_without_noise_are_the_scenes(probe, start_node, shot):
    depths = probe.listen(Image, 'depth/image', 20)
    infos = probe.listen(CameraInfo, 'depth/camera_info', 20)
    images = probe.listen(Image, 'image_raw', 20)
    start_node(
        'msfc_sim', 'camera_node', depth='32FC1', depth_noise=False, seed=SEED, rate=4.0, frames=3,
        wait_for_subscribers=1, **SIZE,
    )  # fmt: skip
    probe.wait(lambda: images and depths and infos, 'images')
    assert depths[0].header in [image.header for image in images]
    assert depths[0].encoding == '32FC1'
    assert (infos[0].width, infos[0].height) == (320, 240)
    stamps = [image.header.stamp for image in images]
    number = stamps.index(depths[0].header.stamp)
    with shot.scene.renderer() as renderer:
        true = shot.scene.depth(renderer, shot.camera(number, SHOT))
    np.testing.assert_allclose(depth_from_message(depths[0]), true, rtol=1e-5)

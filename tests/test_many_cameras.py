"""Two robots' edges and one cloud node as separate processes over real DDS."""

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import InstanceArray
from sensor_msgs.msg import Image

from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline
from msfc_ros.message_to_image import image_to_bgr
from msfc_ros.messages import instances_to_message
from ros_fixtures import camera_image

CAMERAS = {'front': (120, 160), 'robot2/rear': (96, 128)}
"""Namespaces of the cameras and sizes of their images."""

FRAMES = 4
THRESHOLD = 0.05


def expected_of(model, image):
    """Return what the pair has to make of an image."""
    packet = edge_pipeline(model).encode(image_to_bgr(image))
    found = CloudPipeline(model).decode(packet).instances.above(THRESHOLD)
    return instances_to_message(found, image.header, packet.image_size, model.class_names)


@pytest.mark.parametrize('max_batch', [1, 4])
def test_one_cloud_serves_two_edges(probe, start_node, model_directory, max_batch):
    model = load_model(model_directory)
    edges = {
        name: start_node(
            'msfc_edge', 'edge_node', '--ros-args', '-r', f'__ns:=/{name}', model=model_directory
        )
        for name in CAMERAS
    }
    start_node(
        'msfc_cloud',
        'cloud_node',
        model=model_directory,
        score_threshold=THRESHOLD,
        cameras=list(CAMERAS),
        max_batch=max_batch,
    )
    found = {name: probe.listen(InstanceArray, f'{name}/instances') for name in CAMERAS}
    cameras = {name: probe.publisher(Image, f'{name}/image_raw') for name in CAMERAS}
    for name in CAMERAS:
        probe.wait_for_publisher(f'{name}/instances')

    def image(name, seconds):
        image = camera_image(*CAMERAS[name], seconds)
        image.header.frame_id = name
        return image

    # Best effort, and an edge is idle until it knows the cloud: until the first ones are here.
    def both():
        for name, camera in cameras.items():
            camera.publish(image(name, 1))
        probe.spin(0.5)
        return all(found.values())

    probe.wait(both, 'the first instances of both')
    for seconds in range(2, 2 + FRAMES):
        for name, camera in cameras.items():
            camera.publish(image(name, seconds))
        probe.wait(
            lambda seconds=seconds: all(
                messages[-1].header.stamp.sec == seconds for messages in found.values()
            ),
            f'the instances of image {seconds}',
        )
    for name, messages in found.items():
        assert {message.header.frame_id for message in messages} == {name}
        stamps = [message.header.stamp.sec for message in messages]
        assert stamps == sorted(stamps)
        expected = expected_of(model, image(name, 1 + FRAMES))
        last = messages[-1]
        assert last.instances
        assert last == expected

    edges['robot2/rear'].kill()
    count = len(found['front'])
    probe.insist(
        cameras['front'], image('front', 9), lambda: len(found['front']) > count, 'the other one'
    )

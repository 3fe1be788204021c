"""What cameras publish, into the edge as a process of its own, over real DDS."""

import signal

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import CompressedFeature
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from msfc.model_file import load_model
from msfc.pipeline.torch_network import edge_pipeline
from msfc_ros.image_to_message import to_bytes_field
from msfc_ros.message_to_image import INTERLEAVED, PLANAR, image_to_bgr, to_bgr
from ros_fixtures import camera_image

RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.fixture
def start_edge(start_node, model_directory):
    def start(**parameters):
        return start_node(
            'msfc_edge', 'edge_node', model=model_directory, diagnostics_period=0.2, **parameters
        )

    return start


@pytest.fixture
def pipeline(model_directory):
    return edge_pipeline(load_model(model_directory))


def random_image(name, number):
    """Return an image of an encoding, with padded rows and a size and a stamp of its own."""
    rng = np.random.default_rng(number)
    height, width = 60 + 2 * number, 120 - 2 * number
    encoding = INTERLEAVED.get(name)
    step = width * (encoding.pixel if encoding else 1) + 6
    rows = height if encoding else height * 3 if name == 'nv24' else height * 3 // 2
    image = Image(
        height=height,
        width=width,
        encoding=name,
        step=step,
        # Whether the samples of 16 bits are big-endian changes what they say.
        is_bigendian=number % 2,
        data=to_bytes_field(rng.integers(0, 256, rows * step, dtype=np.uint8)),
    )
    image.header.stamp.sec = number + 1
    return image


def ask(probe, publisher, image, features):
    """Publish an image until its features come; return them."""

    def found():
        return [message for message in features if message.header == image.header]

    probe.insist(publisher, image, found, f'the features of image {image.header.stamp.sec}')
    return found()[0]


def test_every_encoding_and_size_from_publishers_of_both_kinds(probe, start_edge, pipeline):
    start_edge()
    features = probe.listen(CompressedFeature, 'features')
    values = probe.diagnostics()
    cameras = [probe.publisher(Image, 'image_raw', qos) for qos in (RELIABLE, BEST_EFFORT)]
    probe.wait_for_publisher('features')
    for number, name in enumerate(sorted({*INTERLEAVED, *PLANAR})):
        image = random_image(name, number)
        sent = ask(probe, cameras[number // 2 % 2], image, features)
        expected = pipeline.encode(image_to_bgr(image), sent.sequence)
        assert bytes(sent.data) == bytes(expected.data), name
        assert (sent.image_height, sent.image_width) == (image.height, image.width)
    probe.wait(lambda: values('encoding').get('encoded'), 'diagnostics')
    assert values('encoding')['refused'] == '0'


def test_compressed_images(probe, start_edge, pipeline):
    edge = start_edge(image_transport='compressed', qos__image__reliability='reliable')
    features = probe.listen(CompressedFeature, 'features')
    values = probe.diagnostics()
    camera = probe.publisher(CompressedImage, 'image_raw/compressed', RELIABLE)
    probe.wait_for_publisher('features')

    def picture(suffix, said, seconds, size=(120, 160), end=None):
        image = camera_image(*size, seconds=seconds)
        data = cv2.imencode(suffix, image_to_bgr(image))[1].tobytes()
        return CompressedImage(header=image.header, format=said, data=data[:end])

    good = [
        picture('.jpg', 'bgr8; jpeg compressed bgr8', 1),
        picture('.png', 'rgb8; png compressed bgr8', 2, (64, 200)),
        picture('.jpg', 'jpeg', 3, (200, 64)),
    ]
    bad = {
        'damaged': picture('.jpg', 'jpeg', 4, end=-100),
        'format': picture('.bmp', 'bmp', 5),
    }
    for message in good[:2]:
        sent = ask(probe, camera, message, features)
        expected = pipeline.encode(to_bgr(message), sent.sequence)
        assert bytes(sent.data) == bytes(expected.data)
    for reason, message in bad.items():
        camera.publish(message)
        probe.wait(
            lambda reason=reason: values('encoding').get(f'refused_{reason}') == '1',
            f'the count of {reason}',
        )
        told = f'refused a message ({reason}, 1 so far): '
        probe.wait(lambda told=told: told in edge.output, told)
    ask(probe, camera, good[2], features)
    assert edge.running()
    assert values('encoding')['refused'] == '2'


def test_lost_images_are_counted(probe, start_edge):
    edge = start_edge()
    probe.listen(CompressedFeature, 'features')
    values = probe.diagnostics()
    camera = probe.publisher(Image, 'image_raw', BEST_EFFORT)
    probe.wait_for_publisher('features')
    published = 0

    def publish(number):
        nonlocal published
        for _ in range(number):
            camera.publish(camera_image())
            published += 1
            probe.spin(0.05)

    def count(name):
        return int(values('encoding').get(name, 0))

    def settled():
        return count('lost') and count('received') + count('lost') + before == published

    while not count('received'):
        publish(1)
        probe.spin(0.5)
    # Not counted: what was published before the edge knew its camera.
    before = published - count('received') - count('lost')
    edge.send(signal.SIGSTOP)
    publish(20)
    edge.send(signal.SIGCONT)
    for _ in range(60):
        if settled():
            break
        publish(1)
        probe.spin(0.5)
    assert settled()
    assert count('lost') >= 10

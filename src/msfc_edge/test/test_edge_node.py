import weakref
from functools import partial

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

import cv2
import numpy as np
from msfc_msgs.msg import CompressedFeature
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool

from msfc.model_file import load_model
from msfc.pipeline.torch_network import edge_pipeline
from msfc_edge.edge_node import LARGE_MESSAGE, EdgeNode, LargeMessages
from msfc_ros.message_to_image import image_to_bgr
from ros_fixtures import camera_image, make_node

pytestmark = pytest.mark.usefixtures('ros')


@pytest.fixture
def node(model_directory, probe):
    """Return an active node that the probe spins."""
    with make_node(EdgeNode, model=str(model_directory)) as node:
        probe.executor.add_node(node)
        assert node.start()
        yield node
        node.stop()
        probe.executor.remove_node(node)


def set_value(node, name, value):
    (result,) = node.set_parameters([Parameter(name, value=value)])
    return result


def test_unknown_transport():
    with (
        pytest.raises(
            ValueError, match=r"image_transport is 'theora', but .* 'raw', 'compressed'"
        ),
        make_node(EdgeNode, image_transport='theora'),
    ):
        pass


def test_rates_are_those_of_the_model(model_directory):
    with make_node(EdgeNode, model=str(model_directory)) as node:
        assert set_value(node, 'rate', 5).successful  # no model is loaded yet
        assert not node.start()
        assert node.failure.endswith('rate is 5, but has to be one of -1, -2, 2, 4, 8, 16, 32')
        assert set_value(node, 'rate', 8).successful
        assert node.start()
        assert set_value(node, 'rate', -1).successful
        result = set_value(node, 'rate', 7)
        assert not result.successful
        assert result.reason.endswith('rate is 7, but has to be one of -1, -2, 2, 4, 8, 16, 32')
        node.stop()
        assert set_value(node, 'rate', 7).successful


def test_encodes_only_for_a_subscriber(node, probe):
    camera = probe.publisher(Image, 'image_raw')
    probe.insist(
        camera, camera_image(), lambda: node.statistics.values().get('idle'), 'idle frames'
    )
    assert 'encoded' not in node.statistics.values()
    features = probe.listen(CompressedFeature, 'features')
    probe.insist(camera, camera_image(), lambda: features, 'features')
    assert features[0].sequence == 0
    node.stop()
    assert probe.node.count_subscribers('image_raw') == 0


def test_rate_can_be_limited_live(node, probe):
    features = probe.listen(CompressedFeature, 'features')
    camera = probe.publisher(Image, 'image_raw')
    probe.insist(camera, camera_image(), lambda: features, 'features')
    assert 'skipped' not in node.statistics.values()

    assert set_value(node, 'max_rate', 0.001).successful
    probe.insist(
        camera, camera_image(), lambda: node.statistics.values().get('skipped'), 'skipped images'
    )
    probe.spin(1.0)  # what was accepted before
    count = len(features)
    probe.insist(
        camera,
        camera_image(),
        lambda: int(node.statistics.values()['skipped']) > 2,
        'more skipped images',
    )
    assert len(features) == count

    assert set_value(node, 'max_rate', 0.0).successful
    probe.insist(camera, camera_image(), lambda: len(features) > count, 'features')
    result = set_value(node, 'max_rate', -1.0)
    assert not result.successful
    assert 'out of range' in result.reason


def test_switched_off_nothing_is_sent(node, probe):
    features = probe.listen(CompressedFeature, 'features')
    camera = probe.publisher(Image, 'image_raw')
    probe.insist(camera, camera_image(), lambda: features, 'features')
    answer = probe.call(SetBool, '/msfc_edge/enable', SetBool.Request(data=False))
    assert answer.success
    assert answer.message == 'disabled: nothing is encoded and sent'
    probe.spin(1.0)  # what was on its way
    encoded, count = node.statistics.values()['encoded'], len(features)
    probe.insist(
        camera,
        camera_image(),
        lambda: int(node.statistics.values().get('disabled', 0)) > 1,
        'dropped images',
    )
    assert (node.statistics.values()['encoded'], len(features)) == (encoded, count)
    text = 'disabled by ~/enable: nothing is encoded and sent'
    assert text in [finding.text for finding in node.findings()]
    assert probe.call(SetBool, '/msfc_edge/enable', SetBool.Request(data=True)).success
    probe.insist(camera, camera_image(), lambda: len(features) > count, 'features')
    assert text not in [finding.text for finding in node.findings()]


def test_compressed_images(model_directory, probe):
    image = camera_image()
    pixels = image_to_bgr(image)
    png = CompressedImage(
        header=image.header, format='png', data=cv2.imencode('.png', pixels)[1].tobytes()
    )
    expected = edge_pipeline(load_model(model_directory)).encode(pixels)
    bad = CompressedImage(header=image.header, format='png', data=bytes(png.data)[:-20])
    with make_node(EdgeNode, model=str(model_directory), image_transport='compressed') as node:
        probe.executor.add_node(node)
        assert node.start()
        features = probe.listen(CompressedFeature, 'features')
        camera = probe.publisher(CompressedImage, 'image_raw/compressed')
        probe.insist(camera, bad, lambda: node.statistics.refused.get('damaged'), 'a refusal')
        assert not features
        probe.insist(camera, png, lambda: features, 'features')
        assert bytes(features[0].data) == bytes(expected.data)
        assert features[0].header == image.header
        assert probe.node.count_subscribers('image_raw') == 0
        node.stop()
        probe.executor.remove_node(node)


def test_compressed_topic_follows_a_remapping(model_directory, probe):
    with make_node_remapped('image_raw:=/camera/image', str(model_directory)) as node:
        probe.executor.add_node(node)
        assert node.start()
        probe.publisher(CompressedImage, '/camera/image/compressed')
        node.stop()
        probe.executor.remove_node(node)


def make_node_remapped(rule, model):
    return make_node(
        lambda **kwargs: EdgeNode(cli_args=['--ros-args', '-r', rule], **kwargs),
        model=model,
        image_transport='compressed',
    )


@pytest.mark.parametrize('size', [(1, 1), (1, 200), (200, 1), (3, 500), (17, 33), (1080, 1920)])
def test_sizes_of_images(model_directory, size):
    packet = edge_pipeline(load_model(model_directory)).encode(np.zeros((*size, 3), np.uint8))
    assert packet.image_size == size


def test_images_that_a_cloud_will_refuse_are_told_of_once(node, probe, capfd):
    features = probe.listen(CompressedFeature, 'features')
    camera = probe.publisher(Image, 'image_raw')
    for count in (1, 2):
        probe.insist(camera, camera_image(8, 4104), lambda n=count: len(features) >= n, 'features')
    told = [line for line in capfd.readouterr().err.splitlines() if 'will refuse this' in line]
    (line,) = told
    assert 'images of 4104 x 8 exceed limits.max_image_side, 4096. Raise that parameter' in line


def test_large_messages_are_told_of_once_for_each_change():
    large = LargeMessages()
    told = [
        large.is_news(kind, size, now)
        for kind, size, now in [
            ('a', LARGE_MESSAGE, 0),
            ('a', LARGE_MESSAGE + 1, 1),  # news
            ('a', LARGE_MESSAGE + 1, 100),
            ('b', LARGE_MESSAGE + 1, 101),  # news
            ('a', LARGE_MESSAGE + 1, 102),  # too soon
            ('a', LARGE_MESSAGE + 1, 110),  # news
            ('c', 10, 120),
            ('a', LARGE_MESSAGE + 1, 121),  # news: it is back
        ]
    ]
    assert told == [False, True, False, True, False, True, False, True]


def test_memory_is_free_after_clean_up(model_directory, probe):
    models = []

    def make_pipeline(model):
        models.append(weakref.ref(model))
        return edge_pipeline(model)

    make = partial(EdgeNode, make_pipeline=make_pipeline)
    with make_node(make, model=str(model_directory)) as node:
        probe.executor.add_node(node)
        assert node.start()
        (model,) = models
        features = probe.listen(CompressedFeature, 'features')
        camera = probe.publisher(Image, 'image_raw')
        probe.insist(camera, camera_image(), lambda: features, 'features')
        assert node.facts == {'fingerprint': features[0].model}
        node.stop()
        assert model() is None
        assert node.facts == {}
        probe.executor.remove_node(node)

"""The cloud node as the gateway of a service: results as before, faults told, back by itself."""

import threading
import time

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import CompressedFeature, InstanceArray

from http_engine import HttpEngine
from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline
from msfc.serving.messages import read_request
from msfc.serving.replica import Answer, Request, answer_batch
from msfc_cloud.cloud_node import CloudNode
from msfc_ros.message_to_image import image_to_bgr
from msfc_ros.messages import packet_to_message
from ros_fixtures import camera_image, make_node

pytestmark = pytest.mark.usefixtures('ros')


def test_streams_go_on_when_the_service_is_back(model_directory, start_node, probe):
    model = load_model(model_directory)
    image = camera_image()
    packet = edge_pipeline(model).encode(image_to_bgr(image), 1)
    message = packet_to_message(packet, image.header)
    pipeline = CloudPipeline(model)
    with HttpEngine(pipeline) as engine:
        port = engine.port
        node = start_node(
            'msfc_cloud', 'cloud_node', model=model_directory, engine='ray',
            ray_address=engine.address, score_threshold=0.0, ray_timeout=60.0, threads=1,
        )
        results = probe.listen(InstanceArray, 'instances')
        values = probe.diagnostics()
        features = probe.publisher(CompressedFeature, 'features')
        probe.insist(features, message, lambda: results, 'instances')
        assert results[0].header == image.header
        assert len(results[0].instances) == len(pipeline.decode(packet).instances)
        assert engine.requests
    probe.insist(
        features, message, lambda: values('decoding').get('refused_engine_away'), 'a refusal'
    )
    assert 'is  msfc serve  running there?' in node.output
    with HttpEngine(pipeline, port):
        results.clear()
        probe.insist(features, message, lambda: results, 'instances again')
    assert node.stop() == 0


def test_one_camera_s_answer_holds_up_no_other(model_directory, start_node, probe):
    """Of two cameras one's requests hang: the other's results come, its own are refused."""
    model = load_model(model_directory)
    image = camera_image()
    encode = edge_pipeline(model).encode
    messages = {
        name: packet_to_message(encode(image_to_bgr(picture), 1), picture.header)
        for name, picture in (('hung', camera_image(96, 160)), ('good', image))
    }
    pipeline, ended = CloudPipeline(model), threading.Event()

    def answer(body):
        if read_request(body, pipeline).packet.image_height == 96:
            ended.wait(60)
            return Answer(500, b'')
        (answered,) = answer_batch(pipeline, [Request(body, time.monotonic())], 60.0)
        return answered

    with HttpEngine(pipeline) as engine:
        engine.answering = answer
        start_node(
            'msfc_cloud', 'cloud_node', model=model_directory, engine='ray', ray_timeout=5.0,
            ray_address=f'http://127.0.0.1:9, {engine.address}', threads=1, cameras='[hung, good]',
        )
        results = probe.listen(InstanceArray, 'good/instances')
        values = probe.diagnostics()
        features = {
            name: probe.publisher(CompressedFeature, f'{name}/features') for name in messages
        }
        # The first address has nobody: the second is asked from then on.
        probe.insist(features['good'], messages['good'], lambda: results, 'instances')
        for name in ('hung', 'good'):
            features[name].publish(messages[name])
            messages[name].sequence += 1
        results.clear()
        probe.insist(features['good'], messages['good'], lambda: len(results) > 1, 'others')
        assert values('decoding /hung/features').get('refused', '0') == '0'
        probe.wait(
            lambda: values('decoding /hung/features').get('refused_engine_away'), 'its refusal'
        )
        ended.set()


def test_an_address_that_is_none():
    with (
        pytest.raises(ValueError, match=r'parameter ray_address: .* no address of a service'),
        make_node(CloudNode, engine='ray', ray_address='10.0.0.2'),
    ):
        pass

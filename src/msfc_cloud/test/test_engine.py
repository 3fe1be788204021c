"""The cloud node as the gateway of a service: results as before, faults told, back by itself."""

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import CompressedFeature, InstanceArray

from http_engine import HttpEngine
from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline
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


def test_an_address_that_is_none():
    with (
        pytest.raises(ValueError, match=r'parameter ray_address: .* no address of a service'),
        make_node(CloudNode, engine='ray', ray_address='10.0.0.2'),
    ):
        pass

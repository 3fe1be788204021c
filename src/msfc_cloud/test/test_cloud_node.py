import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import CompressedFeature, InstanceArray, LabelInfo
from rclpy.parameter import Parameter

from msfc.model_file import load_model
from msfc.pipeline import EdgePipeline
from msfc_cloud.cloud_node import CloudNode
from msfc_ros.image_conversion import image_to_bgr
from msfc_ros.messages import packet_to_message
from msfc_ros.qos import LATCHED
from ros_fixtures import camera_image, make_node

pytestmark = pytest.mark.usefixtures('ros')


@pytest.fixture
def features(model_directory):
    image = camera_image()
    packet = EdgePipeline(load_model(model_directory)).encode(image_to_bgr(image))
    return packet_to_message(packet, image.header)


@pytest.fixture
def node(model_directory, probe):
    with make_node(CloudNode, model=str(model_directory), score_threshold=0.05) as node:
        probe.executor.add_node(node)
        assert node.start()
        yield node
        node.stop()
        probe.executor.remove_node(node)


def test_threshold_can_be_changed_live(node, probe, features):
    infos = probe.listen(LabelInfo, 'label_info', LATCHED)
    found = probe.listen(InstanceArray, 'instances')
    edge = probe.publisher(CompressedFeature, 'features')
    probe.insist(edge, features, lambda: found, 'instances')
    assert found[-1].instances
    (result,) = node.set_parameters([Parameter('score_threshold', value=1.0)])
    assert result.successful
    probe.insist(edge, features, lambda: not found[-1].instances, 'an empty array')
    probe.wait(lambda: infos and infos[-1].score_threshold == 1.0, 'the new label info')
    (result,) = node.set_parameters([Parameter('score_threshold', value=1.5)])
    assert not result.successful


def test_error_in_the_work_is_counted_and_the_node_goes_on(node, probe, features, monkeypatch):
    def fail(packet):
        raise RuntimeError('out of memory')

    found = probe.listen(InstanceArray, 'instances')
    edge = probe.publisher(CompressedFeature, 'features')
    with monkeypatch.context() as patch:
        patch.setattr(node._pipeline, 'decode', fail)
        probe.insist(
            edge, features, lambda: node.statistics.refused.get('internal_error'), 'the count'
        )
        assert not found
    probe.insist(edge, features, lambda: found, 'instances')

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import CompressedFeature
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from msfc_edge.edge_node import EdgeNode
from ros_fixtures import camera_image, make_node

pytestmark = pytest.mark.usefixtures('ros')


def test_unknown_bit_depth():
    with (
        pytest.raises(ValueError, match='bit_depth is 5, but has to be one of 0, 2, 4, 8, 16, 32'),
        make_node(EdgeNode, bit_depth=5),
    ):
        pass


def test_refusal_of_a_bit_depth_says_which_there_are(model_directory):
    with make_node(EdgeNode, model=str(model_directory)) as node:
        (result,) = node.set_parameters([Parameter('bit_depth', value=7)])
        assert not result.successful
        assert result.reason.endswith('has to be one of 0, 2, 4, 8, 16, 32')


def test_encodes_only_for_a_subscriber(model_directory, probe):
    with make_node(EdgeNode, model=str(model_directory)) as node:
        probe.executor.add_node(node)
        assert node.start()
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
        probe.executor.remove_node(node)

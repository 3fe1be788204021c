"""Quality of service between real processes: what fits, what does not, and who is told."""

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import CompressedFeature, InstanceArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from ros_fixtures import camera_image

RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.fixture
def start_pair(start_node, model_directory):
    def start(edge, cloud):
        return (
            start_node(
                'msfc_edge',
                'edge_node',
                model=model_directory,
                qos__features__reliability=edge,
            ),
            start_node(
                'msfc_cloud',
                'cloud_node',
                model=model_directory,
                qos__features__reliability=cloud,
            ),
        )

    return start


@pytest.mark.parametrize(
    ('edge', 'cloud'),
    [('reliable', 'reliable'), ('reliable', 'best_effort'), ('best_effort', 'best_effort')],
)
def test_link_of_either_kind(probe, start_pair, edge, cloud):
    start_pair(edge, cloud)
    instances = probe.listen(InstanceArray, 'instances')
    camera = probe.publisher(Image, 'image_raw')
    probe.wait_for_publisher('instances')
    image = camera_image()
    probe.insist(camera, image, lambda: instances, 'instances')
    assert instances[0].header == image.header


def test_link_that_does_not_fit_is_reported_by_both(probe, start_pair):
    edge, cloud = start_pair('best_effort', 'reliable')
    # These fit with the edge and are none of its business.
    probe.node.create_subscription(CompressedFeature, 'features', print, BEST_EFFORT)
    probe.node.create_publisher(CompressedFeature, 'features', RELIABLE)
    why = '(Best effort publisher and reliable subscription)'
    told = (
        "no message of topic '/features' passes to /msfc_cloud: offered here is best_effort, "
        f'volatile; it wants reliable, volatile {why}'
    )
    probe.wait(lambda: told in edge.output, 'the report of the edge')
    told_too = (
        "no message of topic '/features' passes from /msfc_edge: it offers best_effort, "
        f'volatile; wanted here is reliable, volatile {why}'
    )
    probe.wait(lambda: told_too in cloud.output, 'the report of the cloud')
    assert '/probe' not in edge.output
    assert '/probe' not in cloud.output


def test_qos_overrides(probe, start_node, model_directory, tmp_path):
    file = tmp_path / 'overrides.yaml'
    file.write_text(
        '/**:\n'
        '  ros__parameters:\n'
        '    qos_overrides:\n'
        '      /image_raw:\n'
        '        subscription:\n'
        '          reliability: reliable\n'
        '      /features:\n'
        '        publisher:\n'
        '          reliability: best_effort\n'
    )
    edge = start_node(
        'msfc_edge', 'edge_node', '--ros-args', '--params-file', str(file), '--',
        model=model_directory,
    )  # fmt: skip
    features = probe.listen(CompressedFeature, 'features', BEST_EFFORT)
    camera = probe.publisher(Image, 'image_raw', RELIABLE)
    (subscription,) = probe.node.get_subscriptions_info_by_topic('/image_raw')
    assert subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    probe.wait_for_publisher('features')
    (publisher,) = probe.node.get_publishers_info_by_topic('/features')
    assert publisher.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    probe.insist(camera, camera_image(), lambda: features, 'features')
    probe.node.create_publisher(Image, 'image_raw', BEST_EFFORT)
    told = "no message of topic '/image_raw' passes from /probe: it offers best_effort"
    probe.wait(lambda: told in edge.output, 'the report')


def test_override_that_cannot_be(start_node, model_directory, tmp_path):
    file = tmp_path / 'overrides.yaml'
    file.write_text(
        '/**:\n'
        '  ros__parameters:\n'
        '    qos_overrides:\n'
        '      /features:\n'
        '        publisher:\n'
        '          reliability: certain\n'
    )
    edge = start_node(
        'msfc_edge', 'edge_node', '--ros-args', '--params-file', str(file), '--',
        model=model_directory,
    )  # fmt: skip
    assert edge.wait() == 1
    assert "cannot configure: topic '/features' cannot have this QoS: " in edge.output
    assert 'certain' in edge.output
    assert 'Traceback' not in edge.output

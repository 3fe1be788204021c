"""What a cloud node tells its edges about the link, over real DDS."""

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import CompressedFeature, LinkReport
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy

from msfc.model_file import load_model
from msfc.pipeline.torch_network import edge_pipeline
from msfc_cloud.camera_parameters import check_weights
from msfc_cloud.cloud_node import CloudNode
from msfc_ros.message_to_image import image_to_bgr
from msfc_ros.messages import packet_to_message
from ros_fixtures import camera_image, make_node

pytestmark = pytest.mark.usefixtures('ros')

BEST_EFFORT = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
PERIOD = 0.05
CAMERAS = ('front', 'rear')


class Rig:
    """A cloud node, its edges and their ears."""

    def __init__(self, node, probe, model_directory):
        self.node, self.probe = node, probe
        image = camera_image()
        packet = edge_pipeline(load_model(model_directory)).encode(image_to_bgr(image))
        self._message = packet_to_message(packet, image.header)
        self.edges, self.reports = {}, {}

    def listen(self, name):
        """Let an edge listen, and be there to send."""
        prefix = f'{name}/' if name else ''
        self.reports[name] = self.probe.listen(LinkReport, f'{prefix}link_report', BEST_EFFORT)
        self.edges[name] = self.probe.publisher(CompressedFeature, f'{prefix}features', 100)

    def send(self, name, sequence):
        """Send a frame whose stamp goes with its number."""
        self._message.sequence = sequence
        self._message.header.stamp.sec = 100 + sequence
        self.edges[name].publish(self._message)

    def wait_for(self, name, condition, what):
        """Wait for a report for which a condition holds; return it."""
        return self.probe.wait(
            lambda: next((one for one in reversed(self.reports[name]) if condition(one)), None),
            what,
        )


@pytest.fixture
def make_rig(model_directory, probe):
    nodes = []

    def make(**parameters):
        context = make_node(
            CloudNode, model=str(model_directory), qos__features__depth=100,
            report_period=PERIOD, **parameters,
        )  # fmt: skip
        node = context.__enter__()
        nodes.append((context, node))
        probe.executor.add_node(node)
        assert node.start()
        return Rig(node, probe, model_directory)

    yield make
    for context, node in nodes:
        node.stop()
        probe.executor.remove_node(node)
        context.__exit__(None, None, None)


def test_an_edge_is_told_what_has_arrived(make_rig):
    rig = make_rig()
    rig.listen('')
    first = rig.wait_for('', lambda one: True, 'a report')
    assert (first.received, first.lost) == (0, 0)
    assert first.period == pytest.approx(PERIOD)
    assert first.share == 0.0
    for sequence in (5, 6, 9):
        rig.send('', sequence)
        rig.wait_for('', lambda one, s=sequence: one.received_up_to == s, 'the next report')
    last = rig.wait_for('', lambda one: one.received == 3, 'all of them')
    assert last.lost == 2
    assert last.header.stamp.sec > 0
    numbers = [one.number for one in rig.reports['']]
    assert numbers == sorted(set(numbers))
    # The first ones may have replaced each other while the node decoded its first message.
    for sequence in range(10, 16):
        rig.send('', sequence)
        rig.probe.spin(0.4)
    told = rig.wait_for('', lambda one: one.decode_rate > 0, 'its load')
    assert told.acknowledged_key == 0
    assert not told.keyframe_wanted
    assert 'link_bitrate' in rig.node.values()


def test_bitrate_and_delay_are_those_of_what_comes(make_rig):
    rig = make_rig()
    rig.listen('')
    for sequence in range(20):
        rig.send('', sequence)
        rig.probe.spin(0.05)
    last = rig.wait_for('', lambda one: one.received == 20, 'all of them')
    # On one machine there is no queue; by its clock none can be below the smallest.
    assert 0.0 <= last.delay < 1.0
    assert last.delay_samples > 0
    assert last.bitrate > 0.0


def test_who_does_not_listen_is_told_nothing(make_rig):
    rig = make_rig()
    edge = rig.probe.publisher(CompressedFeature, 'features', 100)
    rig.edges[''] = edge
    for sequence in range(3):
        rig.send('', sequence)
    rig.probe.spin(5 * PERIOD)
    assert 'link_bitrate' not in rig.node.values()


def test_a_budget_is_shared_by_weight(make_rig):
    rig = make_rig(cameras=list(CAMERAS), weights=[1.0, 3.0], link_budget=400_000.0)
    for name in CAMERAS:
        rig.listen(name)
    both = [
        rig.wait_for(name, lambda one, s=share: one.share == pytest.approx(s), f'share of {name}')
        for name, share in zip(CAMERAS, (100_000.0, 300_000.0), strict=True)
    ]
    assert [one.weight for one in both] == [1.0, 3.0]
    assert 'link_share' in rig.node.parts()['/rear/features'][1]
    (result,) = rig.node.set_parameters([Parameter('link_budget', value=800_000.0)])
    assert result.successful
    rig.wait_for('rear', lambda one: one.share == pytest.approx(600_000.0), 'the new share')
    (result,) = rig.node.set_parameters([Parameter('link_budget', value=0.0)])
    assert result.successful
    rig.wait_for('rear', lambda one: one.share == 0.0 and one.number > 3, 'no share')


def test_reports_end_with_the_node_at_rest_and_begin_anew(make_rig):
    rig = make_rig()
    rig.listen('')
    rig.send('', 3)
    rig.wait_for('', lambda one: one.received == 1, 'a report')
    rig.node.stop()
    rig.reports[''].clear()
    rig.probe.spin(5 * PERIOD)
    assert not rig.reports['']
    assert rig.node.start()
    again = rig.wait_for('', lambda one: True, 'a report')
    assert again.received == 0


@pytest.mark.parametrize(
    ('weights', 'words'), [([1.0, 2.0, 3.0], '3 numbers for 2'), ([1.0, 0.0], 'above 0')]
)
def test_impossible_weights_are_refused_at_once(weights, words):
    with (
        pytest.raises(ValueError, match=words),
        make_node(CloudNode, cameras=list(CAMERAS), weights=weights),
    ):
        pass


def test_one_weight_is_that_of_all():
    assert check_weights(CAMERAS, [2.0]) == [2.0, 2.0]

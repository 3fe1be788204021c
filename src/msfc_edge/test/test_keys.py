"""An edge that makes key frames, over real DDS; here the probe is the cloud."""

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import CompressedFeature, LinkReport
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from msfc_edge.edge_node import EdgeNode
from msfc_edge.keys import UNANSWERED, Trigger
from ros_fixtures import camera_image, make_node

pytestmark = pytest.mark.usefixtures('ros')

INTERVAL = 64
"""Frames from one key frame to the next; an eighth of it while none is acknowledged."""

BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


class Rig:
    """An edge node, a still scene in front of it and a cloud behind it."""

    def __init__(self, node, probe):
        self.node, self.probe = node, probe
        self.features = probe.listen(CompressedFeature, 'features')
        self.camera = probe.publisher(Image, 'image_raw')
        self.cloud = probe.node.create_publisher(LinkReport, 'link_report', BEST_EFFORT)
        self._number = 0

    def tell(self, condition, what, **fields):
        """Report, and show an image, again and again until a condition holds."""

        def once():
            self.camera.publish(camera_image())
            message = LinkReport(number=self._number, period=0.2, weight=1.0, **fields)
            self._number += 1
            self.cloud.publish(message)
            self.probe.spin(0.1)
            return condition()

        return self.probe.wait(once, what)

    def shoot(self, condition, what):
        """Publish images until a condition holds."""
        return self.probe.insist(self.camera, camera_image(), condition, what)

    def key(self):
        """Show images until there is a new key frame; return its number."""
        start = len(self.features)

        def found():
            new = [m.sequence for m in self.features[start:] if m.reference == m.sequence != 0]
            return new[-1] if new else None

        return self.shoot(found, 'a key frame')

    def refer(self):
        """Acknowledge a new key frame and wait until frames refer to it; return its number."""
        key = self.key()
        self.tell(
            lambda: self.features[-1].reference == key < self.features[-1].sequence,
            'a frame that refers to it',
            acknowledged_key=key,
        )
        return key

    def set_interval(self, value):
        (result,) = self.node.set_parameters([Parameter('key_interval', value=value)])
        return result

    def findings(self):
        return [finding for finding in self.node.findings() if finding.kind == UNANSWERED]

    def listening(self):
        return self.probe.node.count_subscribers('link_report')


@pytest.fixture
def make_rig(referring_model_directory, probe):
    nodes = []

    def make(model=referring_model_directory, **parameters):
        context = make_node(EdgeNode, model=str(model), **parameters)
        node = context.__enter__()
        nodes.append((context, node))
        probe.executor.add_node(node)
        assert node.start()
        return Rig(node, probe)

    yield make
    for context, node in nodes:
        node.stop()
        probe.executor.remove_node(node)
        context.__exit__(None, None, None)


def test_by_default_every_message_decodes_alone(make_rig):
    rig = make_rig()
    rig.shoot(lambda: len(rig.features) > 3, 'features')
    assert {message.reference for message in rig.features} == {0}
    assert not rig.listening()
    assert 'acknowledged_key' not in rig.node.values()


def test_what_is_acknowledged_is_referred_to(make_rig):
    rig = make_rig(key_interval=INTERVAL)
    key = rig.refer()
    assert rig.node.values()['acknowledged_key'] == str(key)
    shown = rig.node.statistics.values()
    assert int(shown['referring']) > 0
    assert int(shown['key_frames']) > 0
    assert float(shown['payload_bytes']) < float(shown['alone_bytes'])


def test_a_cloud_without_it_gets_another(make_rig):
    rig = make_rig(key_interval=INTERVAL)
    first = rig.refer()
    start = len(rig.features)
    rig.tell(
        lambda: any(m.reference == m.sequence for m in rig.features[start:]),
        'a key frame',
        acknowledged_key=first, keyframe_wanted=True,
    )  # fmt: skip
    assert int(rig.node.statistics.values()['keyframes_wanted']) > 0
    second = rig.refer()
    assert second > first
    # Started anew, it has none.
    start = len(rig.features)
    rig.tell(
        lambda: any(m.reference == m.sequence for m in rig.features[start:]), 'a key frame'
    )


def test_without_reports_nothing_is_referred_to(make_rig):
    rig = make_rig(key_interval=INTERVAL)
    rig.refer()
    rig.shoot(lambda: rig.features[-1].reference in (0, rig.features[-1].sequence), 'one alone')
    (finding,) = rig.findings()
    assert 'every frame is coded alone' in finding.text
    assert 'same topic' in rig.node.advice(finding.kind)
    rig.refer()
    assert not rig.findings()


def test_bad_reports_are_refused_and_change_nothing(make_rig):
    rig = make_rig(key_interval=INTERVAL)
    key = rig.refer()
    rig.tell(
        lambda: int(rig.node.statistics.values().get('bad_reports', 0)),
        'a refusal',
        keyframe_wanted=True, bitrate=float('nan'),
    )  # fmt: skip
    assert rig.node.values()['acknowledged_key'] == str(key)
    assert 'keyframes_wanted' not in rig.node.statistics.values()


def test_the_interval_is_live(make_rig):
    rig = make_rig()
    rig.shoot(lambda: rig.features, 'features')
    assert rig.set_interval(INTERVAL).successful
    rig.refer()
    assert rig.set_interval(0).successful
    rig.probe.wait(lambda: not rig.listening(), 'the end of listening')
    start = len(rig.features)
    rig.shoot(lambda: len(rig.features) > start + 2, 'features')
    assert rig.features[-1].reference == 0
    assert rig.set_interval(500).successful
    rig.refer()
    assert not rig.set_interval(-1).successful
    # Activated again it counts anew, and knows of no key frame.
    rig.node.stop()
    rig.probe.spin(0.5)  # what is under way
    rig.features.clear()
    assert rig.node.start()
    rig.shoot(lambda: rig.features, 'features')
    assert (rig.features[0].sequence, rig.features[0].reference) == (0, 0)
    rig.refer()


def test_both_parts_hear_the_reports(make_rig):
    rig = make_rig(key_interval=INTERVAL, adaptive=True)
    rig.refer()
    assert 'link_bitrate' in rig.node.values()
    (result,) = rig.node.set_parameters([Parameter('adaptive', value=False)])
    assert result.successful
    rig.refer()
    assert rig.listening()
    assert rig.set_interval(0).successful
    rig.probe.wait(lambda: not rig.listening(), 'the end of listening')


def test_a_coding_without_references_is_told_of(model_directory, make_rig, probe):
    with make_node(EdgeNode, model=str(model_directory), key_interval=5) as node:
        assert not node.start()
        assert "the model's coding, 0, has no references" in node.failure
    rig = make_rig(model=model_directory)
    result = rig.set_interval(5)
    assert not result.successful
    assert 'has no references' in result.reason


@pytest.mark.skipif(Trigger is None, reason='std_srvs is not installed')
def test_a_key_frame_can_be_asked_for(make_rig):
    rig = make_rig(key_interval=INTERVAL)

    def ask():
        return rig.probe.call(Trigger, 'msfc_edge/request_keyframe', Trigger.Request())

    first = rig.refer()
    assert ask().success
    assert rig.key() > first
    assert rig.set_interval(0).successful
    refused = ask()
    assert not refused.success
    assert refused.message == 'key_interval is 0: every message decodes alone'
    rig.node.stop()
    assert ask().message == 'the node is not active'

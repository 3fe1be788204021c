"""Key frames at a cloud node, over real DDS; here the probe is the edge."""

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import CompressedFeature, InstanceArray, LinkReport
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header

from msfc.model_file import load_model
from msfc.pipeline.torch_network import edge_pipeline
from msfc_cloud.cloud_node import CloudNode
from msfc_ros.message_to_image import image_to_bgr
from msfc_ros.messages import packet_to_message
from ros_fixtures import camera_image, make_node

pytestmark = pytest.mark.usefixtures('ros')

BEST_EFFORT = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.fixture(scope='module')
def model(referring_model_directory):
    return load_model(referring_model_directory)


class Rig:
    """A cloud node and its edge, which takes key frames as acknowledged when it is told so."""

    def __init__(self, node, probe, model):
        self.node, self.probe = node, probe
        self._pipeline = edge_pipeline(model, key_interval=1000)
        self._image = image_to_bgr(camera_image())
        self.found = probe.listen(InstanceArray, 'instances', 100)
        self.reports = probe.listen(LinkReport, 'link_report', BEST_EFFORT)
        self._edge = probe.publisher(CompressedFeature, 'features', 100)
        probe.wait(node.listeners, 'the node to know this probe')
        self._sent = 0

    def restart_edge(self):
        self._pipeline.keys.restart()

    def make(self, sequence, key=0, seconds=None):
        """Return a message that refers to a key frame, or is one, if the latter is its number.

        Its image is of the second of its number, unless another is given.
        """
        if key == sequence:
            self._pipeline.keys.request()
        self._pipeline.keys.acknowledge(key)
        image = self._image.copy()
        image[16:32, : 5 * sequence % 150 + 8] = np.uint8(sequence)
        packet = self._pipeline.encode(image, sequence)
        assert packet.reference == key
        header = Header(frame_id='camera_optical_frame')
        header.stamp.sec = 100 + sequence if seconds is None else seconds
        return packet_to_message(packet, header)

    def send(self, *messages):
        """Send messages and wait until the node has received them."""
        for message in messages:
            self._edge.publish(message)
        self._sent += len(messages)
        self.probe.wait(lambda: self.count('received') == self._sent, 'all messages')

    def count(self, name):
        return int(self.node.statistics.values().get(name, 0))

    def wait_for(self, key, wanted):
        """Wait until a report says which key frame is there, and whether one is wanted."""
        return self.probe.wait(
            lambda: any(
                (one.acknowledged_key, one.keyframe_wanted) == (key, wanted)
                for one in self.reports[-2:]
            ),
            f'key frame {key}',
        )

    def missing(self):
        return self.node.statistics.refused.get('missing_reference', 0)


@pytest.fixture
def rig(referring_model_directory, model, probe):
    with make_node(
        CloudNode, model=str(referring_model_directory), qos__features__depth=100,
        qos__output__depth=100, report_period=0.05,
    ) as node:  # fmt: skip
        probe.executor.add_node(node)
        assert node.start()
        yield Rig(node, probe, model)
        node.stop()
        probe.executor.remove_node(node)


def test_a_key_frame_is_acknowledged(rig):
    rig.wait_for(0, False)
    rig.send(rig.make(1, 1))
    rig.wait_for(1, False)
    rig.send(rig.make(2, 1), rig.make(3, 1))
    rig.probe.wait(lambda: rig.found and rig.found[-1].header.stamp.sec == 103, 'the last')
    rig.send(rig.make(4, 4))
    rig.wait_for(4, False)
    assert rig.count('key_frames') == 2
    assert not rig.node.statistics.refused


def test_a_missing_one_is_asked_for_anew_and_the_message_is_not_lost(rig, capfd):
    key = rig.make(1, 1)
    rig.send(rig.make(2, 1))
    rig.wait_for(0, True)
    assert rig.missing() == 1
    assert rig.count('lost') == 0
    assert not rig.found
    assert '1, which is not known here; the edge is asked for a new' in capfd.readouterr().err
    # It was late.
    rig.send(key)
    rig.wait_for(1, False)
    assert rig.count('reordered') == 1
    rig.send(rig.make(3, 1))
    rig.probe.wait(lambda: rig.found and rig.found[-1].header.stamp.sec == 103, 'the last')
    assert rig.missing() == 1


def test_of_an_edge_that_counts_anew_those_before_are_not_meant(rig):
    rig.send(rig.make(1, 1), rig.make(2, 1), rig.make(3, 1))
    rig.wait_for(1, False)
    rig.restart_edge()
    key = rig.make(1, 1, seconds=200)  # is lost
    assert key.reference == 1
    rig.send(rig.make(2, 1, seconds=201))
    rig.wait_for(0, True)
    assert rig.missing() == 1
    rig.send(rig.make(3, 3, seconds=202), rig.make(4, 3, seconds=203))
    rig.wait_for(3, False)
    rig.probe.wait(lambda: rig.found and rig.found[-1].header.stamp.sec == 203, 'the last')
    assert rig.missing() == 1


def test_a_recording_that_begins_with_a_key_frame_can_be_played_again(rig):
    played = [rig.make(1, 1), *(rig.make(number, 1) for number in range(2, 7))]
    rig.send(*played)
    rig.probe.wait(lambda: rig.found and rig.found[-1].header.stamp.sec == 106, 'the last')
    rig.found.clear()
    rig.send(*played)
    rig.probe.wait(lambda: rig.found and rig.found[-1].header.stamp.sec == 106, 'the last again')
    assert rig.count('restarted') == 1
    assert rig.missing() == 0


def test_key_frames_end_with_the_activation(rig):
    rig.send(rig.make(1, 1))
    rig.wait_for(1, False)
    rig.node.stop()
    assert rig.node.start()
    rig.reports.clear()
    rig.wait_for(0, False)


def test_who_does_not_listen_is_not_asked(referring_model_directory, model, probe, capfd):
    with make_node(CloudNode, model=str(referring_model_directory)) as node:
        probe.executor.add_node(node)
        assert node.start()
        edge = edge_pipeline(model, key_interval=10)
        image = image_to_bgr(camera_image())
        edge.encode(image, 1)
        edge.keys.acknowledge(1)
        features = probe.publisher(CompressedFeature, 'features')
        message = packet_to_message(edge.encode(image, 2), camera_image().header)
        probe.insist(
            features, message, lambda: node.statistics.refused.get('missing_reference'), 'it'
        )
        assert 'nobody listens to link_report' in capfd.readouterr().err
        node.stop()
        probe.executor.remove_node(node)

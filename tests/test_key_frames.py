"""Key frames between both nodes as processes, with a relay between them that does what links do.

The relay sees all that the edge sends. So what the cloud has to make of each message is known:
what a pipeline makes of it that has every key frame. Nothing may come out otherwise.
"""

from __future__ import annotations

import random
import signal
import statistics

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import CompressedFeature, InstanceArray, LinkReport
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from host_agent import digest
from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.references import KeyStore
from msfc_ros.image_to_message import image_to_message
from msfc_ros.messages import instances_to_message, packet_from_message
from ros_fixtures import camera_image

pytestmark = pytest.mark.usefixtures('ros')

INTERVAL = 16
"""Frames from one key frame to the next."""

PERIOD = 0.1
"""Seconds between two images."""

STEP = 10**6
"""Nanoseconds between two stamps: on however slow a machine, a message that is late is not old."""

PATIENCE = 10.0
"""Period that reports tell of, in seconds, so that a slow machine's silence is none."""

THRESHOLD = 0.05

BEST_EFFORT = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)


def refers(message):
    return message.reference not in (0, message.sequence)


def is_key(message):
    return message.reference == message.sequence != 0


def alone_bytes(messages):
    """Return the median bytes of those that do not refer to another."""
    return statistics.median(len(m.data) for m in messages if not refers(m))


def stamp(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


class Relay:
    """A camera, the two nodes, and what is between them.

    Attributes:
        lives: what each edge has sent, one after the other.
        carry: gets each message of the edge and returns what arrives in its place, in order.
        hear: gets each report of the cloud and returns whether it arrives.
        echo: whether the last report is repeated: the edge does not notice that the cloud is gone.
        patience: the period that reports tell of in place of their own, if any, in seconds.
    """

    def __init__(self, probe, start_node, model):
        self.probe, self._start_node, self._model = probe, start_node, model
        self.lives, self.echo, self.patience = [], False, PATIENCE
        self.carry, self.hear = (lambda message: [message]), (lambda report: True)
        self.nodes = {}
        self._report = None
        self._shown, self._filming = 0, False
        node = probe.node
        self._base = np.frombuffer(camera_image().data, np.uint8).reshape(120, 160, 3)
        self._images = node.create_publisher(Image, 'image_raw', 10)
        self._to_cloud = node.create_publisher(CompressedFeature, 'arrived', 100)
        self._to_edge = node.create_publisher(LinkReport, 'link_report', BEST_EFFORT)
        self.results = probe.listen(InstanceArray, 'instances', 100)
        self.diagnostics = probe.diagnostics()
        node.create_subscription(CompressedFeature, 'features', self._sent, 100)
        node.create_subscription(LinkReport, 'reported', self._reported, BEST_EFFORT)
        node.create_timer(PERIOD, self._shoot)
        node.create_timer(0.2, self._repeat)

    def start(self, name):
        """Start the edge or the cloud and wait until it can be reached.

        Nothing is filmed meanwhile, nor before both are there: what one sends to nobody is lost.
        """
        parameters = {
            'model': self._model, 'diagnostics_period': 0.1, 'qos__features__depth': 100,
        }  # fmt: skip
        if name == 'edge':
            self.lives.append([])
            parameters |= {'key_interval': INTERVAL, 'rate': 2}
        else:
            parameters |= {
                'features_topic': 'arrived', 'link_report_topic': 'reported',
                'score_threshold': THRESHOLD, 'qos__output__depth': 100, 'report_period': 0.1,
            }  # fmt: skip
        # A slow machine has enough to do with the start.
        self._filming = False
        node = self.nodes[name] = self._start_node(f'msfc_{name}', f'{name}_node', **parameters)
        self.wait(lambda: f'[msfc_{name}]: active' in node.output, f'{name} to become active')
        heard = self._images if name == 'edge' else self._to_cloud
        self.wait(heard.get_subscription_count, f'the subscription of the {name}')
        self._filming = len(self.nodes) == 2

    def kill(self, name):
        """End a node by ``kill -9``; what it has sent belongs to its own life."""
        assert self.nodes[name].stop(signal.SIGKILL) == -signal.SIGKILL
        count = -1
        while name == 'edge' and count != (count := len(self.lives[-1])):
            self.probe.spin(0.5)

    def wait(self, condition, what):
        def checked():
            for node in self.nodes.values():
                assert node.running(), node.output[-3000:]
            return condition()

        return self.probe.wait(checked, what)

    def referring(self):
        """Return the frames of this edge that refer to another and came out of the cloud."""
        out = set(map(stamp, self.results))
        return [m for m in self.lives[-1] if refers(m) and stamp(m) in out]

    def wait_for_references(self, count=5):
        """Wait until so many more frames that refer to another have come out."""
        before = len(self.referring())
        self.wait(lambda: len(self.referring()) >= before + count, 'frames that refer to another')

    def refused(self, reason='missing_reference'):
        """Return how many messages the present cloud has refused by what it says."""
        return int(self.diagnostics('decoding').get(f'refused_{reason}', 0))

    def check_results(self):
        """Check order and content of all that came out."""
        model = load_model(self._model)
        pipeline = CloudPipeline(model)
        stamps = [stamp(result) for result in self.results]
        assert stamps == sorted(set(stamps))
        found = dict(zip(stamps, self.results, strict=True))
        checked = 0
        for life in self.lives:
            keys = KeyStore()
            for message in life:
                valid = pipeline.validate(packet_from_message(message), keys)
                result = found.get(stamp(message))
                if result is None:
                    continue
                (expected,) = pipeline.decode_valid([valid])
                instances = expected.instances.above(THRESHOLD)
                assert len(instances), 'an empty result would prove nothing'
                expected = instances_to_message(
                    instances, message.header, valid.packet.image_size, model.class_names
                )
                assert digest(result) == digest(expected), f'number {message.sequence}'
                checked += 1
        assert checked == len(stamps)

    def _shoot(self):
        """Show a square that goes along a still background."""
        if not self._filming:
            return
        picture = self._base.copy()
        place = self._shown % 14 * 10
        picture[16:40, place : place + 20] = self._shown % 5 * 60
        self._shown += 1
        message = image_to_message(picture, camera_image().header, 'bgr8')
        message.header.stamp.nanosec = self._shown * STEP
        self._images.publish(message)

    def _sent(self, message):
        self.lives[-1].append(message)
        for one in self.carry(message):
            self._to_cloud.publish(one)

    def _reported(self, report):
        if self.hear(report):
            report.period = self.patience or report.period
            self._report = report
            self._to_edge.publish(report)

    def _repeat(self):
        if self.echo and self._report is not None:
            self._to_edge.publish(self._report)


@pytest.fixture
def relay(probe, start_node, referring_model_directory):
    relay = Relay(probe, start_node, referring_model_directory)
    relay.start('cloud')
    relay.start('edge')
    return relay


def test_what_is_acknowledged_is_referred_to(relay):
    relay.wait_for_references(INTERVAL)
    (life,) = relay.lives
    keys = [m.sequence for m in life if is_key(m)]
    assert len(keys) > 1
    assert {m.reference for m in life if refers(m)} <= set(keys)
    # What refers takes less; what is no less alone becomes a key frame, or soon one after it.
    assert all(len(m.data) < 0.9 * alone_bytes(life) for m in life if refers(m))
    assert relay.refused() == 0
    shown = relay.diagnostics('encoding')
    assert float(shown['payload_bytes']) < float(shown['alone_bytes'])
    assert int(shown['referring']) >= len(relay.referring()) - INTERVAL
    assert int(shown['key_frames']) > 0
    relay.check_results()


def test_lost_messages(relay):
    """Of any kind; a key frame that is lost is never acknowledged, and so never referred to."""
    rng = random.Random(1)
    lost = []

    def carry(message):
        if rng.random() < (0.7 if is_key(message) else 0.3):
            lost.append(message)
            return []
        return [message]

    relay.carry = carry
    relay.wait(lambda: any(map(is_key, lost)) and any(map(refers, lost)), 'losses of both kinds')
    relay.wait_for_references(INTERVAL)
    assert relay.refused() == 0
    relay.check_results()


def test_reordered_and_repeated_messages(relay):
    rng = random.Random(2)
    held = []

    def carry(message):
        held.append(message)
        if len(held) < 4:
            return []
        rng.shuffle(held)
        released = [*held, rng.choice(held)]
        held.clear()
        return released

    relay.carry = carry
    relay.wait_for_references(INTERVAL)
    shown = relay.diagnostics('decoding')
    assert int(shown['reordered']) > 0
    assert int(shown['repeated']) > 0
    assert relay.refused() == 0
    relay.check_results()


def test_restart_of_the_cloud(relay):
    """The edge refers to what the new one does not have, until it hears that."""
    relay.wait_for_references()
    # Without any reports the edge would refer to nothing; by the new one's first, to nothing old.
    relay.echo, relay.hear = True, lambda report: False
    relay.kill('cloud')
    relay.start('cloud')
    relay.wait(relay.refused, 'a refusal')
    missed = max(m.reference for m in relay.lives[-1] if refers(m))
    assert 'the edge is asked for a new key frame' in relay.nodes['cloud'].output
    relay.echo, relay.hear = False, lambda report: True
    relay.wait(
        lambda: any(m.reference > missed for m in relay.referring()),
        'frames that refer to a new key frame',
    )
    relay.check_results()


def test_restart_of_the_edge(relay):
    """The new one's key frame is lost, and the cloud knows another of its number."""
    relay.carry = lambda message: [] if message.sequence > 1 and is_key(message) else [message]
    relay.wait_for_references()
    assert {m.reference for m in relay.referring()} == {1}
    relay.kill('edge')
    relay.start('edge')

    def carry(message):
        return [message] if any(map(refers, relay.lives[-1])) else []

    relay.carry = carry
    relay.wait(lambda: any(map(refers, relay.lives[-1])), 'a frame that refers to what was lost')
    assert next(m for m in relay.lives[-1] if refers(m)).reference == 1
    relay.wait(relay.refused, 'a refusal')
    relay.wait_for_references()
    assert 1 not in {m.reference for m in relay.referring()}
    assert int(relay.diagnostics('decoding')['restarted']) == 1
    relay.check_results()


def test_restart_of_the_edge_on_a_sound_link(relay):
    relay.wait_for_references()
    relay.kill('edge')
    relay.start('edge')
    relay.wait_for_references()
    assert relay.refused() == 0
    relay.check_results()


def test_no_reports(relay):
    """Whoever cannot be heard cannot say what it lacks, so that nothing is referred to."""
    relay.patience = None
    relay.wait_for_references()
    relay.hear = lambda report: False
    life = relay.lives[-1]
    relay.wait(lambda: not any(map(refers, life[-INTERVAL:])), 'frames that are coded alone')
    assert any(map(is_key, life[-INTERVAL:]))
    # A cloud that is started meanwhile can decode all of them.
    relay.kill('cloud')
    count = len(relay.results)
    relay.start('cloud')
    relay.wait(lambda: len(relay.results) > count + 5, 'frames of the new cloud')
    assert relay.refused() == 0
    relay.hear = lambda report: True
    relay.wait_for_references()
    relay.check_results()

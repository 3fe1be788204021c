"""Bags and the nodes: recorded over DDS, played into the cloud node, inferred offline alike."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import CompressedFeature, InstanceArray
from rclpy.serialization import deserialize_message, serialize_message

from bag_files import FRAME, TOPIC, feature_bytes, packets, stamp, storage, write_features
from msfc.bags.conversion import instances_message
from msfc.bags.definitions import FEATURES, INSTANCES, deserialize, serialize
from msfc.bags.reading import BagError, FeatureBag
from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc_ros.messages import instances_to_message, packet_from_message, packet_to_message

THRESHOLD = 0.05
COUNT = 5
RELIABLE = 10


@pytest.fixture(scope='module')
def model(model_directory):
    return load_model(model_directory)


@pytest.fixture(scope='module')
def sent(model):
    return packets(model, COUNT)


@pytest.fixture(scope='module')
def contents(sent):
    return [feature_bytes(packet, index) for index, packet in enumerate(sent)]


def canonical(message, kind):
    """Return a message's bytes with zeros in the padding, in which rmw leaves what was there."""
    return serialize(deserialize(serialize_message(message), kind), kind)


def test_bytes_are_those_of_the_middleware(model, sent, contents):
    for packet, data in zip(sent, contents, strict=True):
        message = deserialize_message(data, CompressedFeature)
        received = packet_from_message(message)
        assert replace(received, data=bytes(received.data)) == packet
        assert canonical(packet_to_message(packet, message.header), FEATURES) == data

        found = CloudPipeline(model).decode(packet).instances
        assert len(found)
        size = packet.image_size
        live = instances_to_message(found, message.header, size, model.class_names)
        header = deserialize(data, FEATURES).header
        offline = serialize(
            instances_message(found, header, size, model.class_names), INSTANCES
        )
        assert canonical(live, INSTANCES) == offline
        assert deserialize_message(offline, InstanceArray) == live


class Command:
    """`msfc bag ...` as a process."""

    def __init__(self, folder, *arguments):
        self._log = folder / f'bag_{len(list(folder.iterdir()))}.log'
        command = [sys.executable, '-m', 'msfc.cli.main', 'bag', *map(str, arguments)]
        with self._log.open('w') as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, 'COLUMNS': '200'}
            )

    @property
    def output(self):
        return self._log.read_text()

    def running(self):
        return self._process.poll() is None

    def signal(self, number):
        self._process.send_signal(number)

    def wait(self, timeout=60):
        return self._process.wait(timeout)

    def kill(self):
        if self.running():
            self._process.kill()
            self._process.wait()


@pytest.fixture
def bag_command(ros_environment, tmp_path):
    commands = []

    def start(*arguments):
        commands.append(Command(tmp_path, *arguments))
        return commands[-1]

    yield start
    for command in commands:
        command.kill()


def publish_features(probe, contents, topic=TOPIC):
    publisher = probe.publisher(CompressedFeature, topic, RELIABLE)
    for data in contents:
        publisher.publish(deserialize_message(data, CompressedFeature))
        probe.spin(0.05)
    return publisher


def recorded(path):
    with FeatureBag(path) as bag:
        found = [
            (m.topic, serialize(bag.deserialize(m), FEATURES)) for m in bag.messages()
        ]
        return found, bag.damage


def all_in_file(path):
    try:
        return len(recorded(path)[0]) == COUNT
    except BagError:
        return False


def test_what_is_sent_is_recorded(probe, bag_command, tmp_path, contents):
    # The publisher first: a recorder subscribes to what is there, and to what comes later.
    output = tmp_path / 'recorded'
    recorder = bag_command('record', output, '--frames', COUNT)
    publish_features(probe, contents)
    assert recorder.wait() == 0, recorder.output
    assert f'{COUNT} messages' in recorder.output
    assert recorded(output) == ([(TOPIC, data) for data in contents], '')


def test_a_killed_recorder_loses_the_last_seconds_only(probe, bag_command, tmp_path, contents):
    # A topic of its own: for DDS the killed one is a subscriber until its lease ends.
    topic = '/robot1/killed'
    output = tmp_path / 'recorded'
    recorder = bag_command('record', output, '--topic', topic)
    publish_features(probe, contents, topic)

    # With nothing more to come: what was written is handed to the system after two seconds.
    probe.wait(lambda: all_in_file(output), 'the messages in the file')
    recorder.signal(signal.SIGKILL)
    recorder.wait()
    assert not (output / 'metadata.yaml').exists()
    found, damage = recorded(output)
    assert damage
    assert found == [(topic, data) for data in contents]


def test_a_signal_closes_the_bag(probe, bag_command, tmp_path, contents):
    output = tmp_path / 'recorded'
    recorder = bag_command('record', output)
    publish_features(probe, contents)
    probe.wait(lambda: all_in_file(output), 'the messages in the file')
    recorder.signal(signal.SIGINT)
    assert recorder.wait() == 0, recorder.output
    assert recorded(output) == ([(TOPIC, data) for data in contents], '')


def test_live_and_offline_say_the_same(
    probe, start_node, bag_command, tmp_path, model_directory, contents
):
    bag = write_features(tmp_path / 'bag', contents)
    # A process like the node's: the last bits depend on torch's number of threads.
    infer = bag_command(
        'infer', bag, tmp_path / 'offline', '--model', model_directory,
        '--score-threshold', THRESHOLD,
    )
    assert infer.wait() == 0, infer.output
    with FeatureBag(tmp_path / 'offline', kind=INSTANCES) as offline:
        expected = [message.data for message in offline.messages()]

    start_node(
        'msfc_cloud', 'cloud_node', model=model_directory, score_threshold=THRESHOLD,
        features_topic=TOPIC, instances_topic='/robot1/instances', track__enabled=False,
    )
    live = probe.listen(InstanceArray, '/robot1/instances')
    status = probe.diagnostics()
    probe.wait(
        lambda: int(status('decoding').get('listeners', 0)), 'the cloud to know its listener'
    )
    player = bag_command('play', bag, '--each')
    probe.wait(lambda: len(live) >= COUNT or not player.running(), 'instances')
    probe.wait(lambda: not player.running(), 'the end of the player')
    assert player.wait() == 0, player.output
    assert f'{COUNT} messages played' in player.output
    assert [canonical(message, INSTANCES) for message in live] == expected


def test_played_at_a_rate_and_stamped_anew(probe, bag_command, tmp_path, contents):
    bag = write_features(tmp_path / 'bag', contents)
    heard = probe.listen(CompressedFeature, '/elsewhere', RELIABLE)
    before = probe.node.get_clock().now().nanoseconds
    player = bag_command('play', bag, '--to', '/elsewhere', '--rate', '20', '--restamp')
    probe.wait(lambda: len(heard) >= COUNT or not player.running(), 'features')
    assert player.wait() == 0, player.output
    stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in heard]
    assert stamps == sorted(stamps)
    assert stamps[0] > before
    assert stamps[-1] - stamps[0] >= 0.9 * (COUNT - 1) / 20 * 1e9
    assert [m.header.frame_id for m in heard] == [FRAME] * COUNT
    assert [bytes(m.data) for m in heard] == [
        bytes(deserialize(data, FEATURES).data) for data in contents
    ]


def test_played_as_recorded_bit_for_bit_even_if_broken_off(
    probe, bag_command, tmp_path, contents
):
    bag = write_features(tmp_path / 'bag', contents)
    file = storage(bag)
    file.write_bytes(file.read_bytes()[:-9])
    heard = probe.listen(CompressedFeature, TOPIC, RELIABLE)
    player = bag_command('play', bag)
    probe.wait(lambda: len(heard) >= COUNT or not player.running(), 'features')
    assert player.wait() == 1, player.output
    assert f'{COUNT} messages were played' in player.output
    assert [canonical(message, FEATURES) for message in heard] == contents
    assert heard[2].header.stamp.sec * 10**9 + heard[2].header.stamp.nanosec == stamp(2)


def test_bad_requests_are_told_in_words(bag_command, tmp_path, contents):
    bag = write_features(tmp_path / 'bag', contents)
    recorder = bag_command('record', tmp_path / 'new', '--topic', 'no topic!')
    player = bag_command('play', bag, '--to', 'no topic!')
    for command in (recorder, player):
        assert command.wait() == 1
        assert 'error: ROS 2 refuses this: Invalid topic name' in command.output
        assert 'Traceback' not in command.output
    assert not (tmp_path / 'new').exists()


def test_a_recorder_says_what_it_waits_for(bag_command, tmp_path):
    recorder = bag_command('record', tmp_path / 'new', '--topic', '/nobody', '--duration', '6')
    assert recorder.wait() == 0
    assert 'nobody publishes /nobody yet' in recorder.output


def test_a_player_without_listeners_says_so(bag_command, tmp_path, contents):
    bag = write_features(tmp_path / 'bag', contents)
    player = bag_command('play', bag, '--wait', '0.5')
    assert player.wait() == 1
    assert 'nobody subscribed to /robot1/features within 0.5 s' in player.output

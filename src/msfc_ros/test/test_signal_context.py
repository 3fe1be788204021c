"""Command line tools that talk with ROS 2: what goes wrong, and what the bag player sends."""

import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

import rclpy
from msfc_msgs.msg import CompressedFeature
from rclpy.serialization import serialize_message
from rclpy.validate_topic_name import validate_topic_name

from msfc.bags.reading import BagMessage
from msfc_ros.bag_player import Player
from msfc_ros.security import ENABLE
from msfc_ros.signal_context import tool_context

TOPIC = '/robot1/features'


@pytest.fixture
def no_init(monkeypatch):
    """Leave rclpy as it is: other tests of this run have started it, or will."""
    monkeypatch.setattr(rclpy, 'init', lambda **options: None)
    monkeypatch.setattr(rclpy, 'try_shutdown', lambda: None)


def test_signals_set_the_event(no_init):
    before = signal.getsignal(signal.SIGTERM)
    with tool_context() as stop:
        assert not stop.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
    # What sends it twice does not interrupt the end.
    signal.raise_signal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)


def test_signals_are_handled_as_before_afterwards(no_init):
    before = signal.getsignal(signal.SIGTERM)
    with tool_context():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_misspelt_security(no_init, monkeypatch):
    monkeypatch.setenv(ENABLE, '1')
    with pytest.raises(ValueError, match="ROS_SECURITY_ENABLE is '1'"), tool_context():
        raise AssertionError('runs unprotected')


def test_names_that_cannot_be(no_init):
    with pytest.raises(ValueError, match='ROS 2 refuses this: Invalid topic name'), tool_context():
        validate_topic_name('no topic!')


def test_bags_need_no_torch():
    code = (
        'import sys, msfc_ros.bag_player, msfc_ros.bag_recorder; sys.exit("torch" in sys.modules)'
    )
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


# -- the player --


@pytest.fixture
def make_player(ros, monkeypatch):
    """Return a function that makes a player, and what it publishes."""
    players = []

    def make(**options):
        options = {'to': '', 'each': False, 'restamp': False, **options}
        sent = []
        publisher = SimpleNamespace(publish=sent.append, get_subscription_count=lambda: 1)
        create = Player.create_publisher

        def create_publisher(self, kind, *args, **kwargs):
            # Not the publishers that every node has.
            own = kind is CompressedFeature
            return publisher if own else create(self, kind, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(Player, 'create_publisher', create_publisher)
            player = Player(SimpleNamespace(topics=(TOPIC,)), **options)
        players.append(player)
        return player, sent

    yield make
    for player in players:
        player.destroy_node()


def features(seconds=7):
    message = CompressedFeature(sequence=3, model='0123456789abcdef', data=[1, 2, 3])
    message.header.stamp.sec = seconds
    return message, BagMessage(TOPIC, 5, serialize_message(message))


def test_messages_are_sent_as_they_were_recorded(make_player):
    player, sent = make_player()
    message = features()[1]
    assert player.send(message)
    assert sent == [message.data]
    assert player.answered


def test_what_is_no_message_is_left_out(make_player):
    player, sent = make_player(each=True, restamp=True)
    assert not player.send(BagMessage(TOPIC, 5, features()[1].data[:20]))
    assert not sent
    assert player.answered


def test_restamped(make_player):
    player, sent = make_player(restamp=True)
    message, recorded = features()
    assert player.send(recorded)
    assert sent[0].header.stamp.sec > 10**9
    sent[0].header = message.header
    assert sent == [message]


def test_each_waits_for_an_answer_and_for_who_gives_it(make_player):
    player, _ = make_player(each=True)
    assert player.missing == 'nobody publishes /robot1/instances'
    message, recorded = features()
    player.send(recorded)
    player.note_result(features(seconds=8)[0])
    assert not player.answered
    player.note_result(message)
    assert player.answered

from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

import rclpy
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header

from msfc_ros.qos import (
    LATCHED,
    LossCounter,
    Subscription,
    create_publisher,
    describe_qos,
    misfits,
)
from ros_fixtures import Probe

RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


# -- what is lost --


def count(numbers, publishers=1):
    losses = LossCounter()
    return [
        losses.missed({'publication_sequence_number': number}, lambda: publishers)
        for number in numbers
    ]


@pytest.mark.parametrize(
    ('numbers', 'missed'),
    [
        ([1, 2, 3], [0, 0, 0]),
        ([7, 8, 12, 13, 15], [0, 0, 3, 0, 1]),  # what came before the first is not missed
        ([5, 9, 1, 2, 4], [0, 3, 0, 0, 1]),  # a publisher that was started anew
        ([3, 3], [0, 0]),
        ([1, None, 5], [0, 0, 3]),
        ([0, 0, 2**64 - 1, 2**64 - 1], [0, 0, 0, 0]),  # a middleware that does not number
    ],
)
def test_missing_numbers_are_counted(numbers, missed):
    assert count(numbers) == missed


def test_numbers_of_several_publishers_tell_nothing():
    assert count([1, 100, 2, 101], publishers=2) == [0, 0, 0, 0]
    assert LossCounter().missed({}, lambda: 1) == 0


# -- who does not fit --


def endpoint(name, profile, namespace='/'):
    return SimpleNamespace(node_name=name, node_namespace=namespace, qos_profile=profile)


def test_only_those_that_do_not_fit_are_named():
    publishers = [
        endpoint('good', RELIABLE),
        endpoint('bad', BEST_EFFORT, '/robot1'),
        endpoint('bad', BEST_EFFORT, '/robot1'),
        endpoint('latched', LATCHED),
    ]
    assert misfits(RELIABLE, publishers, here_subscribes=True) == [
        ('/robot1/bad', 'best_effort, volatile', 'Best effort publisher and reliable subscription')
    ]
    # A best-effort subscription takes from all, and a reliable publisher serves all.
    assert misfits(BEST_EFFORT, publishers, here_subscribes=True) == []
    subscribers = [endpoint('bad', BEST_EFFORT), endpoint('good', RELIABLE)]
    assert misfits(RELIABLE, subscribers, here_subscribes=False) == []


def test_every_policy_that_does_not_fit_is_told():
    offered = QoSProfile(
        depth=1, reliability=ReliabilityPolicy.BEST_EFFORT, deadline=Duration(seconds=2)
    )
    wanted = QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
        deadline=Duration(nanoseconds=500_000_000),
    )
    ((name, theirs, why),) = misfits(offered, [endpoint('a', wanted)], here_subscribes=False)
    assert (name, theirs) == ('/a', 'reliable, transient_local, deadline 0.5 s')
    assert why == (
        'Best effort publisher and reliable subscription; Volatile publisher and transient local '
        'subscription; Subscription deadline is less than publisher deadline'
    )


def test_profile_in_words():
    assert describe_qos(RELIABLE) == 'reliable, volatile'
    assert describe_qos(LATCHED) == 'reliable, transient_local'
    unusual = QoSProfile(
        depth=1,
        liveliness=LivelinessPolicy.MANUAL_BY_TOPIC,
        liveliness_lease_duration=Duration(seconds=3),
        deadline=Duration(nanoseconds=2**63 - 1),
    )
    assert describe_qos(unusual) == 'reliable, volatile, liveliness manual by topic, lease 3 s'


# -- over DDS, in this process --


@pytest.fixture
def make(ros):
    """Return a function that makes a life cycle node with overrides of the QoS of its topics."""
    nodes = []

    def make(**overrides):
        node = LifecycleNode(
            f'under_test_{len(nodes)}',
            namespace='/robot1',
            parameter_overrides=[
                Parameter('qos_overrides.' + name.replace('__', '.'), value=value)
                for name, value in overrides.items()
            ],
        )
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.destroy_node()


def test_overrides(make):
    node = make(**{
        '/robot1/a__subscription__reliability': 'reliable',
        '/robot1/a__subscription__depth': 7,
        '/robot1/a__publisher__durability': 'transient_local',
    })  # fmt: skip
    default = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    for _ in range(2):  # as after a cleanup, with the parameters declared already
        subscription = Subscription(node, Header, 'a', default, lambda message, info: None)
        publisher = create_publisher(node, Header, 'a', default)
        assert subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        assert subscription.qos_profile.depth == 7
        assert publisher.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
        assert publisher.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        subscription.destroy()
        node.destroy_lifecycle_publisher(publisher)
    # The profile is for other topics, too.
    assert (default.depth, default.reliability) == (1, ReliabilityPolicy.BEST_EFFORT)
    other = create_publisher(node, Header, 'b', default)
    assert other.qos_profile.durability != DurabilityPolicy.TRANSIENT_LOCAL


@pytest.mark.parametrize(
    ('policy', 'value', 'words'),
    [
        ('reliability', 'certain', "topic '/robot1/a' cannot have this QoS: .*certain"),
        ('reliability', 1, "topic '/robot1/a' cannot have this QoS: "),
        ('depth', -1, 'a depth of -1 is not accepted, 1 is the least'),
    ],
)
def test_bad_overrides(make, policy, value, words):
    node = make(**{f'/robot1/a__publisher__{policy}': value})
    with pytest.raises(ValueError, match=words):
        create_publisher(node, Header, 'a', RELIABLE)


@pytest.fixture
def lines(monkeypatch):
    """Return what is reported as an error."""
    lines = []
    logger = SimpleNamespace(error=lines.append)
    monkeypatch.setattr(LifecycleNode, 'get_logger', lambda self: logger)
    return lines


def test_report_of_a_subscription(probe: Probe, make, lines):
    node = make()
    probe.executor.add_node(node)
    probe.node.create_publisher(Header, '/robot1/a', RELIABLE)
    Subscription(node, Header, 'a', RELIABLE, lambda message, info: None)
    probe.node.create_publisher(Header, '/robot1/a', BEST_EFFORT)
    probe.wait(lambda: lines, 'the report')
    (line,) = lines
    assert line == (
        "no message of topic '/robot1/a' passes from /probe: it offers best_effort, volatile; "
        'wanted here is reliable, volatile (Best effort publisher and reliable subscription). '
        'Change the QoS of one of the two; here by the parameters qos.* or '
        'qos_overrides./robot1/a.subscription.*'
    )
    probe.executor.remove_node(node)


def test_report_of_a_publisher(probe: Probe, make, lines):
    node = make()
    probe.executor.add_node(node)
    create_publisher(node, Header, 'a', BEST_EFFORT)
    probe.node.create_subscription(Header, '/robot1/a', print, BEST_EFFORT)
    late = rclpy.create_node('late')
    late.create_subscription(Header, '/robot1/a', print, LATCHED)
    probe.wait(lambda: lines, 'the report')
    late.destroy_node()
    (line,) = lines
    assert line == (
        "no message of topic '/robot1/a' passes to /late: offered here is best_effort, volatile; "
        'it wants reliable, transient_local (Best effort publisher and reliable subscription; '
        'Volatile publisher and transient local subscription). Change the QoS of one of the two; '
        'here by the parameters qos.* or qos_overrides./robot1/a.publisher.*'
    )
    probe.executor.remove_node(node)


def test_replaced_messages_are_lost_ones(probe: Probe, make):
    node = make()
    losses, missed = LossCounter(), []

    def received(message, info):
        missed.append(losses.missed(info, subscription.publisher_count))

    subscription = Subscription(node, Header, 'a', BEST_EFFORT, received)
    publisher = probe.publisher(Header, '/robot1/a', BEST_EFFORT)
    publisher.publish(Header())
    probe.executor.add_node(node)
    probe.wait(lambda: missed, 'the first message')
    probe.executor.remove_node(node)
    for _ in range(5):
        publisher.publish(Header())
        probe.spin(0.05)  # the node's own callbacks do not run
    probe.executor.add_node(node)
    probe.wait(lambda: len(missed) == 2, 'the last message')
    assert missed == [0, 4]
    probe.executor.remove_node(node)

from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_ros.surroundings import PATIENCE, REPEAT, Surroundings
from ros_fixtures import ManualClock

IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'


class Graph:
    """Stands for a node: what there is around it, and what it logs."""

    def __init__(self):
        self.lines = []
        self.topics = {}
        self.now = 1
        self.simulated = False

    def get_logger(self):
        return SimpleNamespace(warning=self.lines.append)

    def get_topic_names_and_types(self):
        return list(self.topics.items())

    def count_publishers(self, topic):
        return len(self.topics[topic])

    def get_parameter(self, name):
        assert name == 'use_sim_time'
        return SimpleNamespace(value=self.simulated)

    def get_clock(self):
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=self.now))


class Wanted:
    topic, type_name = '/robot1/image_raw', IMAGE

    def __init__(self, *types):
        self.types = types

    def publishers(self):
        return [
            SimpleNamespace(node_name='camera', node_namespace='/robot1', topic_type=kind)
            for kind in self.types
        ]


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def graph():
    return Graph()


@pytest.fixture
def surroundings(graph, clock):
    return Surroundings(graph, lambda subscription, other: f'Ask for {other}.', clock)


def test_publishers_of_another_type_are_named_with_both_types(surroundings, graph, clock):
    for _ in range(3):
        surroundings.look([Wanted(IMAGE, COMPRESSED)])
    assert graph.lines == [
        f"/robot1/camera publishes '/robot1/image_raw' as {COMPRESSED}, but this node takes "
        f'{IMAGE}: none of it arrives. Ask for {COMPRESSED}.'
    ]
    clock.now += REPEAT
    surroundings.look([Wanted(COMPRESSED)])
    assert len(graph.lines) == 2


def test_missing_publisher_is_told_after_a_while_with_topics_of_the_type(
    surroundings, graph, clock
):
    graph.topics = {
        '/front/image': [IMAGE],
        '/robot1/image_raw': [IMAGE],  # its own subscription
        '/gone': [],
        '/other': [COMPRESSED],
    }
    surroundings.look([Wanted()])
    clock.now += PATIENCE - 1
    surroundings.look([Wanted()])
    assert graph.lines == []
    clock.now += 1
    for _ in range(2):
        surroundings.look([Wanted()])
    assert graph.lines == [
        f"nobody publishes '/robot1/image_raw' ({IMAGE}) yet; of this type there are "
        "'/front/image'"
    ]


def test_long_lists_are_cut(surroundings, graph, clock):
    graph.topics = {f'/camera{number}': [IMAGE] for number in range(7)}
    surroundings.look([Wanted()])
    clock.now += PATIENCE
    surroundings.look([Wanted()])
    assert graph.lines[0].endswith("'/camera4' and 2 more")


def test_time_without_a_publisher_begins_with_the_last_one(surroundings, graph, clock):
    surroundings.look([Wanted()])
    clock.now += PATIENCE - 1
    surroundings.look([Wanted(IMAGE)])
    clock.now += 1
    surroundings.look([Wanted()])
    clock.now += PATIENCE - 1
    surroundings.look([Wanted()])
    assert graph.lines == []


def test_simulated_time_that_does_not_begin(surroundings, graph, clock):
    graph.simulated, graph.now = True, 0
    surroundings.look([])
    assert graph.lines == []
    clock.now += PATIENCE
    for _ in range(2):
        surroundings.look([])
    (line,) = graph.lines
    assert line.startswith('use_sim_time is true, but nobody has published /clock')
    graph.now = 5
    assert not surroundings.lacks_clock
    clock.now += REPEAT
    surroundings.look([])
    assert len(graph.lines) == 1

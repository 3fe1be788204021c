import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.parameter import Parameter

from msfc_ros.parameters import LIVE, LiveParameters

pytestmark = pytest.mark.usefixtures('ros')


def check_even(value):
    if value % 2:
        raise ValueError(f'parameter count is {value}, but has to be even')


@pytest.fixture
def node():
    node = rclpy.create_node('live', parameter_overrides=[Parameter('mode', value='slow')])
    node.applied = []
    live = LiveParameters(node)
    node.mode = live.declare('mode', 'fast', 'Mode.', note(node, 'mode'), choices=('fast', 'slow'))
    node.count = live.declare('count', 2, 'Count.', note(node, 'count'), check=check_even)
    other = LiveParameters(node)
    node.share = other.declare('share', 0.5, 'Share.', note(node, 'share'), limits=(0, 1))
    yield node
    node.destroy_node()


def note(node, name):
    return lambda value: node.applied.append((name, value))


def set_value(node, name, value):
    (result,) = node.set_parameters([Parameter(name, value=value)])
    return result


def test_start_values_are_returned_and_not_applied(node):
    assert (node.mode, node.count, node.share) == ('slow', 2, 0.5)
    assert node.applied == []
    assert node.describe_parameter('count').description == f'Count. {LIVE}'


@pytest.mark.parametrize(('name', 'value'), [('mode', 'fast'), ('count', 4), ('share', 1.0)])
def test_good_value_is_applied(node, name, value):
    assert set_value(node, name, value).successful
    assert node.applied == [(name, value)]


@pytest.mark.parametrize(
    ('name', 'value', 'words'),
    [
        ('mode', 'idle', "parameter mode is 'idle', but has to be one of 'fast', 'slow'"),
        ('count', 3, 'parameter count is 3, but has to be even'),
        ('count', 'two', 'Wrong parameter type, expected'),
        ('share', 1.5, 'Parameter share out of range Min: 0.0, Max: 1.0, value: 1.5'),
        ('share', float('nan'), 'Parameter share out of range'),
        ('share', None, 'Static parameter cannot be undeclared'),
    ],
)
def test_bad_value_is_refused_in_words(node, name, value, words):
    before = node.get_parameter(name).value
    result = set_value(node, name, value)
    assert not result.successful
    assert words in result.reason
    assert node.applied == []
    assert node.get_parameter(name).value == before


def test_all_or_nothing(node):
    bad = [Parameter('count', value=4), Parameter('mode', value='idle')]
    assert not node.set_parameters_atomically(bad).successful
    assert node.applied == []
    good = [Parameter('count', value=4), Parameter('share', value=0.0)]
    assert node.set_parameters_atomically(good).successful
    assert sorted(node.applied) == [('count', 4), ('share', 0.0)]


def test_others_parameters_are_left_alone(node):
    node.declare_parameter('foreign', 1, ParameterDescriptor())
    assert set_value(node, 'foreign', 3).successful
    assert node.applied == []


def test_bad_start_value():
    node = rclpy.create_node('bad', parameter_overrides=[Parameter('count', value=5)])
    try:
        with pytest.raises(ValueError, match='count is 5, but has to be even'):
            LiveParameters(node).declare('count', 2, 'Count.', print, check=check_even)
    finally:
        node.destroy_node()

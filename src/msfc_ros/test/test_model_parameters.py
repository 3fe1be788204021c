import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

import rclpy
from rclpy.parameter import Parameter

from msfc.zoo import DEFAULT_MODEL
from msfc_ros.model_parameters import ModelParameters

pytestmark = pytest.mark.usefixtures('ros')


@pytest.mark.parametrize(
    ('given', 'taken'),
    [
        ([], DEFAULT_MODEL),
        ([Parameter('model', value='')], DEFAULT_MODEL),
        ([Parameter('model', value='models/mine')], 'models/mine'),
    ],
)
def test_a_model_that_nobody_names_is_the_shipped_default(given, taken):
    node = rclpy.create_node('node', parameter_overrides=given)
    try:
        assert ModelParameters(node).model == taken
    finally:
        node.destroy_node()

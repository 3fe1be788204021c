import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

import node_checks
from msfc_sim.camera_node import CameraNode
from msfc_sim.clip_player import ClipPlayer


@pytest.mark.usefixtures('ros')
def test_parameters_are_described_and_in_the_file():
    node_checks.check_parameters('camera.yaml', CameraNode, ClipPlayer)

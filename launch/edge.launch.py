"""Starts the camera-side node, on the robot.

For example: ros2 launch msfc edge.launch.py namespace:=robot1 model:=/path/to/model
"""

from launch import LaunchDescription

from msfc_launch.arguments import COMMON, EDGE, MODEL, declare
from msfc_launch.nodes import EDGE_NODE
from msfc_launch.programs import start


def generate_launch_description() -> LaunchDescription:
    """Return what to start."""
    arguments = declare(COMMON, MODEL, EDGE)
    return LaunchDescription([*arguments, start([a.name for a in arguments], EDGE_NODE)])

"""Starts the camera-side node, on the robot.

For example: ros2 launch msfc edge.launch.py namespace:=robot1 model:=/path/to/model
Objects in metres as well: use_depth:=true depth_topic:=/camera/aligned_depth_to_color/image_raw
"""

from launch import LaunchDescription

from msfc_launch.arguments import COMMON, DEPTH, EDGE, MODEL, declare
from msfc_launch.nodes import EDGE_NODE, depth
from msfc_launch.programs import start


def generate_launch_description() -> LaunchDescription:
    """Return what to start."""
    arguments = declare(COMMON, MODEL, EDGE, DEPTH)
    return LaunchDescription([*arguments, start([a.name for a in arguments], EDGE_NODE, depth)])

"""Starts the camera-side node, on the robot.

For example: ros2 launch msfc edge.launch.py namespace:=robot1 model:=/path/to/model
"""

from launch import LaunchDescription

from msfc_ros.launching import common_arguments, model_arguments, node


def generate_launch_description() -> LaunchDescription:
    """Return what to start."""
    return LaunchDescription(
        [
            *common_arguments(),
            *model_arguments(),
            node('msfc_edge', 'edge_node', 'edge.yaml', overrides=('model', 'device')),
        ]
    )

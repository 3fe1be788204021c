"""Starts the cloud-side node, on the machine with the GPU.

For example: ros2 launch msfc cloud.launch.py namespace:=robot1 model:=/path/to/model device:=cuda
"""

from launch import LaunchDescription

from msfc_ros.launching import common_arguments, model_arguments, node


def generate_launch_description() -> LaunchDescription:
    """Return what to start."""
    return LaunchDescription(
        [
            *common_arguments(),
            *model_arguments(),
            node('msfc_cloud', 'cloud_node', 'cloud.yaml', overrides=('model', 'device')),
        ]
    )

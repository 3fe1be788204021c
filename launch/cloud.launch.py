"""Starts the cloud-side node, on the machine with the GPU.

For example: ros2 launch msfc cloud.launch.py namespace:=robot1 model:=/path/to/model device:=cuda
For two cameras, whose edges are started with namespace:=front and namespace:=rear:
ros2 launch msfc cloud.launch.py cameras:=front,rear
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument

from msfc_ros.launching import common_arguments, model_arguments, node


def generate_launch_description() -> LaunchDescription:
    """Return what to start."""
    return LaunchDescription(
        [
            *common_arguments(),
            *model_arguments(),
            DeclareLaunchArgument(
                'cameras',
                default_value='',
                description="Namespaces of the cameras' edges, below that of this node, with "
                'commas in between; empty: as in the parameter files.',
            ),
            node(
                'msfc_cloud',
                'cloud_node',
                'cloud.yaml',
                overrides=('model', 'device'),
                lists=('cameras',),
            ),
        ]
    )

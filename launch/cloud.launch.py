"""Starts the cloud-side node, on the machine with the GPU.

For example: ros2 launch msfc cloud.launch.py namespace:=robot1 model:=/path/to/model device:=cuda
For two cameras, whose edges are started with namespace:=front and namespace:=rear:
ros2 launch msfc cloud.launch.py cameras:=front,rear
"""

from launch import LaunchDescription

from msfc_launch.arguments import CLOUD, COMMON, MODEL, declare
from msfc_launch.nodes import CLOUD_NODE
from msfc_launch.programs import start


def generate_launch_description() -> LaunchDescription:
    """Return what to start."""
    arguments = declare(COMMON, MODEL, CLOUD)
    return LaunchDescription([*arguments, start([a.name for a in arguments], CLOUD_NODE)])

"""Starts both halves on one machine, and on request a camera without hardware and rviz2.

For example: ros2 launch msfc bringup.launch.py camera:=clip use_rviz:=true
Objects in metres: ros2 launch msfc bringup.launch.py camera:=live use_depth:=true use_rviz:=true
"""

from launch import LaunchDescription

from msfc_launch.arguments import BRINGUP, CLOUD, COMMON, DEPTH, EDGE, MODEL, declare
from msfc_launch.nodes import CLOUD_NODE, EDGE_NODE, camera, depth, rviz, viewer
from msfc_launch.programs import start


def generate_launch_description() -> LaunchDescription:
    """Return what to start."""
    arguments = declare(COMMON, MODEL, EDGE, CLOUD, DEPTH, BRINGUP)
    names = [argument.name for argument in arguments]
    programs = start(names, EDGE_NODE, CLOUD_NODE, depth, camera, rviz, viewer)
    return LaunchDescription([*arguments, programs])

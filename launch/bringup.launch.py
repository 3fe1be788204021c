"""Starts both halves on one machine, and on request a camera without hardware and rviz2.

For example: ros2 launch msfc bringup.launch.py camera:=clip use_rviz:=true
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.substitutions import (
    LaunchConfiguration,
    NotEqualsSubstitution,
    PathJoinSubstitution,
    ThisLaunchFileDir,
)
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from msfc_ros.launching import BOOLEAN, common_arguments, model_arguments, node

CAMERAS = {'clip': 'clip_player', 'live': 'camera_node'}


def camera_executable(context: LaunchContext) -> str:
    """Return the executable of the camera that was asked for."""
    return CAMERAS[LaunchConfiguration('camera').perform(context)]


def generate_launch_description() -> LaunchDescription:
    """Return what to start."""
    return LaunchDescription(
        [
            *common_arguments(),
            *model_arguments(),
            DeclareLaunchArgument(
                'camera',
                default_value='none',
                choices=['none', *CAMERAS],
                description='Camera to start as well: a recorded clip or the live simulator.',
            ),
            DeclareLaunchArgument(
                'use_rviz', default_value='false', choices=BOOLEAN, description='Start rviz2.'
            ),
            # An included file sees the arguments of this one.
            *(
                IncludeLaunchDescription(PathJoinSubstitution([ThisLaunchFileDir(), file]))
                for file in ('edge.launch.py', 'cloud.launch.py')
            ),
            node(
                'msfc_sim',
                camera_executable,
                'camera.yaml',
                condition=IfCondition(
                    NotEqualsSubstitution(LaunchConfiguration('camera'), 'none')
                ),
            ),
            Node(
                package='rviz2',
                executable='rviz2',
                namespace=LaunchConfiguration('namespace'),
                arguments=[
                    '-d',
                    PathJoinSubstitution([FindPackageShare('msfc'), 'rviz', 'msfc.rviz']),
                ],
                parameters=[{'use_sim_time': LaunchConfiguration('use_sim_time')}],
                condition=IfCondition(LaunchConfiguration('use_rviz')),
            ),
        ]
    )

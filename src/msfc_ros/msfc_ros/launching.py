"""What the launch files share: arguments named as nav2's, and a node started with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

BOOLEAN = ['true', 'false']

RESPAWN_DELAY = 0.2
"""Seconds before a node that died is started again; its imports take two more."""


def common_arguments() -> list[DeclareLaunchArgument]:
    """Return the declarations of the arguments that all launch files have."""
    return [
        DeclareLaunchArgument(
            'namespace', default_value='', description='Namespace of the nodes and their topics.'
        ),
        DeclareLaunchArgument(
            'params_file',
            default_value='',
            description="Parameter file whose values replace those of msfc's own files.",
        ),
        DeclareLaunchArgument(
            'use_sim_time',
            default_value='false',
            choices=BOOLEAN,
            description='Take the time from /clock.',
        ),
        DeclareLaunchArgument(
            'autostart',
            default_value='true',
            choices=BOOLEAN,
            description='Configure and activate the nodes at start.',
        ),
        DeclareLaunchArgument(
            'use_respawn',
            default_value='false',
            choices=BOOLEAN,
            description='Start a node again that has died.',
        ),
        DeclareLaunchArgument(
            'log_level',
            default_value='info',
            choices=['debug', 'info', 'warn', 'error', 'fatal'],
            description='Least severity of what is logged.',
        ),
        DeclareLaunchArgument(
            'enclaves',
            default_value='',
            description="Parent of the nodes' SROS2 enclaves, such as / or /robot1, which are "
            'named after the packages; empty: no enclave is named.',
        ),
    ]


def model_arguments() -> list[DeclareLaunchArgument]:
    """Return the declarations of the arguments that the launch files of the two halves have."""
    return [
        DeclareLaunchArgument(
            'model',
            default_value='',
            description='Shipped model or directory, the same at both ends; '
            'empty: as in the parameter files.',
        ),
        DeclareLaunchArgument(
            'device',
            default_value='',
            description="'cpu', 'cuda', 'auto'; empty: as in the parameter files.",
        ),
    ]


def enclave_arguments(parent: str, package: str) -> list[str]:
    """Return the ROS arguments that put a package's node into its enclave below ``parent``."""
    return ['--enclave', f'{parent.rstrip("/")}/{package}'] if parent else []


def node(
    package: str,
    executable: str | Callable[[LaunchContext], str],
    config: str,
    overrides: Sequence[str] = (),
    lists: Sequence[str] = (),
    condition: Any = None,
) -> OpaqueFunction:
    """Return an action that starts a node with the arguments of :func:`common_arguments`.

    A parameter is what an argument of the launch file says, else the user's ``params_file``, else
    our own file.

    Args:
        package: package of the node.
        executable: its executable, or a function that chooses it.
        config: name of our parameter file.
        overrides: launch arguments that set the parameter of their name, a string, unless empty.
        lists: launch arguments that set the parameter of their name, a list of strings, to what
            stands between commas, unless empty.
        condition: only under this condition.
    """

    def start(context: LaunchContext) -> list[Node]:
        def argument(name: str) -> str:
            return LaunchConfiguration(name).perform(context)

        parameters: list[Any] = [
            PathJoinSubstitution([FindPackageShare('msfc'), 'config', config])
        ]
        if argument('params_file'):
            parameters.append(argument('params_file'))
        parameters.append(
            {
                'use_sim_time': argument('use_sim_time') == 'true',
                # Texts whatever they look like: a model may be named 2024.
                **{
                    name: ParameterValue(argument(name), value_type=str)
                    for name in overrides
                    if argument(name)
                },
                **{
                    name: items
                    for name in lists
                    if (items := [i.strip() for i in argument(name).split(',') if i.strip()])
                },
                # A user's file may say it too; the argument counts only where it says no.
                **({'autostart': False} if argument('autostart') == 'false' else {}),
            }
        )
        return [
            Node(
                package=package,
                executable=executable if isinstance(executable, str) else executable(context),
                namespace=argument('namespace'),
                parameters=parameters,
                ros_arguments=[
                    '--log-level',
                    argument('log_level'),
                    *enclave_arguments(argument('enclaves'), package),
                ],
                respawn=argument('use_respawn') == 'true',
                respawn_delay=RESPAWN_DELAY,
                output='screen',
            )
        ]

    return OpaqueFunction(function=start, condition=condition)

"""The launch files' arguments: how they are declared, and how their values are read.

Their names and values are those of nav2's launch files. No argument has a default that sets a
parameter: what is not given is left to parameter files and to including launch files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import TypeVar

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument

from msfc_launch.errors import LaunchError

Number = TypeVar('Number', int, float)

TRUE, FALSE = ('true', '1'), ('false', '0')

LEVELS = ('debug', 'info', 'warn', 'error', 'fatal')

COMMON = {
    'namespace': 'Namespace of the nodes and their topics.',
    'params_file': "Parameter file whose values replace those of msfc's own files.",
    'use_sim_time': 'Take the time from /clock: true or false; empty: as in the parameter files.',
    'autostart': 'Configure and activate the nodes at start: true or false; empty: as in the '
    'parameter files.',
    'use_respawn': 'Start a node again that has ended: true or false. One that ends soon after '
    'its start, again and again, is waited for longer each time.',
    'log_level': f'Least severity of what is logged: {", ".join(LEVELS)}, or that of one logger, '
    'as in msfc_edge:=debug; empty: info.',
    'enclaves': "Parent of the nodes' SROS2 enclaves, such as / or /robot1, which are named after "
    'the packages; empty: no enclave is named.',
}
"""Arguments that all launch files have, with their descriptions."""

MODEL = {
    'model': 'Shipped model or directory, the same at both ends; empty: as in the parameter '
    'files.',
    'device': "'cpu', 'cuda', 'auto'; empty: as in the parameter files.",
}
"""Arguments of both halves."""

EDGE = {
    'image_topic': 'Topic of the camera images; empty: as in the parameter files.',
    'image_transport': 'raw, or compressed for JPEG and PNG from <image_topic>/compressed; empty: '
    'as in the parameter files.',
    'max_message_bytes': 'No message is larger, in bytes; 0: no limit; -1: one packet where rates '
    'can be chosen; empty: as in the parameter files.',
    'target_bitrate': 'Bits of messages per second that are sent at most; 0: no limit; empty: as '
    'in the parameter files.',
}
"""Arguments of the camera side."""

CLOUD = {
    'cameras': "Namespaces of the cameras' edges, below that of this node, with commas in "
    'between; empty: as in the parameter files.',
    'overlay_image_topic': 'Topic of images to draw the overlay on; empty: as in the parameter '
    'files.',
}
"""Arguments of the cloud side."""

DEPTH = {
    'use_depth': 'Put objects into metres by a depth image, with msfc_depth: true or false.',
    'depth_topic': 'Topic of the depth images, registered to the camera; empty: as in the '
    'parameter files.',
    'camera_info_topic': 'Topic of the calibration of the depth images; empty: as in the '
    'parameter files.',
    'target_frame': "Frame of the objects in metres, by tf2; empty: the camera's.",
}
"""Arguments of what puts objects into metres, on the robot."""

BRINGUP = {
    'camera': 'Camera to start as well: none, clip (a recorded clip) or live (the simulator).',
    'use_rviz': 'Start rviz2: true or false.',
    'viewer': 'Viewer to start: none or rerun (needs rerun-sdk from PyPI).',
    'record': 'File (.rrd) that the viewer records to; empty: as in the parameter files.',
}
"""Arguments of the launch file that starts all on one machine."""

DEFAULTS = {
    'use_respawn': 'false', 'use_depth': 'false', 'camera': 'none', 'use_rviz': 'false',
    'viewer': 'none',
}  # fmt: skip
"""Values of arguments that are not given, where that is no empty text."""


def declare(*groups: dict[str, str]) -> list[DeclareLaunchArgument]:
    """Return the declarations of groups of arguments, each a name with its description."""
    return [
        DeclareLaunchArgument(name, default_value=DEFAULTS.get(name, ''), description=description)
        for group in groups
        for name, description in group.items()
    ]


def text(context: LaunchContext, name: str) -> str:
    """Return an argument's value without spaces around it; empty if it was not given."""
    return str(context.launch_configurations.get(name, DEFAULTS.get(name, ''))).strip()


def flag(context: LaunchContext, name: str) -> bool | None:
    """Return what a switch says, None if it was not given.

    Raises:
        LaunchError: it is neither true nor false.
    """
    value = text(context, name).lower()
    if value not in ('', *TRUE, *FALSE):
        raise LaunchError(f'{name}:={text(context, name)} is neither true nor false')
    return value in TRUE if value else None


def choice(context: LaunchContext, name: str, allowed: Iterable[str]) -> str:
    """Return a value that has to be one of a few, or empty.

    Raises:
        LaunchError: it is another.
    """
    value = text(context, name)
    if value and value not in allowed:
        raise LaunchError(f'{name}:={value} is not known: choose {" or ".join(allowed)}')
    return value


def number(context: LaunchContext, name: str, kind: type[Number]) -> Number | None:
    """Return what a number says, None if it was not given.

    Raises:
        LaunchError: it is none of this kind.
    """
    value = text(context, name)
    try:
        return kind(value) if value else None
    except ValueError:
        words = 'a whole number' if kind is int else 'a number'
        raise LaunchError(f'{name}:={value} is not {words}') from None


def items(context: LaunchContext, name: str) -> list[str]:
    """Return a list that is given with commas in between."""
    return [item.strip() for item in text(context, name).split(',') if item.strip()]


def log_level(context: LaunchContext) -> str:
    """Return the level as ROS 2 wants it, ``LEVEL`` or ``LOGGER:=LEVEL``, empty if not given.

    Raises:
        LaunchError: there is no such level.
    """
    value = text(context, 'log_level')
    logger, _, level = value.rpartition(':=')
    if value and level.lower() not in LEVELS:
        raise LaunchError(
            f'log_level:={value} is not known: choose {", ".join(LEVELS)}, or one of them for one '
            'logger, as in msfc_edge:=debug'
        )
    return f'{logger}:={level.lower()}' if logger else level.lower()


def mistaken(
    context: LaunchContext, known: Iterable[str], parameters: Iterable[str]
) -> Iterator[str]:
    """Yield a sentence for each argument that was given, but is probably meant to be another.

    ROS 2 ignores unknown arguments without a word, as they may be for another file of a launch.

    Args:
        context: of the launch.
        known: names of the arguments that there are.
        parameters: dotted names of the nodes' parameters.
    """
    known, parameters = set(known), set(parameters)
    typed = {word.partition(':=')[0] for word in context.argv if ':=' in word}
    for name in sorted({*context.launch_configurations, *typed} - known):
        close = get_close_matches(name, known, 1, 0.8)
        if name in typed and name in parameters:
            yield (
                f'{name} is a parameter and no launch argument, so it is ignored: write it into a '
                'file and give that as params_file'
            )
        elif close:
            yield f'there is no argument {name}, so it is ignored: is {close[0]} meant?'

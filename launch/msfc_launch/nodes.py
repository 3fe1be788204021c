"""The nodes that the launch files start."""

from __future__ import annotations

from dataclasses import replace

from launch import LaunchContext

from msfc_launch.arguments import choice, flag, text
from msfc_launch.errors import LaunchError
from msfc_launch.programs import Program, own_file

EDGE_NODE = Program(
    'msfc_edge',
    'edge_node',
    'msfc_edge',
    ('config/edge.yaml',),
    texts=('model', 'device', 'image_topic', 'image_transport'),
    whole=('max_message_bytes',),
    numbers=('target_bitrate',),
)

CLOUD_NODE = Program(
    'msfc_cloud',
    'cloud_node',
    'msfc_cloud',
    ('config/cloud.yaml',),
    texts=('model', 'device', 'overlay_image_topic'),
    lists=('cameras',),
)

DEPTH_NODE = Program(
    'msfc_depth',
    'depth_node',
    'msfc_depth',
    ('config/depth.yaml',),
    texts=('depth_topic', 'camera_info_topic', 'target_frame'),
)

SIMULATED_DEPTH = '16UC1'
"""Depth images of the simulated camera where depth is used."""

LIVE_VERTICAL = [0.0, -0.7, -0.7]
"""Up for the simulated camera, which looks down by 28 to 60 degrees: for boxes, near enough."""

CAMERAS = {'clip': 'clip_player', 'live': 'camera_node'}
"""Executables of the cameras without hardware, by the name that is asked for."""


def camera(context: LaunchContext) -> Program | None:
    """Return the camera without hardware that was asked for.

    Raises:
        LaunchError: there is no such camera, or it does not give such images.
    """
    kind = choice(context, 'camera', ('none', *CAMERAS))
    if kind in ('', 'none'):
        return None
    if text(context, 'image_transport') == 'compressed':
        raise LaunchError(
            f'camera:={kind} gives raw images only: leave out image_transport:=compressed'
        )
    if kind != 'live' and flag(context, 'use_depth'):
        raise LaunchError(
            f'camera:={kind} gives no depth images: choose camera:=live, or leave out use_depth'
        )
    executable = CAMERAS[kind]
    return Program(
        'msfc_sim',
        executable,
        executable,
        ('config/camera.yaml',),
        remappings=_camera_remappings(context),
        fixed=(('depth', SIMULATED_DEPTH),) if flag(context, 'use_depth') else (),
    )


def depth(context: LaunchContext) -> Program | None:
    """Return what puts objects into metres, if it was asked for.

    Raises:
        LaunchError: ``use_depth`` is neither true nor false.
    """
    if not flag(context, 'use_depth'):
        return None
    if choice(context, 'camera', ('none', *CAMERAS)) == 'live':
        return replace(DEPTH_NODE, fixed=(('vertical', LIVE_VERTICAL),))
    return DEPTH_NODE


def viewer(context: LaunchContext) -> Program | None:
    """Return the viewer that was asked for.

    Raises:
        LaunchError: there is no such viewer.
    """
    if choice(context, 'viewer', ('none', 'rerun')) in ('', 'none'):
        if text(context, 'record'):
            raise LaunchError(
                'record is for the viewer: give viewer:=rerun as well, or leave out record'
            )
        return None
    return Program(
        'msfc_viewer',
        'viewer_node',
        'msfc_viewer',
        ('config/viewer.yaml',),
        texts=('image_topic', 'record'),
    )


def rviz(context: LaunchContext) -> Program | None:
    """Return rviz2, if it was asked for.

    Raises:
        LaunchError: ``use_rviz`` is neither true nor false.
    """
    if not flag(context, 'use_rviz'):
        return None
    file = 'rviz/msfc.rviz'
    return Program(
        'rviz2',
        'rviz2',
        'rviz',
        (file,),
        options=('-d', own_file(file)),
        remappings=_image_remapping(context),
        managed=False,
        remedy='install it (Ubuntu: apt-get install ros-jazzy-rviz2), or leave out use_rviz',
    )


def _camera_remappings(context: LaunchContext) -> tuple[tuple[str, str], ...]:
    """Return where a camera of ours publishes what the nodes are told to take elsewhere."""
    topics = {'depth_topic': 'depth/image', 'camera_info_topic': 'depth/camera_info'}
    moved = ((own, text(context, name)) for name, own in topics.items())
    return (*_image_remapping(context), *((own, topic) for own, topic in moved if topic))


def _image_remapping(context: LaunchContext) -> tuple[tuple[str, str], ...]:
    topic = text(context, 'image_topic')
    return (('image_raw', topic),) if topic else ()

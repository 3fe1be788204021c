"""The parameters that say which cameras there are and what their topics are called."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rclpy.exceptions import InvalidNamespaceException
from rclpy.validate_namespace import validate_namespace

from msfc_cloud.camera import Camera
from msfc_ros.node import ManagedNode
from msfc_ros.parameters import declare

OWN_NAMESPACE = ''
"""Name of the camera whose topics are in the node's own namespace."""


def declare_cameras(node: ManagedNode) -> tuple[list[Camera], bool]:
    """Declare the parameters; return the cameras and whether there are pictures to draw on.

    Raises:
        ValueError: if the names of cameras or topics cannot be used together.
    """
    names = declare(
        node,
        'cameras',
        [OWN_NAMESPACE],
        'Namespaces of the cameras, below that of the node; each has all the topics. An empty '
        "name is the node's own.",
        read_only=True,
    )
    topics = {
        name: declare(node, f'{name}_topic', name, f'Topic of {what}.', read_only=True)
        for name, what in (
            ('features', 'what the edge sends'),
            ('instances', 'the instances'),
            ('label_map', 'the label map'),
            ('label_info', 'the meaning of the labels'),
            ('detections', 'the instances as vision_msgs/Detection2DArray'),
            ('semantic', 'the class of each pixel, where the model has a semantic head'),
            ('semantic_info', 'the meaning of these classes'),
            ('overlay', 'the picture with the instances drawn in'),
            ('link_report', 'the reports on the link'),
        )
    }
    picture = declare(
        node,
        'overlay_image_topic',
        '',
        'Topic of camera images to draw the overlay on; empty draws on a dark canvas, since the '
        'features hold no picture.',
        read_only=True,
    )
    if picture:
        topics['picture'] = picture
    weights = declare(
        node,
        'weights',
        [1.0],
        'Weights of the cameras, in their order, by which link_budget is shared; a single one is '
        'that of each.',
        read_only=True,
    )
    check_cameras(names, topics)
    cameras = [
        Camera(node, name, topics_of(name, topics), weight)
        for name, weight in zip(names, check_weights(names, weights), strict=True)
    ]
    if len({camera.features_topic for camera in cameras}) < len(cameras):
        raise ValueError(
            'parameter cameras has two names for one namespace: '
            + ', '.join(f'{camera.name!r} is {camera.features_topic}' for camera in cameras)
        )
    return cameras, bool(picture)


def check_cameras(names: Sequence[str], topics: Mapping[str, str]) -> None:
    """Check that cameras can be told apart.

    Raises:
        ValueError: in words, if they cannot.
    """
    if not names:
        raise ValueError("parameter cameras is empty; give a namespace for each, or [''] for one")
    if len(set(names)) < len(names):
        raise ValueError(f'parameter cameras names one twice: {", ".join(names)}')
    for name in names:
        try:
            validate_namespace(name if name.startswith('/') else f'/{name}')
        except InvalidNamespaceException as error:
            raise ValueError(f'parameter cameras has {name!r}, no namespace: {error}') from error
    shared = [name for name, topic in topics.items() if topic.startswith('/')]
    if len(names) > 1 and shared:
        raise ValueError(
            f'the topic of {shared[0]} is {topics[shared[0]]!r}, which all cameras would share; '
            'give a name without a leading slash'
        )


def check_weights(names: Sequence[str], weights: Sequence[float]) -> list[float]:
    """Return the weight of each camera.

    Raises:
        ValueError: in words, if they are not one for each, or not above 0.
    """
    spread = list(weights) * len(names) if len(weights) == 1 else list(weights)
    if len(spread) != len(names):
        raise ValueError(
            f'parameter weights has {len(weights)} numbers for {len(names)} cameras; give one for '
            'each, or a single one'
        )
    if not all(math.isfinite(weight) and weight > 0.0 for weight in spread):
        raise ValueError(f'parameter weights is {spread}, but weights have to be above 0')
    return spread


def topics_of(camera: str, topics: Mapping[str, str]) -> dict[str, str]:
    """Return the topics of a camera, relative to the node's namespace."""
    if camera == OWN_NAMESPACE:
        return dict(topics)
    return {
        name: topic if topic.startswith('/') else f'{camera}/{topic}'
        for name, topic in topics.items()
    }

"""Between the library's types and the messages in a bag; the nodes have ``msfc_ros.messages``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from msfc.bags.definitions import FEATURES, INSTANCES, LABELS, typestore
from msfc.bags.reading import BagError
from msfc.instance_records import instance_records
from msfc.types import Instances, Size
from msfc.wire.packet import FeaturePacket, packet_fields

_FIELDS = tuple(field.name for field in packet_fields())


def packet_of(message: Any) -> FeaturePacket:
    """Return what a deserialised ``CompressedFeature`` says; its payload is not copied.

    Raises:
        BagError: if the bag's definition of it lacks a field.
    """
    try:
        return FeaturePacket(**{name: getattr(message, name) for name in _FIELDS})
    except AttributeError as error:
        raise BagError(f'recorded with another version of {FEATURES}: {error}') from error


def features_message(packet: FeaturePacket, stamp: int, frame_id: str) -> Any:
    """Make a ``CompressedFeature``.

    Args:
        packet: the packet.
        stamp: when the image was taken, in nanoseconds.
        frame_id: of the camera.
    """
    types = typestore().types
    values = {name: getattr(packet, name) for name in _FIELDS if name != 'data'}
    return types[FEATURES](
        header=_header(stamp, frame_id), data=np.frombuffer(packet.data, np.uint8), **values
    )


def instances_message(
    instances: Instances, header: Any, size: Size, class_names: Sequence[str]
) -> Any:
    """Make an ``InstanceArray``, field by field the one that the cloud node publishes.

    Args:
        instances: K instances; the masks are K x H x W.
        header: of the camera image.
        size: height and width of the camera image in pixels.
        class_names: names of the classes, by label.
    """
    types = typestore().types
    found = [
        types['msfc_msgs/msg/Instance'](**vars(record))
        for record in instance_records(instances, size, class_names)
    ]
    return types[INSTANCES](
        header=header, image_height=size[0], image_width=size[1], instances=found
    )


def current_instances(message: Any) -> Any:
    """Return an ``InstanceArray`` of this or an earlier definition as one of this.

    Args:
        message: as its own definition has it; numbers that it lacks, such as track ids, become 0,
            lists, such as packed masks and keypoints, empty.
    """
    types = typestore().types
    kind = types['msfc_msgs/msg/Instance']
    lacking = {field.name: _nothing(str(field.type)) for field in fields(kind)}
    found = [
        kind(**{name: getattr(item, name, nothing) for name, nothing in lacking.items()})
        for item in message.instances
    ]
    return types[INSTANCES](
        header=message.header,
        image_height=message.image_height,
        image_width=message.image_width,
        instances=found,
    )


def _nothing(kind: str) -> Any:
    """Return what a field of a definition is where a message lacks it.

    Args:
        kind: the field's type, as rosbags writes it.
    """
    if kind.startswith('np.ndarray'):
        return np.empty(0, kind.split('np.dtype[np.')[1].rstrip(']'))
    return [] if kind.startswith('list') else '' if kind == 'str' else 0


def labels_message(
    model: str,
    class_names: Sequence[str],
    score_threshold: float,
    stamp: int,
    keypoint_names: Sequence[str] = (),
) -> Any:
    """Make a ``LabelInfo`` as the cloud node does, holding since ``stamp`` (nanoseconds)."""
    types = typestore().types
    classes = [
        types['msfc_msgs/msg/LabelClass'](class_id=index, class_name=name)
        for index, name in enumerate(class_names)
    ]
    return types[LABELS](
        header=_header(stamp, ''),
        model=model,
        score_threshold=score_threshold,
        classes=classes,
        keypoint_names=list(keypoint_names),
    )


def _header(stamp: int, frame_id: str) -> Any:
    return header_of(*divmod(stamp, 10**9), frame_id)


def header_of(seconds: int, nanoseconds: int, frame_id: str) -> Any:
    """Make a ``Header``."""
    types = typestore().types
    time = types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=nanoseconds)
    return types['std_msgs/msg/Header'](stamp=time, frame_id=frame_id)

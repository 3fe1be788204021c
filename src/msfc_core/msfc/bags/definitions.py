"""The project's messages as ``rosbags`` types, without ROS and without torch.

The definitions are those of the package ``msfc_msgs``, to which the folder ``messages`` beside
this file is a link.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

FEATURES = 'msfc_msgs/msg/CompressedFeature'
INSTANCES = 'msfc_msgs/msg/InstanceArray'
LABELS = 'msfc_msgs/msg/LabelInfo'

_FOLDER = Path(__file__).parent / 'messages'


@cache
def typestore() -> Typestore:
    """Return the types of ROS 2 Jazzy and of this project."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for path in sorted(_FOLDER.glob('*.msg')):
        store.register(get_types_from_msg(path.read_text(), f'msfc_msgs/msg/{path.stem}'))
    return store


def serialize(message: Any, kind: str) -> bytes:
    """Return a message as CDR, little-endian, zeros in its padding."""
    return bytes(typestore().serialize_cdr(message, kind))


def deserialize(data: bytes, kind: str) -> Any:
    """Return the message that CDR bytes of this project's definition hold."""
    return typestore().deserialize_cdr(data, kind)


def output_topic(features: str, name: str) -> str:
    """Return the topic of a result: the one of the features with ``features`` replaced.

    Args:
        features: topic of the features, such as ``/robot1/features``.
        name: of the result, such as ``instances``.
    """
    space, _, last = features.rpartition('/')
    changed = last.replace('features', name)
    return f'{space}/{changed}' if changed != last else f'{features}/{name}'

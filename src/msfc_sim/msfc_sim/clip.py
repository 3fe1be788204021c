"""Recorded clips: bags of camera images with calibration and ground truth.

A clip is a rosbag2 folder with MCAP storage, which ``ros2 bag play`` takes as well. Its topics are
``image_raw/compressed`` (sensor_msgs/CompressedImage, JPEG), ``camera_info``
(sensor_msgs/CameraInfo) and ``ground_truth`` (msfc_msgs/InstanceArray), with the same header for
all three of a frame. It is read and written by ``rosbags``, which needs no ROS 2 tools.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ament_index_python.packages import get_package_share_directory
from msfc_msgs.msg import InstanceArray
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer
from sensor_msgs.msg import CameraInfo, CompressedImage

from msfc.bags.conversion import current_instances
from msfc.bags.definitions import INSTANCES, serialize, typestore
from msfc.bags.reading import definitions_of
from msfc.bags.writing import BAG_VERSION
from msfc_ros.message_to_image import ImageError, compressed_image_to_bgr

TOPICS: dict[str, tuple[type, str]] = {
    'image_raw/compressed': (CompressedImage, 'sensor_msgs/msg/CompressedImage'),
    'camera_info': (CameraInfo, 'sensor_msgs/msg/CameraInfo'),
    'ground_truth': (InstanceArray, INSTANCES),
}
"""Topics of a clip, with their types."""

IMAGE, INFO, TRUTH = TOPICS

DEFAULT_CLIP = 'tabletop'


class ClipError(ValueError):
    """A clip that cannot be played; the message says why."""


@dataclass(frozen=True)
class ClipFrame:
    """One frame of a clip; the three messages have the same header."""

    image: CompressedImage
    camera_info: CameraInfo
    ground_truth: InstanceArray

    def decode(self) -> np.ndarray:
        """Return the image, H x W x 3 uint8 BGR.

        Raises:
            ClipError: if it is damaged or has another size than the calibration and the truth.
        """
        try:
            image = compressed_image_to_bgr(self.image)
        except ImageError as error:
            raise ClipError(f'an image of the clip is damaged: {error}') from error
        info, truth = self.camera_info, self.ground_truth
        sizes = {
            image.shape[:2],
            (info.height, info.width),
            (truth.image_height, truth.image_width),
        }
        if len(sizes) > 1:
            raise ClipError('image, camera_info and ground_truth of the clip differ in size')
        return image


def shipped_clip(name: str = DEFAULT_CLIP) -> Path:
    """Return the folder of a clip that comes with the package."""
    return Path(get_package_share_directory('msfc_sim')) / 'clips' / name


def write_clip(path: Path, frames: Iterable[ClipFrame]) -> int:
    """Write a clip. The same frames give the same bytes.

    Args:
        path: folder to make; it must not exist.
        frames: the frames, with rising stamps.

    Returns:
        How many frames were written.

    Raises:
        ClipError: if the folder exists.
    """
    if path.exists():
        raise ClipError(f'{path} exists already')
    path.parent.mkdir(parents=True, exist_ok=True)
    store = typestore()
    writer = Writer(path, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP)
    # Storage compression is what every player of MCAP undoes by itself.
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    count = 0
    with writer:
        connections = {
            topic: writer.add_connection(topic, kind, typestore=store)
            for topic, (_, kind) in TOPICS.items()
        }
        for frame in frames:
            messages = (frame.image, frame.camera_info, frame.ground_truth)
            stamp = frame.image.header.stamp
            time = stamp.sec * 10**9 + stamp.nanosec
            for connection, message in zip(connections.values(), messages, strict=True):
                kind = connection.msgtype
                # Anew, as the middleware leaves whatever there was in the padding.
                parts = store.deserialize_cdr(serialize_message(message), kind)
                writer.write(connection, time, store.serialize_cdr(parts, kind))
            count += 1
    return count


def read_clip(path: Path) -> list[ClipFrame]:
    """Read a clip into memory; images stay compressed.

    Args:
        path: its folder.

    Raises:
        ClipError: if it is none, or has no complete frame.
    """
    if not (path / 'metadata.yaml').is_file():
        raise ClipError(f'{path} is no clip: a clip is a rosbag2 folder with a metadata.yaml')
    frames: dict[tuple[int, int], dict[str, Any]] = {}
    try:
        with Reader(path) as reader:
            for connection, _, data in reader.messages():
                topic = connection.topic.lstrip('/')
                if topic in TOPICS:
                    if topic == TRUTH:
                        data = _current_truth(connection, bytes(data))
                    message = deserialize_message(bytes(data), TOPICS[topic][0])
                    stamp = message.header.stamp
                    frames.setdefault((stamp.sec, stamp.nanosec), {})[topic] = message
    except Exception as error:  # rosbags lets its decompressors' errors through
        raise ClipError(f'cannot read the clip {path}: {error}') from error
    complete = [
        ClipFrame(parts[IMAGE], parts[INFO], parts[TRUTH])
        for _, parts in sorted(frames.items())
        if len(parts) == len(TOPICS)
    ]
    if not complete:
        raise ClipError(
            f'{path} has no frame with all of the topics {", ".join(TOPICS)} under one stamp'
        )
    return complete


def _current_truth(connection: Connection, data: bytes) -> bytes:
    """Return a ground truth, which may be of an earlier definition, as one of today's."""
    store = definitions_of(connection)
    return serialize(current_instances(store.deserialize_cdr(data, INSTANCES)), INSTANCES)

"""Bags with camera images, for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore


def write_image_bag(path: Path, pictures: Sequence[NDArray[np.uint8]]) -> None:
    """Write a bag with RGB images, one a second, on ``/camera``."""
    types = get_typestore(Stores.ROS2_JAZZY)
    image, header = types.types['sensor_msgs/msg/Image'], types.types['std_msgs/msg/Header']
    stamp = types.types['builtin_interfaces/msg/Time']
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = writer.add_connection('/camera', image.__msgtype__, typestore=types)
        for index, picture in enumerate(pictures):
            message = image(
                header=header(stamp=stamp(sec=index, nanosec=0), frame_id='camera'),
                height=picture.shape[0], width=picture.shape[1], encoding='rgb8', is_bigendian=0,
                step=3 * picture.shape[1], data=picture.reshape(-1),
            )
            data = types.serialize_cdr(message, image.__msgtype__)
            writer.write(topic, 10**9 * index, data)

"""Bytes of whole serialised messages: ROS 2's CDR encoding, with its header of four bytes.

Counted without ROS, so that figures are the same on every machine; a test compares them with a
serialiser's output.
"""

from __future__ import annotations

_ENCAPSULATION = 4
_FINGERPRINT = 16


def compressed_feature_bytes(payload_bytes: int, frame_id: str = 'camera_optical_frame') -> int:
    """Return the bytes of a ``msfc_msgs/CompressedFeature`` message.

    Args:
        payload_bytes: length of its ``data``.
        frame_id: of the camera, in its header.
    """
    size = _header(frame_id)
    size = _aligned(size, 4) + 7 * 4  # sequence and three sizes
    size += 3 * 2  # channels, feature size
    size += 2 * 1  # bit depth, coding
    size = _aligned(size, 4) + 4 + _FINGERPRINT + 1  # length, text, zero
    size = _aligned(size, 4) + 4 * 4  # durations
    return _ENCAPSULATION + _aligned(size, 4) + 4 + payload_bytes


def compressed_image_bytes(
    data_bytes: int, encoding: str, frame_id: str = 'camera_optical_frame'
) -> int:
    """Return the bytes of a ``sensor_msgs/CompressedImage`` message.

    Args:
        data_bytes: length of its ``data``.
        encoding: its ``format``, such as ``jpeg``.
        frame_id: of the camera, in its header.
    """
    size = _aligned(_header(frame_id), 4) + 4 + len(encoding.encode()) + 1
    return _ENCAPSULATION + _aligned(size, 4) + 4 + data_bytes


def _header(frame_id: str) -> int:
    """Return the bytes of a ``std_msgs/Header``: two numbers, length, text, zero."""
    return 8 + 4 + len(frame_id.encode()) + 1


def _aligned(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple

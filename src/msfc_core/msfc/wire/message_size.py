"""Bytes of whole serialised messages: ROS 2's CDR encoding, with its header of four bytes.

Counted without ROS, so that figures are the same on every machine; a test compares them with a
serialiser's output.
"""

from __future__ import annotations

from msfc.wire.packet import FINGERPRINT_DIGITS, packet_fields

_ENCAPSULATION = 4
_NUMBERS = {'uint8': 1, 'uint16': 2, 'uint32': 4, 'float32': 4}
"""Bytes of a number, to a multiple of which its place is aligned."""

PACKET_BYTES = 1300
"""The largest message that surely goes in one packet at an MTU of 1,500 bytes: Fast DDS, UDP and
IP put 192 bytes around a reliable one (docs/network.md), so that 8 are to spare."""


def compressed_feature_bytes(payload_bytes: int, frame_id: str = 'camera_optical_frame') -> int:
    """Return the bytes of a ``msfc_msgs/CompressedFeature`` message.

    Args:
        payload_bytes: length of its ``data``.
        frame_id: of the camera, in its header.
    """
    size = _header(frame_id)
    for field in packet_fields():
        if field.type == 'string':
            size = _text(size, FINGERPRINT_DIGITS)
        elif field.type == 'uint8[]':
            size = _aligned(size, 4) + 4 + payload_bytes
        else:
            width = _NUMBERS[field.type]
            size = _aligned(size, width) + width
    return _ENCAPSULATION + size


def compressed_image_bytes(
    data_bytes: int, encoding: str, frame_id: str = 'camera_optical_frame'
) -> int:
    """Return the bytes of a ``sensor_msgs/CompressedImage`` message.

    Args:
        data_bytes: length of its ``data``.
        encoding: its ``format``, such as ``jpeg``.
        frame_id: of the camera, in its header.
    """
    size = _text(_header(frame_id), len(encoding.encode()))
    return _ENCAPSULATION + _aligned(size, 4) + 4 + data_bytes


def _header(frame_id: str) -> int:
    """Return the bytes of a ``std_msgs/Header``: two numbers and a text."""
    return _text(8, len(frame_id.encode()))


def _text(size: int, length: int) -> int:
    """Return where a text ends: its length, itself, a zero."""
    return _aligned(size, 4) + 4 + length + 1


def _aligned(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple

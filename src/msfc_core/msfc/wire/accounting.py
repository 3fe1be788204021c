"""How many bits were sent: the one place where bits are counted.

*Bits per feature element* (BPFE), the paper's measure, divides the bits that are sent by the
elements of the uncompressed pyramid, p2 .. p6. Both functions take bytes that are really sent:
the ``data`` field for payload figures, the serialised message for message figures.
"""

from __future__ import annotations

from collections.abc import Mapping

from msfc.types import Size


def pyramid_elements(sizes: Mapping[str, Size], channels: int) -> int:
    """Return the number of elements of an uncompressed pyramid of one image.

    Args:
        sizes: height and width in cells of every level, ``p6`` included.
        channels: channels of every level.
    """
    return channels * sum(height * width for height, width in sizes.values())


def payload_bpfe(payload_bytes: float, sizes: Mapping[str, Size], channels: int) -> float:
    """Return the bits sent per element of the uncompressed pyramid of one image.

    Args:
        payload_bytes: bytes of the ``data`` field, or their mean.
        sizes: height and width in cells of every level, ``p6`` included.
        channels: channels of every level of the uncompressed pyramid (not the code's).
    """
    return 8 * payload_bytes / pyramid_elements(sizes, channels)


def bits_per_pixel(sent_bytes: int, source_size: Size) -> float:
    """Return the bits sent per pixel of the source image.

    Args:
        sent_bytes: bytes of the ``data`` field or of the whole message.
        source_size: height and width of the source image in pixels.
    """
    return 8 * sent_bytes / (source_size[0] * source_size[1])

"""What of an encoded image has to be sent, and the whole stream again from that.

One rule for every image codec: what the receiver knows beforehand is not sent. It knows the
codec, its setting and the size of the image, as it knows the model and the shape of the code where
features are sent. What follows from these alone is made anew: containers, signatures, parameter
sets, sequence headers, quantisation tables that belong to a quality. What differs from image to
image is sent: coded pixels, the frame's own header, Huffman tables made for the image.

Formats: JPEG (ITU-T T.81), WebP (RFC 9649) with VP8 (RFC 6386), AVIF (ISO/IEC 23000-22) with the
low-overhead stream of AV1, and the byte streams of H.264 and H.265 (their annexes B). A *template*
is any image of the same size, encoded at the same setting.
"""

from __future__ import annotations

from collections.abc import Iterator

from msfc.types import Size

JPEG_START, JPEG_END = b'\xff\xd8', b'\xff\xd9'
_QUANTISATION, _SCAN = 0xDB, 0xDA
_FRAMES = (0xC0, 0xC2)  # baseline, progressive
_VP8_START = b'\x9d\x01\x2a'
_DELIMITER, _SEQUENCE = 2, 1  # types of units of AV1
_HAS_SIZE = 2  # bit of a unit's first byte


def strip_jpeg(data: bytes) -> bytes:
    """Leave out of a JPEG file its first and last marker, signature, quantisation and size.

    The marker of the frame stays: it tells baseline from progressive.

    Raises:
        ValueError: it is no JPEG file as OpenCV writes it.
    """
    head, scans = _jpeg_parts(data)
    kept = b''
    for marker, segment in head:
        if marker in _FRAMES:
            kept += segment[:2]
        elif marker != _QUANTISATION and not 0xE0 <= marker <= 0xEF:
            kept += segment
    return kept + scans


def restore_jpeg(sent: bytes, template: bytes) -> bytes:
    """Return the JPEG file of what :func:`strip_jpeg` left.

    Args:
        sent: what was left.
        template: a file of the same size, subsampling and quality, baseline or progressive.

    Raises:
        ValueError: the template is no JPEG file.
    """
    head, _ = _jpeg_parts(template)
    before: list[bytes] = []
    for marker, segment in head:
        if marker in _FRAMES:
            before.append(sent[:2] + segment[2:])
            break
        before.append(segment)
    return JPEG_START + b''.join(before) + sent[2:] + JPEG_END


def _jpeg_parts(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the segments before the first scan with their markers, and the scans."""
    if not (data.startswith(JPEG_START) and data.endswith(JPEG_END)):
        raise ValueError('the data is not a JPEG file')
    place = 2
    segments = []
    while data[place] == 0xFF and data[place + 1] != _SCAN:
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], 'big')
        segments.append((data[place + 1], data[place:end]))
        place = end
    return segments, data[place:-2]


def strip_webp(data: bytes) -> bytes:
    """Leave out of a lossy WebP file its container, start code and size.

    Raises:
        ValueError: it is no lossy WebP file, or has more than the image.
    """
    if data[:4] != b'RIFF' or data[8:16] != b'WEBPVP8 ' or data[23:26] != _VP8_START:
        raise ValueError('the data is not a plain lossy WebP file')
    length = int.from_bytes(data[16:20], 'little')
    return data[20:23] + data[30 : 20 + length]


def restore_webp(sent: bytes, size: Size) -> bytes:
    """Return the WebP file of what :func:`strip_webp` left.

    Args:
        sent: what was left.
        size: height and width of the image.
    """
    height, width = size
    frame = (
        sent[:3] + _VP8_START + width.to_bytes(2, 'little') + height.to_bytes(2, 'little')
        + sent[3:]
    )
    chunk = b'VP8 ' + len(frame).to_bytes(4, 'little') + frame + b'\0' * (len(frame) % 2)
    return b'RIFF' + (4 + len(chunk)).to_bytes(4, 'little') + b'WEBP' + chunk


def strip_avif(data: bytes) -> bytes:
    """Leave of an AVIF file the frame: one unit of AV1, without its size.

    Raises:
        ValueError: it is no AVIF file of one frame.
    """
    frames = [unit for kind, unit in _av1_units(_media(data)) if _is_frame(kind)]
    if len(frames) != 1:
        raise ValueError(f'{len(frames)} frames in an AVIF file, one expected')
    (unit,) = frames
    _, start = _leb128(unit, 1)
    return bytes([unit[0] & ~_HAS_SIZE]) + unit[start:]


def restore_avif(sent: bytes, template: bytes) -> bytes:
    """Return the AVIF file of what :func:`strip_avif` left.

    Args:
        sent: what was left.
        template: a file of the same size at the same setting.

    Raises:
        ValueError: the template is no AVIF file of one image.
    """
    length = len(sent) - 1
    size = b''
    while length >= 0x80:
        size += bytes([length & 0x7F | 0x80])
        length >>= 7
    frame = bytes([sent[0] | _HAS_SIZE]) + size + bytes([length]) + sent[1:]
    headers = b''.join(
        unit for kind, unit in _av1_units(_media(template)) if not _is_frame(kind)
    )
    media = headers + frame
    # The location of the one item is the last field of its box: the length.
    place = template.index(b'iloc') - 4
    place += int.from_bytes(template[place : place + 4], 'big')
    before = template[: place - 4] + len(media).to_bytes(4, 'big') + template[place:]
    before = before[: before.index(b'mdat') - 4]
    return before + (8 + len(media)).to_bytes(4, 'big') + b'mdat' + media


def _media(data: bytes) -> bytes:
    """Return what is in the last box of an AVIF file, which must be the media's."""
    place = data.find(b'mdat')
    if data[4:12] != b'ftypavif' or place < 4 or b'iloc' not in data[:place]:
        raise ValueError('the data is not a still AVIF file')
    return data[place + 4 : place - 4 + int.from_bytes(data[place - 4 : place], 'big')]


def _is_frame(kind: int) -> bool:
    return kind not in (_DELIMITER, _SEQUENCE)


def _av1_units(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the units of a stream of AV1, each with its type."""
    place = 0
    while place < len(stream):
        length, start = _leb128(stream, place + 1)
        yield stream[place] >> 3 & 15, stream[place : start + length]
        place = start + length


def _leb128(data: bytes, place: int) -> tuple[int, int]:
    """Return a number of variable length, and where it ends."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place


def split_units(stream: bytes) -> list[bytes]:
    """Return the network abstraction layer units of a byte stream of H.264 or H.265."""
    units = stream.replace(b'\0\0\0\1', b'\0\0\1').split(b'\0\0\1')
    return [unit for unit in units if unit]


def is_coded_h264(unit: bytes) -> bool:
    """Return whether a unit of H.264 has coded pixels."""
    return 1 <= unit[0] & 31 <= 5


def is_coded_h265(unit: bytes) -> bool:
    """Return whether a unit of H.265 has coded pixels."""
    return unit[0] >> 1 & 63 < 32


def is_parameters_h264(unit: bytes) -> bool:
    """Return whether a unit of H.264 is a sequence or picture parameter set."""
    return unit[0] & 31 in (7, 8)


def is_parameters_h265(unit: bytes) -> bool:
    """Return whether a unit of H.265 is a video, sequence or picture parameter set."""
    return unit[0] >> 1 & 63 in (32, 33, 34)

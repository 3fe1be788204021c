"""Image messages to arrays.

The conversion of colours is done by ``cv_bridge`` where it imports cleanly, else by
``rosbags-image``, which takes the same messages; OpenCV does the work in both. They get what they
treat alike only: rows without padding, samples in the machine's byte order, names of encodings
that both know. Everything that they would believe of a message is checked before, and 16 bits
become 8 here, as one of them rounds and the other cuts off. The encodings are those of
sensor_msgs/image_encodings.hpp; compressed images are read as image_transport reads them.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError
from sensor_msgs.msg import CompressedImage, Image

from msfc_ros.image_to_message import image_to_message


@dataclass(frozen=True)
class Encoding:
    """How pixels lie in a message.

    Attributes:
        name: the name of it that both converters know.
        channels: samples per pixel.
        sample: bytes per sample.
    """

    name: str
    channels: int
    sample: int = 1

    @property
    def pixel(self) -> int:
        """Bytes per pixel."""
        return self.channels * self.sample


_BAYER = ('bayer_rggb', 'bayer_bggr', 'bayer_gbrg', 'bayer_grbg')

INTERLEAVED = {
    **{f'{name}8': Encoding(f'{name}8', 1) for name in ('mono', *_BAYER)},
    **{f'{name}16': Encoding(f'{name}16', 1, 2) for name in ('mono', *_BAYER)},
    **{f'{name}8': Encoding(f'{name}8', len(name)) for name in ('bgr', 'rgb', 'bgra', 'rgba')},
    **{
        f'{name}16': Encoding(f'{name}16', len(name), 2) for name in ('bgr', 'rgb', 'bgra', 'rgba')
    },
    'yuv422': Encoding('yuv422', 2),
    'uyvy': Encoding('yuv422', 2),
    'yuv422_yuy2': Encoding('yuv422_yuy2', 2),
    'yuyv': Encoding('yuv422_yuy2', 2),
    # OpenCV's names say nothing of colours; its order is blue, green, red.
    '8UC1': Encoding('mono8', 1),
    '8UC3': Encoding('bgr8', 3),
    '8UC4': Encoding('bgra8', 4),
    '16UC1': Encoding('mono16', 1, 2),
    '16UC3': Encoding('bgr16', 3, 2),
    '16UC4': Encoding('bgra16', 4, 2),
}
"""Encodings whose samples lie pixel by pixel."""

PLANAR = {
    'nv12': cv2.COLOR_YUV2BGR_NV12,
    'nv21': cv2.COLOR_YUV2BGR_NV21,
    'nv24': cv2.COLOR_YUV2BGR_NV12,
}
"""Encodings with a plane of luma, then one of chroma, and how OpenCV converts them; the
converters know none. Chroma has half the height and width in the first two, all of both in nv24
(kernel.org, V4L2 pixel formats)."""

ENCODINGS = tuple(sorted({*INTERLEAVED, *PLANAR}))
"""Encodings that are understood."""

COMPRESSED_FORMATS = ('JPEG', 'PNG')
"""Formats of compressed images that are understood."""

MAX_SIDE = 2**14
"""Longest side of an image in pixels; beyond it the message is taken for damaged."""

MAX_PIXELS = 2**26
"""Most pixels of an image: a small compressed one could ask for any amount of memory."""


class ImageError(ValueError):
    """An image message that cannot be used.

    Attributes:
        reason: why, in one word. The message says it in one sentence.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def _load_converter() -> tuple[str, Callable[[Image, str], NDArray[Any]]]:
    try:
        # An older build beside numpy 2 fails here, with ImportError or worse.
        from cv_bridge import CvBridge

        bridge = CvBridge()
        bridge.imgmsg_to_cv2(
            image_to_message(np.zeros((1, 1, 3), np.uint8), Image().header, 'rgb8'), 'bgr8'
        )
        return 'cv_bridge', bridge.imgmsg_to_cv2
    except Exception:
        from rosbags.image import image_to_cvimage

        return 'rosbags-image', image_to_cvimage


CONVERTER, convert = _load_converter()
"""Name of the library that converts."""


def to_bgr(message: Image | CompressedImage) -> NDArray[np.uint8]:
    """Convert an image message of either type.

    Args:
        message: see :func:`image_to_bgr` and :func:`compressed_image_to_bgr`.

    Returns:
        H x W x 3, uint8, BGR; it may share the message's memory.

    Raises:
        ImageError: if it cannot be used.
    """
    if isinstance(message, CompressedImage):
        return compressed_image_to_bgr(message)
    return image_to_bgr(message)


def image_to_bgr(message: Image) -> NDArray[np.uint8]:
    """Convert an image message.

    Args:
        message: an image of one of :data:`ENCODINGS`; rows may be padded, and samples of 16 bits
            may have either order of bytes. Their full range becomes that of 8 bits, rounded.

    Returns:
        H x W x 3, uint8, BGR; it may share the message's memory.

    Raises:
        ImageError: if the encoding is another one, or the sizes do not agree with the data.
    """
    _check_size(message.height, message.width)
    if message.encoding in PLANAR:
        return _planar_to_bgr(message)
    encoding = INTERLEAVED.get(message.encoding)
    if encoding is None:
        raise ImageError(
            'encoding',
            f'images of encoding {message.encoding!r} are not understood; those understood are '
            + ', '.join(ENCODINGS),
        )
    if encoding.channels == 2 and message.width % 2:
        raise ImageError(
            'size',
            f'an image of encoding {message.encoding} has pairs of pixels, but a row has '
            f'{message.width}',
        )
    rows = _rows(message, encoding)
    if encoding.name == 'bgr8':
        return rows.reshape(message.height, message.width, 3)
    plain = encoding.sample == 1 and encoding.name == message.encoding
    if plain and message.step == rows.shape[1] and not message.is_bigendian:
        return convert(message, 'bgr8')
    return _pixels_to_bgr(_samples(rows, message, encoding), encoding)


def compressed_image_to_bgr(message: CompressedImage) -> NDArray[np.uint8]:
    """Convert a compressed image, as image_transport's compressed transport publishes them.

    As there, the picture is not turned as its Exif data may ask, since it would no longer fit the
    camera's calibration; and what ``format`` says of the order of colours and of a Bayer pattern
    counts.

    Args:
        message: a JPEG or PNG picture with samples of 8 or 16 bits.

    Returns:
        H x W x 3, uint8, BGR.

    Raises:
        ImageError: if it is no such picture, too large, damaged or not all there.
    """
    data = bytes(message.data)
    kind, (width, height) = _picture_header(data, message.format)
    _check_size(height, width)
    # libjpeg makes up what is missing. Pictures inside the Exif data end before the scans start.
    if kind != 'PNG' and data.rfind(b'\xff\xd9') < data.rfind(b'\xff\xda'):
        raise ImageError(
            'damaged', f'a JPEG picture of {len(data)} bytes is cut off: it has no end marker'
        )
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.shape[:2] != (height, width):
        raise ImageError('damaged', f'a {kind} picture of {len(data)} bytes cannot be decoded')
    return _pixels_to_bgr(pixels, _compressed_encoding(pixels, message.format))


def _pixels_to_bgr(pixels: NDArray[Any], encoding: Encoding) -> NDArray[np.uint8]:
    """Convert packed pixels in the machine's byte order, H x W or H x W x C."""
    if encoding.name == 'bgr8':
        return pixels
    target = 'bgr8' if encoding.sample == 1 else 'bgr16'
    converted = convert(image_to_message(pixels, Image().header, encoding.name), target)
    if encoding.sample == 1:
        return converted
    # 65535 / 255 is odd: no value lies half way between two, to be rounded one way or another.
    return np.asarray(cv2.convertScaleAbs(converted, alpha=1 / 257), np.uint8)


def _check_size(height: int, width: int) -> None:
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE and height * width <= MAX_PIXELS):
        raise ImageError(
            'size',
            f'an image of {width} x {height} pixels is not accepted: each side has to be '
            f'1 to {MAX_SIDE}, and {MAX_PIXELS} pixels is the most',
        )


def _rows(message: Image, encoding: Encoding) -> NDArray[np.uint8]:
    """Return the pixels as H x (W * bytes per pixel), without the rows' padding."""
    row = message.width * encoding.pixel
    if message.step < row:
        raise ImageError(
            'step',
            f'a row of {message.width} pixels of {message.encoding} takes {row} bytes, but the '
            f'step is {message.step}',
        )
    _check_length(message, message.height, row)
    return np.lib.stride_tricks.as_strided(
        np.frombuffer(message.data, np.uint8),
        (message.height, row),
        (message.step, 1),
        writeable=False,
    )


def _check_length(message: Image, rows: int, last: int) -> None:
    """Check that the data has so many rows; of the last one only so many bytes are needed."""
    step, length = message.step, len(message.data)
    if not step * (rows - 1) + last <= length <= step * rows:
        raise ImageError(
            'length',
            f'{rows} rows of {step} bytes take {step * rows} bytes, but the image has {length}',
        )


def _samples(rows: NDArray[np.uint8], message: Image, encoding: Encoding) -> NDArray[Any]:
    """Return rows of bytes as samples in the machine's byte order, H x W or H x W x C."""
    pixels: NDArray[Any] = np.ascontiguousarray(rows)
    if encoding.sample == 2:
        pixels = pixels.view(np.uint16)
        if bool(message.is_bigendian) != (sys.byteorder == 'big'):
            pixels = pixels.byteswap()
    shape = (message.height, message.width, encoding.channels)
    return pixels.reshape(shape if encoding.channels > 1 else shape[:2])


def _planar_to_bgr(message: Image) -> NDArray[np.uint8]:
    height, width, step = message.height, message.width, message.step
    full = message.encoding == 'nv24'
    if not full and (height % 2 or width % 2):
        raise ImageError(
            'size',
            f'an image of encoding {message.encoding} has an even height and width, not '
            f'{width} x {height}',
        )
    if step < width:
        raise ImageError(
            'step',
            f'a row of {width} pixels of {message.encoding} takes {width} bytes of luma, but the '
            f'step is {step}',
        )
    rows = 3 * height if full else height + height // 2
    _check_length(message, rows, step)
    planes = np.frombuffer(message.data, np.uint8).reshape(rows, step)
    if not full:
        packed = np.ascontiguousarray(planes[:, :width])
        return np.asarray(cv2.cvtColor(packed, PLANAR[message.encoding]), np.uint8)
    # OpenCV knows no nv24: each of its pixels becomes four that share their chroma, as in nv12.
    luma = np.repeat(np.repeat(planes[:height, :width], 2, axis=0), 2, axis=1)
    chroma = planes[height:].reshape(height, 2 * step)[:, : 2 * width]
    image = cv2.cvtColor(np.concatenate([luma, chroma]), PLANAR[message.encoding])
    return np.ascontiguousarray(image[::2, ::2], np.uint8)


def _picture_header(data: bytes, said: str) -> tuple[str, tuple[int, int]]:
    """Return a picture's format, width and height, without decoding it."""
    try:
        with PillowImage.open(io.BytesIO(data), formats=COMPRESSED_FORMATS) as picture:
            return str(picture.format), picture.size
    except PillowImage.DecompressionBombError as error:
        raise ImageError(
            'size', f'a picture is not accepted: {MAX_PIXELS} pixels is the most'
        ) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise ImageError(
            'format',
            f'{len(data)} bytes of compressed format {said!r} are no picture that is understood; '
            'those understood are ' + ' and '.join(COMPRESSED_FORMATS),
        ) from error


def _compressed_encoding(pixels: NDArray[Any], said: str) -> Encoding:
    """Return the encoding of a decoded picture, from its kind and its message's format.

    The format of compressed_image_transport is ``<encoding>; <jpeg or png> compressed <target>``:
    the target is ``bgr8`` or ``bgr16`` for colours, where an old or other publisher may have
    left red first; a Bayer pattern is kept by its PNG, which has no target. Others' formats say
    less.
    """
    source, separator, rest = said.partition(';')
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.shape[2:] not in ((), (3,), (4,)):
        raise ImageError(
            'encoding',
            f'a picture of {pixels.dtype} samples and shape {pixels.shape} is not understood',
        )
    bits = 8 * pixels.dtype.itemsize
    if pixels.ndim == 2:
        pattern = source.rstrip('0123456789')
        name = pattern if pattern in _BAYER and 'png' in rest else 'mono'
    else:
        coloured = source.startswith(('bgr', 'rgb'))
        name = 'rgb' if separator and coloured and 'compressed bgr' not in rest else 'bgr'
        name += 'a' * (pixels.shape[2] == 4)
    return INTERLEAVED[f'{name}{bits}']

import io
import struct
import sys
import zlib
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from msfc_ros import message_to_image
from msfc_ros.image_to_message import image_to_message, to_bytes_field
from msfc_ros.message_to_image import (
    CONVERTER,
    ENCODINGS,
    INTERLEAVED,
    MAX_PIXELS,
    ImageError,
    compressed_image_to_bgr,
    image_to_bgr,
    to_bgr,
)

RNG = np.random.default_rng(0)

# Where red is in the first two rows and columns; blue is across, green is the rest.
RED = {'rggb': (0, 0), 'bggr': (1, 1), 'gbrg': (1, 0), 'grbg': (0, 1)}


def to_eight_bits(pixels):
    """Return 0..65535 as 0..255, to the nearest."""
    return ((pixels.astype(np.int64) + 128) // 257).astype(np.uint8)


def yuv_to_bgr(luma, u, v):
    """ITU-R BT.601, 16 to 235 and 16 to 240, as OpenCV documents it for these encodings."""
    y, u, v = 1.164 * (luma.astype(float) - 16), u.astype(float) - 128, v.astype(float) - 128
    y = np.maximum(y, 0)
    bgr = np.stack([y + 2.018 * u, y - 0.813 * v - 0.391 * u, y + 1.596 * v], axis=-1)
    return np.clip(np.rint(bgr), 0, 255).astype(np.uint8)


def reference(pixels, encoding):
    """Convert without the libraries that are under test; Bayer is left to OpenCV."""
    if encoding.name in ('yuv422', 'yuv422_yuy2'):
        first, second = pixels[..., 0], pixels[..., 1]
        luma, chroma = (second, first) if encoding.name == 'yuv422' else (first, second)
        u, v = (np.repeat(chroma[:, start::2], 2, axis=1) for start in (0, 1))
        return yuv_to_bgr(luma, u, v)
    if encoding.name.startswith('bayer'):
        # OpenCV names a pattern after its second row and column.
        names = {'rggb': 'BG', 'bggr': 'RG', 'gbrg': 'GR', 'grbg': 'GB'}
        bgr = cv2.cvtColor(pixels, getattr(cv2, f'COLOR_Bayer{names[encoding.name[6:10]]}2BGR'))
    elif encoding.name.startswith('mono'):
        bgr = np.repeat(pixels[:, :, None], 3, axis=2)
    else:
        bgr = pixels[:, :, :3]
        bgr = bgr[:, :, ::-1] if encoding.name.startswith('rgb') else bgr
    return bgr if encoding.sample == 1 else to_eight_bits(bgr)


def make(name, height=6, width=8, padding=0, trim=0, big_endian=False):
    """Return a message of random pixels, its rows padded with junk, and the pixels."""
    encoding = INTERLEAVED[name]
    shape = (height, width, encoding.channels) if encoding.channels > 1 else (height, width)
    top = 256**encoding.sample
    pixels = RNG.integers(0, top, shape).astype('>u2' if big_endian else '<u2')
    rows = pixels.astype(np.uint8) if encoding.sample == 1 else pixels
    rows = np.ascontiguousarray(rows).reshape(height, -1).view(np.uint8)
    junk = RNG.integers(0, 256, (height, padding), dtype=np.uint8)
    data = np.concatenate([rows, junk], axis=1).tobytes()
    message = Image(
        height=height,
        width=width,
        encoding=name,
        is_bigendian=int(big_endian),
        step=rows.shape[1] + padding,
        data=to_bytes_field(data[: len(data) - trim]),
    )
    return message, pixels.astype(np.uint8 if encoding.sample == 1 else np.uint16)


def assert_same(image, expected, name):
    assert image.dtype == np.uint8
    assert image.shape == expected.shape
    # The reference has no fixed-point arithmetic.
    tolerance = 1 if INTERLEAVED[name].name.startswith('yuv') else 0
    assert np.abs(image.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize('padding', [0, 1, 13])
@pytest.mark.parametrize('name', sorted(INTERLEAVED))
def test_converts(name, padding, big_endian):
    message, pixels = make(name, padding=padding, big_endian=big_endian)
    assert_same(image_to_bgr(message), reference(pixels, INTERLEAVED[name]), name)
    assert_same(to_bgr(message), reference(pixels, INTERLEAVED[name]), name)


@pytest.mark.parametrize('name', sorted(INTERLEAVED))
def test_padding_of_the_last_row_may_be_missing(name):
    message, pixels = make(name, padding=3, trim=3)
    assert_same(image_to_bgr(message), reference(pixels, INTERLEAVED[name]), name)


@pytest.mark.parametrize('size', [(1, 1), (1, 8), (8, 1), (2, 2), (3, 5)])
@pytest.mark.parametrize('name', sorted(INTERLEAVED))
def test_small_images(name, size):
    message, pixels = make(name, *size)
    if INTERLEAVED[name].channels == 2 and size[1] % 2:
        with pytest.raises(ImageError, match='has pairs of pixels, but a row has'):
            image_to_bgr(message)
    else:
        assert_same(image_to_bgr(message), reference(pixels, INTERLEAVED[name]), name)


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('pattern', sorted(RED))
def test_bayer_patterns_have_their_colours_where_their_names_say(pattern, bits):
    # Under even light of one colour only its own pixels of the pattern are bright.
    full = 256 ** (bits // 8) - 1
    row, column = RED[pattern]
    pixels = np.zeros((8, 8), np.uint8 if bits == 8 else np.uint16)
    pixels[row::2, column::2] = full
    image = image_to_bgr(image_to_message(pixels, Header(), f'bayer_{pattern}{bits}'))
    np.testing.assert_array_equal(image[4, 4], (0, 0, 255))


@pytest.mark.parametrize('name', ['nv12', 'nv21', 'nv24'])
@pytest.mark.parametrize('padding', [0, 5])
def test_planar(name, padding):
    height, width = 4, 6
    share = 1 if name == 'nv24' else 2
    luma = RNG.integers(16, 236, (height, width), dtype=np.uint8)
    chroma = RNG.integers(16, 241, (2, height // share, width // share), dtype=np.uint8)
    pairs = np.stack(chroma[::-1] if name == 'nv21' else chroma, axis=-1)
    pairs = pairs.reshape(height // share, -1)

    def padded(plane, amount):
        return np.pad(plane, ((0, 0), (0, amount)), constant_values=77).tobytes()

    message = Image(
        height=height,
        width=width,
        encoding=name,
        step=width + padding,
        data=to_bytes_field(
            padded(luma, padding) + padded(pairs, padding * (2 if name == 'nv24' else 1))
        ),
    )
    u, v = (np.repeat(np.repeat(c, share, axis=0), share, axis=1) for c in chroma)
    image = image_to_bgr(message)
    assert image.shape == (height, width, 3)
    assert np.abs(image.astype(int) - yuv_to_bgr(luma, u, v)).max() <= 1

    message.data = message.data[:-1]
    with pytest.raises(ImageError, match='rows of') as caught:
        image_to_bgr(message)
    assert caught.value.reason == 'length'
    message.step = width - 1
    with pytest.raises(ImageError, match='takes 6 bytes of luma, but the step is 5'):
        image_to_bgr(message)


def test_half_resolution_chroma_has_even_sizes():
    message = Image(height=3, width=4, encoding='nv12', step=4, data=[0] * 18)
    with pytest.raises(ImageError, match='even height and width, not 4 x 3'):
        image_to_bgr(message)


def test_result_can_be_drawn_on_after_a_copy():
    message, _ = make('bgr8')
    cv2.circle(image_to_bgr(message).copy(), (2, 2), 1, (0, 0, 255))


@pytest.mark.parametrize(
    ('changes', 'reason', 'words'),
    [
        ({'encoding': '32FC1'}, 'encoding', "encoding '32FC1' are not understood"),
        ({'encoding': ''}, 'encoding', "encoding '' are not understood"),
        ({'height': 0}, 'size', '7 x 0 pixels is not accepted'),
        ({'width': 2**32 - 1}, 'size', 'pixels is not accepted'),
        ({'height': 2**14, 'width': 2**14}, 'size', f'{MAX_PIXELS} pixels is the most'),
        ({'step': 20}, 'step', 'takes 21 bytes, but the step is 20'),
        ({'step': 22}, 'length', '5 rows of 22 bytes take 110 bytes, but the image has 105'),
        ({'height': 6}, 'length', 'take 126 bytes, but the image has 105'),
        ({'height': 4}, 'length', 'take 84 bytes, but the image has 105'),
        ({'data': []}, 'length', 'but the image has 0'),
    ],
)
def test_refuses(changes, reason, words):
    message, _ = make('bgr8', 5, 7)
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(ImageError, match=words) as caught:
        image_to_bgr(message)
    assert caught.value.reason == reason


def test_refusal_says_what_is_understood():
    with pytest.raises(ImageError, match=r'16UC1.*bayer_bggr16.*mono8.*nv12.*yuyv'):
        image_to_bgr(Image(height=1, width=1, encoding='none'))
    assert len(ENCODINGS) == len(INTERLEAVED) + 3


def test_cv_bridge_gives_the_same_pixels():
    cv_bridge = pytest.importorskip('cv_bridge', reason='cv_bridge is not installed')
    assert CONVERTER == 'cv_bridge'
    for name, encoding in INTERLEAVED.items():
        message, _ = make(name)
        image = image_to_bgr(message)
        # It takes names without colours for no colours, and converts none of them.
        message.encoding = encoding.name
        expected = cv_bridge.CvBridge().imgmsg_to_cv2(message, 'bgr8')
        np.testing.assert_array_equal(image, expected, err_msg=name)


@pytest.mark.parametrize('name', sorted(INTERLEAVED))
def test_both_converters_give_the_same_pixels(name, monkeypatch):
    from rosbags.image import image_to_cvimage

    message, _ = make(name, padding=4)
    monkeypatch.setattr(message_to_image, 'convert', image_to_cvimage)
    by_rosbags = image_to_bgr(message)
    monkeypatch.setattr(message_to_image, 'convert', like_cv_bridge)
    np.testing.assert_array_equal(image_to_bgr(message), by_rosbags)


def like_cv_bridge(message, target):
    """What cv_bridge.cpp of Jazzy does: it takes no other encodings, sizes or byte orders."""
    assert target == ('bgr16' if message.encoding.endswith('16') else 'bgr8')
    assert message.is_bigendian == (sys.byteorder == 'big')
    bytes_, channels = {'bgr16': 2}.get(target, 1), INTERLEAVED[message.encoding].channels
    assert message.step == message.width * channels * bytes_
    assert len(message.data) == message.step * message.height
    pixels = np.frombuffer(message.data, np.uint8 if bytes_ == 1 else np.uint16)
    pixels = pixels.reshape((message.height, message.width, channels)[: 3 if channels > 1 else 2])
    codes = {
        'mono': cv2.COLOR_GRAY2BGR, 'rgb': cv2.COLOR_RGB2BGR, 'bgr': None,
        'rgba': cv2.COLOR_RGBA2BGR, 'bgra': cv2.COLOR_BGRA2BGR, 'yuv422': cv2.COLOR_YUV2BGR_UYVY,
        'yuv422_yuy2': cv2.COLOR_YUV2BGR_YUY2, 'bayer_rggb': cv2.COLOR_BayerBG2BGR,
        'bayer_bggr': cv2.COLOR_BayerRG2BGR, 'bayer_gbrg': cv2.COLOR_BayerGR2BGR,
        'bayer_grbg': cv2.COLOR_BayerGB2BGR,
    }  # fmt: skip
    name = message.encoding
    code = codes[name if name.startswith('yuv') else name.rstrip('0123456789')]
    return pixels if code is None else cv2.cvtColor(pixels, code)


# -- compressed --


def smooth(height=48, width=64, channels=3, dtype=np.uint8):
    shape = (height // 8, width // 8, channels) if channels > 1 else (height // 8, width // 8)
    blocks = RNG.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    return np.repeat(np.repeat(blocks, 8, axis=0), 8, axis=1)


def compress(pixels, suffix='.png', said=''):
    return CompressedImage(format=said, data=cv2.imencode(suffix, pixels)[1].tobytes())


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_png(channels, dtype):
    pixels = smooth(channels=channels, dtype=dtype)
    image = to_bgr(compress(pixels, said='png'))
    expected = np.repeat(pixels[:, :, None], 3, axis=2) if channels == 1 else pixels[..., :3]
    np.testing.assert_array_equal(
        image, expected if dtype == np.uint8 else to_eight_bits(expected)
    )


@pytest.mark.parametrize('said', ['jpeg', 'jpg', 'bgr8; jpeg compressed bgr8', ''])
def test_jpeg(said):
    rows, columns = np.mgrid[:48, :64]
    pixels = np.stack([rows, 2 * columns, 255 - rows], axis=-1).astype(np.uint8)
    image = to_bgr(compress(pixels, '.jpg', said))
    assert image.shape == pixels.shape
    assert np.abs(image.astype(int) - pixels).max() < 8
    grey = to_bgr(compress(pixels[..., 0], '.jpg', 'mono8; jpeg compressed mono8'))
    assert (grey[..., 0] == grey[..., 2]).all()


@pytest.mark.parametrize(
    ('said', 'turned'),
    [
        ('rgb8; png compressed bgr8', False),
        ('rgb16; png compressed bgr16', False),
        ('rgb8', False),
        ('rgb8; png compressed ', True),  # as compressed_image_transport's subscriber reads it
        ('bgr8; png compressed rgb8', True),
    ],
)
def test_order_of_colours_is_what_the_format_says(said, turned):
    pixels = smooth()
    expected = pixels[..., ::-1] if turned else pixels
    np.testing.assert_array_equal(to_bgr(compress(pixels, said=said)), expected)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_png_of_a_bayer_pattern(dtype):
    pixels = smooth(channels=1, dtype=dtype)
    name = f'bayer_grbg{8 * pixels.dtype.itemsize}'
    expected = image_to_bgr(image_to_message(pixels, Header(), name))
    message = compress(pixels, said=f'{name}; png compressed ')
    np.testing.assert_array_equal(to_bgr(message), expected)
    # Before a JPEG its publisher makes it grey.
    grey = to_bgr(compress(smooth(channels=1), '.jpg', f'{name}; jpeg compressed mono8'))
    assert (grey[..., 0] == grey[..., 2]).all()


def test_picture_is_not_turned_by_its_exif_data():
    exif = PillowImage.Exif()
    exif[0x0112] = 6  # turn by a quarter to show
    file = io.BytesIO()
    PillowImage.fromarray(smooth()).save(file, 'JPEG', exif=exif)
    assert to_bgr(CompressedImage(format='jpeg', data=file.getvalue())).shape == (48, 64, 3)


def huge_png(width, height):
    def chunk(kind, body):
        check = zlib.crc32(kind + body)
        return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', check)

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return (
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(bytes(99)))
        + chunk(b'IEND', b'')
    )  # fmt: skip


JPEG = cv2.imencode('.jpg', smooth())[1].tobytes()
PNG = cv2.imencode('.png', smooth())[1].tobytes()
THUMBNAIL = PillowImage.Exif()
THUMBNAIL[0x927C] = JPEG


def jpeg_with_a_picture_inside():
    file = io.BytesIO()
    PillowImage.fromarray(smooth()).save(file, 'JPEG', exif=THUMBNAIL)
    return file.getvalue()


@pytest.mark.parametrize(
    ('data', 'reason', 'words'),
    [
        (b'', 'format', "0 bytes of compressed format 'jpeg' are no picture"),
        (b'\xff\xd8\xff', 'format', 'those understood are JPEG and PNG'),
        (b'GIF89a' + bytes(50), 'format', 'are no picture that is understood'),
        (bytes(1000), 'format', 'are no picture that is understood'),
        (bytes(12) + PNG, 'format', 'are no picture that is understood'),  # compressedDepth
        (JPEG[: len(JPEG) // 2], 'damaged', 'is cut off: it has no end marker'),
        (jpeg_with_a_picture_inside()[:-2], 'damaged', 'is cut off: it has no end marker'),
        (PNG[: len(PNG) // 2], 'damaged', 'a PNG picture of .* bytes cannot be decoded'),
        (PNG[:60] + b'?' + PNG[61:], 'damaged', 'a PNG picture of .* bytes cannot be decoded'),
        (huge_png(2**14, 2**14), 'size', f'{MAX_PIXELS} pixels is the most'),
        (huge_png(2**31 - 1, 2**31 - 1), 'size', f'{MAX_PIXELS} pixels is the most'),
        (huge_png(2**14 + 1, 1), 'size', 'each side has to be'),
    ],
)
@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_refuses_bad_pictures(data, reason, words):
    with pytest.raises(ImageError, match=words) as caught:
        compressed_image_to_bgr(CompressedImage(format='jpeg', data=data))
    assert caught.value.reason == reason


def test_picture_inside_a_picture_is_not_the_end():
    data = jpeg_with_a_picture_inside()
    assert JPEG in data
    assert to_bgr(CompressedImage(format='jpeg', data=data)).shape == (48, 64, 3)
    # Padding as some cameras' drivers leave it.
    assert to_bgr(CompressedImage(format='jpeg', data=data + bytes(9))).shape == (48, 64, 3)


@settings(max_examples=200, deadline=None)
@given(
    whole=st.sampled_from([JPEG, PNG]),
    place=st.integers(0, max(len(JPEG), len(PNG)) - 1),
    value=st.integers(0, 255),
    end=st.integers(0, max(len(JPEG), len(PNG))),
)
def test_damaged_pictures_are_refused_or_decoded(whole, place, value, end):
    data = bytearray(whole[:end])
    if place < len(data):
        data[place] = value
    message = SimpleNamespace(format='jpeg', data=bytes(data))
    reason = None
    try:
        image = compressed_image_to_bgr(message)
    except ImageError as error:
        reason = error.reason
    else:
        assert image.dtype == np.uint8
        assert image.ndim == 3
    assert reason in (None, 'format', 'damaged', 'size', 'encoding')


# -- arrays to messages --


def test_sixteen_bits_are_written_little_endian():
    message = image_to_message(np.array([[1, 258]], np.uint16), Header(), 'mono16')
    assert bytes(message.data) == b'\x01\x00\x02\x01'
    assert (message.step, message.is_bigendian) == (4, 0)


def test_an_only_row_is_packed():
    pixels = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
    assert image_to_message(pixels[:1, :5], Header(), 'mono8').step == 5


def test_image_of_a_slice_is_packed():
    pixels = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    message = image_to_message(pixels[::2, 1:5], Header(frame_id='c'), 'bgr8')
    assert isinstance(message, Image)
    assert (message.height, message.width, message.step) == (3, 4, 12)
    np.testing.assert_array_equal(image_to_bgr(message), pixels[::2, 1:5])

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

import cv2
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from msfc_ros.image_conversion import CHANNELS, ImageError, image_to_bgr
from msfc_ros.images import image_to_message

RNG = np.random.default_rng(0)


def to_bgr(pixels, encoding):
    """Convert without the libraries that are under test."""
    if encoding == 'mono8':
        return np.repeat(pixels[:, :, None], 3, axis=2)
    colours = pixels[:, :, :3]
    return colours[:, :, ::-1] if encoding.startswith('rgb') else colours


def make(encoding, height=5, width=7, padding=0, trim=0):
    channels = CHANNELS[encoding]
    shape = (height, width, channels) if channels > 1 else (height, width)
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    message = image_to_message(pixels, Header(), encoding)
    rows = pixels.reshape(height, -1)
    junk = RNG.integers(0, 256, (height, padding), dtype=np.uint8)
    data = np.concatenate([rows, junk], axis=1).reshape(-1)
    message.data = data[: data.size - trim].tolist()
    message.step = rows.shape[1] + padding
    return message, pixels


@pytest.mark.parametrize('padding', [0, 1, 13])
@pytest.mark.parametrize('encoding', sorted(CHANNELS))
def test_converts(encoding, padding):
    message, pixels = make(encoding, padding=padding)
    image = image_to_bgr(message)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, to_bgr(pixels, encoding))


@pytest.mark.parametrize('encoding', sorted(CHANNELS))
def test_padding_of_the_last_row_may_be_missing(encoding):
    message, pixels = make(encoding, padding=3, trim=3)
    np.testing.assert_array_equal(image_to_bgr(message), to_bgr(pixels, encoding))


@pytest.mark.parametrize('encoding', sorted(CHANNELS))
def test_one_pixel(encoding):
    message, pixels = make(encoding, height=1, width=1)
    np.testing.assert_array_equal(image_to_bgr(message), to_bgr(pixels, encoding))


def test_result_can_be_drawn_on_after_a_copy():
    message, _ = make('bgr8')
    cv2.circle(image_to_bgr(message).copy(), (2, 2), 1, (0, 0, 255))


@pytest.mark.parametrize(
    ('changes', 'reason', 'words'),
    [
        ({'encoding': 'bayer_rggb8'}, 'encoding', "encoding 'bayer_rggb8' are not understood"),
        ({'encoding': ''}, 'encoding', "encoding '' are not understood"),
        ({'height': 0}, 'size', '7 x 0 pixels is not accepted'),
        ({'width': 2**32 - 1}, 'size', 'pixels is not accepted'),
        ({'step': 20}, 'step', 'takes 21 bytes, but the step is 20'),
        ({'step': 22}, 'length', '5 rows of 22 bytes take 110 bytes, but the image has 105'),
        ({'height': 6}, 'length', 'take 126 bytes, but the image has 105'),
        ({'height': 4}, 'length', 'take 84 bytes, but the image has 105'),
        ({'data': []}, 'length', 'but the image has 0'),
    ],
)
def test_refuses(changes, reason, words):
    message, _ = make('bgr8')
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(ImageError, match=words) as caught:
        image_to_bgr(message)
    assert caught.value.reason == reason


def test_sixteen_bits_are_written_little_endian():
    message = image_to_message(np.array([[1, 258]], np.uint16), Header(), 'mono16')
    assert bytes(message.data) == b'\x01\x00\x02\x01'
    assert (message.step, message.is_bigendian) == (4, 0)


def test_image_of_a_slice_is_packed():
    pixels = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    message = image_to_message(pixels[::2, 1:5], Header(frame_id='c'), 'bgr8')
    assert isinstance(message, Image)
    assert (message.height, message.width, message.step) == (3, 4, 12)
    np.testing.assert_array_equal(image_to_bgr(message), pixels[::2, 1:5])

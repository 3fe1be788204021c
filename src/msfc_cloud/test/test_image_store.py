import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_cloud.image_store import CANVAS, ImageStore
from msfc_ros.message_to_image import image_to_bgr
from ros_fixtures import camera_image

SIZE = (120, 160)


def test_finds_by_stamp():
    store = ImageStore()
    images = [camera_image(seconds=seconds) for seconds in (1, 2, 3)]
    for image in images:
        store.keep(image)
    for image in images:
        np.testing.assert_array_equal(store.find(image.header, SIZE), image_to_bgr(image))


def test_a_found_picture_may_be_drawn_on():
    store = ImageStore()
    image = camera_image()
    store.keep(image)
    store.find(image.header, SIZE)[:] = 0
    np.testing.assert_array_equal(store.find(image.header, SIZE), image_to_bgr(image))


@pytest.mark.parametrize('case', ['unknown', 'old', 'other size', 'damaged', 'cleared'])
def test_canvas_where_there_is_no_picture(case):
    store = ImageStore(capacity=2)
    image = camera_image(seconds=1)
    size = SIZE
    if case == 'damaged':
        image.encoding = 'jpeg9000'
    if case != 'unknown':
        store.keep(image)
    if case == 'old':
        for seconds in (2, 3):
            store.keep(camera_image(seconds=seconds))
    if case == 'other size':
        size = (60, 80)
    if case == 'cleared':
        store.clear()
    canvas = store.find(image.header, size)
    assert canvas.shape == (*size, 3)
    assert (canvas == CANVAS).all()

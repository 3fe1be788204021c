import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from msfc_msgs.msg import Instance
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from msfc.geometry.boxes import upright_box
from msfc.geometry.objects import LocatedObject
from msfc.mask_runs import pack_mask
from msfc_depth.depth_messages import (
    DepthError,
    RayTable,
    crops_of,
    depth_from_message,
)
from msfc_depth.depth_store import DepthStore
from msfc_depth.output_messages import (
    POINT,
    Found,
    markers_message,
    points_message,
    pose_of,
)
from msfc_ros.image_to_message import image_to_message


def info(height=12, width=16, d=(), model='plumb_bob', **fields):
    k = [20.0, 0.0, 7.5, 0.0, 21.0, 5.5, 0.0, 0.0, 1.0]
    return CameraInfo(
        height=height, width=width, distortion_model=model, d=list(d), k=k, **fields
    )


def reason_of(call, *arguments):
    with pytest.raises(DepthError) as caught:
        call(*arguments)
    return caught.value.reason, str(caught.value)


# -- depth images --


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 5), st.booleans(), st.booleans())
def test_depth_images_of_both_kinds(height, width, padding, big, metres):
    rng = np.random.default_rng(height * 10 + width)
    whole = rng.integers(0, 65536, (height, width)).astype(np.uint16)
    pixels = whole.astype(np.float32) / 1000 if metres else whole
    order = '>' if big else '<'
    rows = pixels.astype(pixels.dtype.newbyteorder(order)).view(np.uint8).reshape(height, -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=7)
    message = Image(
        height=height, width=width, step=padded.shape[1], is_bigendian=int(big),
        encoding='32FC1' if metres else '16UC1', data=padded.tobytes(),
    )  # fmt: skip
    expected = np.where(whole > 0, whole / np.float32(1000), np.nan)
    np.testing.assert_allclose(depth_from_message(message), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'encoding': 'bgr8'}, 'encoding'),
        ({'height': 0}, 'size'),
        ({'height': 2**31, 'width': 2**31}, 'size'),
        ({'width': 17}, 'length'),
        ({'height': 13}, 'length'),
        ({'height': 11}, 'length'),
        ({'step': 2**32 - 1}, 'length'),
    ],
)
def test_depth_images_that_are_none(change, reason):
    message = image_to_message(np.ones((12, 16), np.uint16), Header(), '16UC1')
    for name, value in change.items():
        setattr(message, name, value)
    assert reason_of(depth_from_message, message)[0] == reason


# -- calibration --


def test_rays_without_distortion():
    table = RayTable()
    rays = table.rays(info(), (12, 16))
    assert rays[0, 0] == pytest.approx([-7.5 / 20, -5.5 / 21])
    assert table.rays(info(), (12, 16)) is rays
    assert table.rays(info(d=[0.0] * 5, model='anything'), (12, 16)) == pytest.approx(rays)


@pytest.mark.parametrize(
    ('model', 'd'),
    [
        ('plumb_bob', [0.1, -0.05, 0.001, -0.002, 0.01]),
        ('rational_polynomial', [0.1, -0.05, 0.001, -0.002, 0.01, 0.02, 0.01, 0.003]),
        ('equidistant', [0.01, -0.002, 0.001, 0.0]),
    ],
)
def test_distortion_is_undone(model, d):
    rays = RayTable().rays(info(d=d, model=model), (12, 16))
    matrix = np.array(info().k).reshape(3, 3)
    points = np.concatenate([rays, np.ones((12, 16, 1))], axis=2).reshape(-1, 1, 3)
    project = cv2.fisheye.projectPoints if model == 'equidistant' else cv2.projectPoints
    pixels = project(points.astype(np.float64), np.zeros(3), np.zeros(3), matrix, np.array(d))[0]
    expected = np.indices((12, 16))[::-1].transpose(1, 2, 0)
    np.testing.assert_allclose(pixels.reshape(12, 16, 2), expected, atol=0.02)


@pytest.mark.parametrize(
    ('message', 'words'),
    [
        (CameraInfo(height=12, width=16), 'the camera is not calibrated'),
        (info(height=6, width=8), 'the calibration is of 8 x 6 pixels'),
        (info(binning_x=2), 'of a binned image or of a region'),
        (info(d=[0.1], model='fov'), "distortion of the model 'fov' is not understood"),
        (info(d=[0.1, 0.1, 0.1]), 'the distortion coefficients [0.1, 0.1, 0.1] are none'),
    ],
)
def test_calibrations_that_are_none(message, words):
    reason, sentence = reason_of(RayTable().rays, message, (12, 16))
    assert reason == 'camera_info'
    assert words in sentence


# -- masks --


def instance(**fields):
    values = {'id': 3, 'x': 2, 'y': 1, 'width': 4, 'height': 2, 'mask': [255, 0] * 4}
    return Instance(**{**values, **fields})


def test_masks():
    (crop,) = crops_of([instance()], (12, 16))
    assert (crop.x, crop.y, crop.image_size) == (2, 1, (12, 16))
    assert crop.mask.tolist() == [[True, False] * 2] * 2
    (packed,) = crops_of([instance(mask=[], packed_mask=pack_mask(crop.mask))], (12, 16))
    assert np.array_equal(packed.mask, crop.mask)
    (empty,) = crops_of([instance(width=0, height=0, mask=[])], (12, 16))
    assert not empty.mask.any()


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'mask': [255] * 7}, 'has 7 bytes, but its box has 4 x 2 pixels'),
        ({'mask': [], 'packed_mask': b'4'}, 'instance 3: the runs of a packed mask have 4 pixels'),
        ({'x': 13}, 'instance 3: a mask reaches to column 17'),
        ({'y': 2**32 - 1}, 'instance 3: a mask reaches to'),
    ],
)
def test_masks_that_are_none(fields, words):
    reason, sentence = reason_of(crops_of, [instance(**fields)], (12, 16))
    assert reason == 'mask'
    assert words in sentence


def test_a_few_bytes_that_claim_huge_masks():
    few = [instance(mask=[], packed_mask=b'0', width=2**15, height=2**12)] * 3
    reason, sentence = reason_of(crops_of, few, (2**12, 2**15))
    assert reason == 'size'
    assert 'masks of 402653184 pixels' in sentence


# -- the history --


def stamped(milliseconds):
    header = Header()
    header.stamp.sec, rest = divmod(milliseconds, 1000)
    header.stamp.nanosec = rest * 10**6
    return Image(header=header)


@given(st.lists(st.integers(5000, 5900), unique=True, max_size=20), st.integers(4000, 7000))
def test_the_nearest_is_found(stamps, wanted):
    store = DepthStore(30)
    for stamp in stamps:
        store.keep(stamped(stamp))
    found = store.nearest(wanted * 10**6)
    if not stamps:
        assert found is None
        return
    image, difference = found
    assert abs(difference) == min(abs(stamp - wanted) for stamp in stamps) * 10**6
    assert image.header == stamped(wanted + difference // 10**6).header


def test_the_oldest_go_and_a_clock_that_was_set_back():
    store = DepthStore(3)
    for stamp in (1000, 1100, 1300, 1200):
        store.keep(stamped(stamp))
    assert store.span() == (1100 * 10**6, 1300 * 10**6)
    store.keep(stamped(100))
    assert store.span() == (100 * 10**6, 100 * 10**6)
    store.clear()
    assert store.span() is None


# -- outputs --


def found(count=50, **fields):
    points = np.random.default_rng(0).random((count, 3), np.float32)
    place = LocatedObject(0, points, upright_box(points, (0, -1, 0)))
    return Found(
        Instance(id=2, track_id=70000, class_id=9, class_name='mug', score=0.5, **fields), place
    )


def test_points():
    header = Header(frame_id='camera')
    message = points_message([found(), found(7)], header, 20)
    assert message.header == header
    assert (message.height, message.width, message.point_step) == (1, 24, 20)
    assert message.row_step == len(message.data) == 24 * 20
    assert [field.name for field in message.fields] == list(POINT.names)
    assert [(field.offset, field.datatype) for field in message.fields] == [
        (0, 7), (4, 7), (8, 7), (12, 6), (16, 4), (18, 4),
    ]  # fmt: skip
    points = np.frombuffer(message.data, POINT)
    assert set(points['track_id'].tolist()) == {70000}
    assert (points['class_id'] == 9).all()
    assert points['x'][0] == found().place.points[0, 0]
    assert points_message([], header, 20).width == 0


def test_markers():
    header = Header(frame_id='camera')
    clear, box, name = markers_message([found()], header, 1.5).markers
    assert clear.action == clear.DELETEALL
    assert (box.ns, box.type, name.ns) == ('boxes', box.CUBE, 'names')
    assert (box.lifetime.sec, box.lifetime.nanosec) == (1, 500_000_000)
    assert name.text == '#70000 mug 0.50'
    assert box.pose == pose_of(found().place.box)
    assert box.scale.x >= box.scale.y > 0
    # y points down here.
    assert name.pose.position.y < box.pose.position.y - box.scale.z / 2


def test_detections():
    pytest.importorskip('vision_msgs', reason='vision_msgs is not installed')
    from msfc_depth.output_messages import detections_message

    message = detections_message([found()], Header(frame_id='camera'))
    (detection,) = message.detections
    assert detection.id == '70000'
    assert detection.bbox.center == pose_of(found().place.box)
    assert detection.results[0].hypothesis.class_id == 'mug'

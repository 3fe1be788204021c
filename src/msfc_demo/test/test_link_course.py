import io
import json

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import Instance, InstanceArray
from rich.console import Console

from msfc.types import Instances
from msfc_demo.link_course import LinkCourse, plot_course
from msfc_demo.link_shape import LinkShape
from msfc_demo.monitor import SentMessage

NAMES = ('ball', 'box')


def message(size, rate=3):
    return SentMessage(size - 100, size, 0.01, 0.1, 8, rate, {})


def truth():
    item = Instance(
        class_name='ball',
        score=1.0,
        x=10,
        y=10,
        width=30,
        height=20,
        mask=np.full(600, 255, np.uint8),
    )
    return InstanceArray(image_height=120, image_width=160, instances=[item])


def found(label):
    mask = torch.zeros(1, 120, 160, dtype=torch.bool)
    mask[:, 10:30, 10:40] = True
    boxes = torch.tensor([[10.0, 10.0, 40.0, 30.0]])
    return Instances(boxes, torch.tensor([0.9]), torch.tensor([label]), mask)


@pytest.fixture
def course():
    """Return ten messages, one a second from 100.5 s on, of which the third is lost."""
    course = LinkCourse(LinkShape(64e3), 'of paper', NAMES)
    for k in range(10):
        stamp = 100 + k, 500_000_000
        course.sent(stamp, message(1000 if k < 5 else 500))
        course.passed(stamp, None if k == 2 else 0.1 * (k + 1))
        if k not in (2, 8):
            course.decoded(stamp, found(0 if k < 5 else 1), truth())
    return course


def test_windows(course):
    first, second = course.windows()
    assert (first.begin, first.end, second.begin) == (0, 5, 5)
    assert (first.sent, first.lost, first.decoded) == (5, 1, 4)
    assert (second.sent, second.lost, second.decoded) == (5, 0, 4)
    assert (first.message_bytes, second.message_bytes) == (1000, 500)
    assert first.kbit_s == pytest.approx(8 * 5 * 1000 / 5 / 1e3)
    assert first.delay_ms == pytest.approx(1e3 * np.median([0.1, 0.2, 0.4, 0.5]))
    assert first.mask_map == pytest.approx(1.0)
    # A box where a ball is.
    assert second.mask_map == pytest.approx(0.0)


def test_a_window_that_was_broken_off_has_its_own_bitrate(course):
    for k in (10, 11):
        course.sent((100 + k, 500_000_000), message(1000))
    last = course.windows()[-1]
    assert (last.begin, last.end) == (10, 12)
    assert last.kbit_s == pytest.approx(8.0)
    assert (last.lost, last.delay_ms, last.mask_map) == (0, None, None)


def test_a_window_in_which_nothing_was_sent(course):
    course.sent((117, 0), message(1000))
    assert [window.sent for window in course.windows()] == [5, 5, 0, 1]


def test_a_repeat_does_not_make_it_lost(course):
    course.passed((100, 500_000_000), None)
    course.passed((102, 500_000_000), 3.0)
    assert [one.delay for one in course.crossings][:3] == [0.1, 0.2, 3.0]
    assert not any(one.lost for one in course.crossings)


def test_what_became_of_a_message_may_be_known_before_the_message(course):
    for second, delay in ((110, 0.3), (111, None)):
        course.passed((second, 500_000_000), delay)
        course.sent((second, 500_000_000), message(500))
    assert course.crossings[-2].delay == 0.3
    assert course.crossings[-1].lost


def test_what_is_unknown_is_not_counted(course):
    course.passed((7, 7), 0.1)
    course.decoded((7, 7), found(0), truth())
    assert len(course.crossings) == 10


def test_table_and_json(course):
    console = Console(file=io.StringIO(), width=80)
    console.print(course.table())
    text = console.file.getvalue()
    assert '64 kbit/s' in text
    assert 'of paper' in text
    assert '0-5' in text
    values = json.loads(json.dumps(course.to_json(), allow_nan=False))
    assert values['windows'][0]['lost'] == 1
    assert [one['known'] for one in values['messages']] == [True] * 10


@pytest.mark.parametrize('nothing_arrives', [False, True])
def test_plot(course, tmp_path, nothing_arrives):
    if nothing_arrives:
        course = LinkCourse(LinkShape(64e3), 'of paper', NAMES)
        course.sent((1, 0), message(1000))
    path = tmp_path / 'link.png'
    plot_course(course, path)
    assert cv2.imread(str(path)) is not None

import io
from xml.etree import ElementTree

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import InstanceArray
from rclpy.serialization import serialize_message

from msfc_demo.arrangements import seldom_announced, stamp_bytes
from msfc_demo.tap import GRAPH, read_record, write_record
from msfc_ros.fast_dds import PROFILE


def test_stamp_is_found_in_a_serialised_message():
    message = InstanceArray()
    message.header.stamp.sec, message.header.stamp.nanosec = 1_790_000_123, 456_789_012
    assert stamp_bytes((1_790_000_123, 456_789_012)) in serialize_message(message)
    assert stamp_bytes((1_790_000_123, 456_789_013)) not in serialize_message(message)


def test_profile_differs_in_how_often_processes_announce_themselves():
    def content(root):
        return [(element.tag, (element.text or '').strip()) for element in root.iter()]

    old = content(ElementTree.parse(PROFILE).getroot())
    new = content(ElementTree.fromstring(seldom_announced(PROFILE)))
    assert [tag for tag, _ in old] == [tag for tag, _ in new]
    changed = {
        before[0].rpartition('}')[2]: after[1]
        for before, after in zip(old, new, strict=True)
        if before != after
    }
    assert changed == {'sec': '3', 'nanosec': '0'}


def test_records_come_out_as_they_went_in():
    stream = io.BytesIO()
    write_record(stream, 'features', b'\0' * 70_000)
    write_record(stream, GRAPH, b'')
    stream.seek(0)
    name, first, data = read_record(stream)
    assert (name, data) == ('features', b'\0' * 70_000)
    name, second, data = read_record(stream)
    assert (name, data) == (GRAPH, b'')
    assert 0 < first <= second
    assert read_record(stream) is None


@pytest.mark.parametrize('cut', [1, 13, 20])
def test_record_of_a_process_that_was_killed(cut):
    stream = io.BytesIO()
    write_record(stream, 'instances', b'12345678')
    cut_off = io.BytesIO(stream.getvalue()[:-cut])
    assert read_record(cut_off) is None

import dataclasses

import numpy as np
import pytest
import torch

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import CompressedFeature, Instance, InstanceArray, LinkReport
from pycocotools import mask as coco_mask
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from msfc.instance_records import MASK_FORMS
from msfc.link import report as link_report
from msfc.types import Instances
from msfc.wire.packet import FeaturePacket
from msfc_ros.image_to_message import to_bytes_field
from msfc_ros.masks import mask_of
from msfc_ros.messages import (
    instances_from_message,
    instances_to_message,
    label_info_message,
    packet_from_message,
    packet_to_message,
    report_from_message,
    report_to_message,
)

NAMES = ('mug', 'ball', 'cone')


def make_header():
    header = Header(frame_id='camera_optical_frame')
    header.stamp.sec, header.stamp.nanosec = 12, 34
    return header


def make_packet():
    return FeaturePacket(
        sequence=7,
        image_height=480,
        image_width=640,
        valid_height=240,
        valid_width=320,
        padded_height=256,
        padded_width=320,
        channels=2,
        feature_height=8,
        feature_width=10,
        rate=4,
        reference=0,
        coding=0,
        model='0123456789abcdef',
        preprocess_time=0.5,
        backbone_time=0.25,
        encode_time=0.125,
        pack_time=0.0625,
        data=bytes(range(80)),
    )


def test_message_has_the_fields_of_the_packet():
    fields = {field.name for field in dataclasses.fields(FeaturePacket)}
    assert set(CompressedFeature.get_fields_and_field_types()) == fields | {'header'}


def test_packet_survives_the_wire():
    packet, header = make_packet(), make_header()
    data = serialize_message(packet_to_message(packet, header))
    message = deserialize_message(data, CompressedFeature)
    assert message.header == header
    received = packet_from_message(message)
    assert bytes(received.data) == packet.data
    assert dataclasses.replace(received, data=packet.data) == packet


@pytest.mark.parametrize('data', [b'', b'\x01\x02', bytearray(3), np.arange(6, dtype='<u2')])
def test_bytes_field(data):
    assert bytes(to_bytes_field(data)) == bytes(data)


def make_instances():
    masks = torch.zeros((3, 20, 30), dtype=torch.bool)
    masks[0, 2:6, 3:9] = True
    masks[1, 10:15, 20:30] = True  # beyond its box
    return Instances(
        boxes=torch.tensor([[2.5, 1.2, 9.7, 6.0], [21.0, 11.0, 25.0, 14.0], [-4, 18, 3, 26]]),
        scores=torch.tensor([0.9, 0.8, 0.7]),
        labels=torch.tensor([2, 0, 1]),
        masks=masks,
    )


def test_instances_to_message():
    message = instances_to_message(make_instances(), make_header(), (20, 30), NAMES)
    assert message.header == make_header()
    assert (message.image_height, message.image_width) == (20, 30)
    boxes = [(i.x, i.y, i.width, i.height) for i in message.instances]
    assert boxes == [(2, 1, 8, 5), (20, 10, 10, 5), (0, 18, 3, 2)]
    assert [i.class_name for i in message.instances] == ['cone', 'mug', 'ball']
    assert [i.id for i in message.instances] == [1, 2, 3]
    assert [i.track_id for i in message.instances] == [0, 0, 0]
    assert all(len(item.packed_mask) and not item.mask for item in message.instances)


@pytest.mark.parametrize('form', MASK_FORMS)
def test_forms_of_masks(form):
    instances = make_instances()
    message = instances_to_message(instances, make_header(), (20, 30), NAMES, form)
    sent = deserialize_message(serialize_message(message), InstanceArray)
    for item, mask in zip(sent.instances, instances.masks.numpy(), strict=True):
        box = slice(item.y, item.y + item.height), slice(item.x, item.x + item.width)
        assert np.array_equal(mask_of(item), mask[box])
        assert bool(item.packed_mask) == (form != 'plain')
        assert bool(item.mask) == (form != 'packed')
        if item.mask:  # what the definition says that users can do
            plain = np.frombuffer(item.mask, np.uint8).reshape(item.height, item.width)
            assert np.array_equal(plain, mask[box] * np.uint8(255))
        if item.packed_mask:
            size = [item.height, item.width]
            unpacked = coco_mask.decode({'size': size, 'counts': bytes(item.packed_mask)})
            assert np.array_equal(unpacked, mask[box])


def test_another_form_of_masks():
    with pytest.raises(ValueError, match="masks are packed, plain, both, not 'png'"):
        instances_to_message(make_instances(), make_header(), (20, 30), NAMES, 'png')


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'mask': [255] * 3}, 'the mask of instance 5 has 3 bytes, but its box has 2 x 2'),
        ({}, 'the mask of instance 5 has 0 bytes'),
        ({'packed_mask': b'12'}, 'instance 5: the runs of a packed mask have 3 pixels'),
        ({'packed_mask': b'P'}, 'instance 5: the bytes of a packed mask are no run lengths'),
    ],
)
def test_masks_that_are_none(fields, words):
    with pytest.raises(ValueError, match=words):
        mask_of(Instance(id=5, width=2, height=2, **fields))


@pytest.mark.parametrize('form', MASK_FORMS)
def test_instances_survive(form):
    instances = dataclasses.replace(make_instances(), track_ids=torch.tensor([7, 0, 2**32 - 1]))
    message = instances_to_message(instances, make_header(), (20, 30), NAMES, form)
    back = instances_from_message(message)
    assert torch.equal(back.masks, instances.masks)
    assert torch.equal(back.labels, instances.labels)
    assert torch.equal(back.track_ids, instances.track_ids)
    torch.testing.assert_close(back.scores, instances.scores)
    assert back.boxes.tolist() == [[2, 1, 10, 6], [20, 10, 30, 15], [0, 18, 3, 20]]


def test_box_outside_the_image_is_empty():
    instances = Instances(
        boxes=torch.tensor([[40.0, 5.0, 50.0, 9.0]]),
        scores=torch.ones(1),
        labels=torch.zeros(1, dtype=torch.int64),
        masks=torch.zeros((1, 20, 30), dtype=torch.bool),
    )
    (item,) = instances_to_message(instances, make_header(), (20, 30), NAMES).instances
    assert item.width == 0
    assert not item.mask
    assert not item.packed_mask
    assert mask_of(item).size == 0


def test_no_instances():
    none = Instances(
        boxes=torch.zeros((0, 4)),
        scores=torch.zeros(0),
        labels=torch.zeros(0, dtype=torch.int64),
        masks=torch.zeros((0, 20, 30), dtype=torch.bool),
    )
    message = instances_to_message(none, make_header(), (20, 30), NAMES)
    back = instances_from_message(message)
    assert len(back) == 0
    assert back.masks.shape == (0, 20, 30)


@pytest.mark.parametrize(
    ('name', 'value', 'words'),
    [('x', 28, 'reaches to column 36'), ('width', 9, 'have 40 pixels, but its box has 9 x 5')],
)
def test_instances_that_cannot_be(name, value, words):
    message = instances_to_message(make_instances(), make_header(), (20, 30), NAMES)
    setattr(message.instances[0], name, value)
    with pytest.raises(ValueError, match=words):
        instances_from_message(message)


def test_keypoints_there_and_back():
    found = Instances(
        boxes=torch.tensor([[1.0, 1, 5, 6], [0, 0, 3, 3]]), scores=torch.tensor([0.9, 0.5]),
        labels=torch.tensor([0, 2]), masks=torch.zeros(2, 8, 9, dtype=torch.bool),
        keypoints=torch.tensor([[[2.5, 3.25, -1.5]], [[0.5, 0.25, 8.0]]]),
    )
    message = instances_to_message(found, make_header(), (8, 9), NAMES)
    message = deserialize_message(serialize_message(message), type(message))
    assert list(message.instances[0].keypoints) == [2.5, 3.25, -1.5]
    assert torch.equal(instances_from_message(message).keypoints, found.keypoints)
    message.instances[1].keypoints = [1.0, 2.0]
    with pytest.raises(ValueError, match='three numbers of each'):
        instances_from_message(message)
    for item in message.instances:
        item.keypoints = []
    assert instances_from_message(message).keypoints is None
    info = label_info_message('0123456789abcdef', NAMES, 0.5, make_header(), ['nose'])
    assert info.keypoint_names == ['nose']


def test_label_info():
    message = label_info_message('0123456789abcdef', NAMES, 0.5, make_header())
    assert [(c.class_id, c.class_name) for c in message.classes] == list(enumerate(NAMES))


def test_reports_on_the_link_there_and_back():
    report = link_report.LinkReport(
        number=1, period=0.25, received=2, received_up_to=3, lost=4, bitrate=5.0, delay=0.5,
        delay_trend=-0.25, delay_samples=6, decode_rate=7.0, share=8.0, weight=2.0,
        acknowledged_key=9, keyframe_wanted=True,
    )  # fmt: skip
    message = report_to_message(report, make_header())
    assert message.header == make_header()
    sent = deserialize_message(serialize_message(message), LinkReport)
    assert report_from_message(sent) == report
    names = {field.name for field in dataclasses.fields(report)}
    assert set(LinkReport.get_fields_and_field_types()) == names | {'header'}


def test_a_report_as_messages_are_made_is_refused():
    with pytest.raises(ValueError, match='period is 0'):
        report_from_message(LinkReport())

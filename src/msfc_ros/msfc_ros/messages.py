"""Between the library's types and the messages, in both directions.

Importing this module does not import torch: a robot without PyTorch needs it.
"""

from __future__ import annotations

import array
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
from msfc_msgs.msg import (
    CompressedFeature,
    Instance,
    InstanceArray,
    LabelClass,
    LabelInfo,
)
from msfc_msgs.msg import LinkReport as LinkReportMessage
from std_msgs.msg import Header

from msfc.instance_records import MASK_FORMS, instance_records
from msfc.link.report import LinkReport
from msfc.types import Instances, Size
from msfc.wire.packet import FeaturePacket, packet_fields
from msfc_ros.image_to_message import to_bytes_field
from msfc_ros.masks import mask_of

if TYPE_CHECKING:
    from torch import Tensor

_REPORT_FIELDS = tuple(field.name for field in fields(LinkReport))

_PACKET_FIELDS = tuple(field.name for field in packet_fields() if field.name != 'data')


def packet_to_message(packet: FeaturePacket, header: Header) -> CompressedFeature:
    """Make a message of a packet.

    Args:
        packet: the packet.
        header: the header of the camera image.
    """
    message = CompressedFeature(header=header)
    for name in _PACKET_FIELDS:
        setattr(message, name, getattr(packet, name))
    message.data = to_bytes_field(packet.data)
    return message


def packet_from_message(message: CompressedFeature) -> FeaturePacket:
    """Return what a message says as a packet; its payload is not copied."""
    values = {name: getattr(message, name) for name in _PACKET_FIELDS}
    return FeaturePacket(**values, data=message.data)


def instances_to_message(
    instances: Instances,
    header: Header,
    size: Size,
    class_names: Sequence[str],
    masks: str = MASK_FORMS[0],
) -> InstanceArray:
    """Make a message of detected or true instances.

    Boxes and masks are those of :func:`msfc.instance_records.instance_records`.

    Args:
        instances: K instances; the masks are K x H x W.
        header: the header of the camera image.
        size: height and width of the camera image in pixels.
        class_names: names of the classes, by label.
        masks: one of :data:`msfc.instance_records.MASK_FORMS`.

    Raises:
        ValueError: if there is no such form of masks.
    """
    found = []
    for record in instance_records(instances, size, class_names, masks):
        arrays = {
            'mask': to_bytes_field(record.mask),
            'packed_mask': to_bytes_field(record.packed_mask),
            'keypoints': array.array('f', record.keypoints.tobytes()),
        }
        found.append(Instance(**{**vars(record), **arrays}))
    return InstanceArray(
        header=header, image_height=size[0], image_width=size[1], instances=found
    )


def instances_from_message(message: InstanceArray) -> Instances:
    """Return the instances of a message; boxes are in whole pixels.

    Raises:
        ValueError: if a box leaves the image, a mask does not have its box's size or is none, or
            instances differ in how many keypoints they have.
    """
    import torch

    height, width, count = message.image_height, message.image_width, len(message.instances)
    masks = torch.zeros((count, height, width), dtype=torch.bool)
    boxes = torch.zeros((count, 4), dtype=torch.float32)
    for index, item in enumerate(message.instances):
        right, bottom = item.x + item.width, item.y + item.height
        if right > width or bottom > height:
            raise ValueError(
                f'instance {item.id} reaches to column {right}, row {bottom} of an image of '
                f'{width} x {height} pixels'
            )
        mask = torch.from_numpy(mask_of(item))
        masks[index, item.y : bottom, item.x : right] = mask
        boxes[index] = torch.tensor([item.x, item.y, right, bottom])
    return Instances(
        boxes=boxes,
        scores=torch.tensor([item.score for item in message.instances], dtype=torch.float32),
        labels=torch.tensor([item.class_id for item in message.instances], dtype=torch.int64),
        masks=masks,
        track_ids=torch.tensor([item.track_id for item in message.instances], dtype=torch.int64),
        keypoints=_keypoints(message),
    )


def _keypoints(message: InstanceArray) -> Tensor | None:
    """Return the keypoints of the instances, K x P x 3; None if they have none."""
    import torch

    values = [np.asarray(item.keypoints, np.float32) for item in message.instances]
    lengths = {len(one) for one in values}
    if not lengths or lengths == {0}:
        return None
    if len(lengths) > 1 or lengths.pop() % 3:
        raise ValueError('the keypoints of the instances are not three numbers of each, all alike')
    return torch.from_numpy(np.stack(values).reshape(len(values), -1, 3))


def label_info_message(
    model: str,
    class_names: Sequence[str],
    score_threshold: float,
    header: Header,
    keypoint_names: Sequence[str] = (),
) -> LabelInfo:
    """Make the message that says what the labels mean.

    Args:
        model: fingerprint of the model.
        class_names: names of the classes, by label.
        score_threshold: instances with a lower score are not published.
        header: when this came to hold.
        keypoint_names: names of the keypoints of an instance, in their order.
    """
    return LabelInfo(
        header=header,
        model=model,
        score_threshold=score_threshold,
        classes=[LabelClass(class_id=i, class_name=name) for i, name in enumerate(class_names)],
        keypoint_names=list(keypoint_names),
    )


def report_to_message(report: LinkReport, header: Header) -> LinkReportMessage:
    """Make a message of a report on the link.

    Args:
        report: the report.
        header: when it was made.
    """
    message = LinkReportMessage(header=header)
    for name in _REPORT_FIELDS:
        setattr(message, name, getattr(report, name))
    return message


def report_from_message(message: LinkReportMessage) -> LinkReport:
    """Return a report on the link.

    Raises:
        ValueError: if it has a value that no receiver sends.
    """
    return LinkReport(**{name: getattr(message, name) for name in _REPORT_FIELDS})

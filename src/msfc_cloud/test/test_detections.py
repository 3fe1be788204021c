import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')
pytest.importorskip('vision_msgs', reason='vision_msgs is not installed')

import torch
from std_msgs.msg import Header

from msfc.types import Instances
from msfc_cloud.detections import detections_message


def test_detections():
    instances = Instances(
        boxes=torch.tensor([[10.0, 20.0, 40.5, 60.0], [0, 0, 8, 8]]),
        scores=torch.tensor([0.75, 0.5]),
        labels=torch.tensor([1, 0]),
        masks=torch.zeros((2, 80, 80), dtype=torch.bool),
        track_ids=torch.tensor([12, 0]),
    )
    header = Header(frame_id='camera_optical_frame')
    message = detections_message(instances, header, ('mug', 'ball'))
    assert message.header == header
    detection, untracked = message.detections
    assert detection.header == header
    assert (detection.id, untracked.id) == ('12', '')
    centre = detection.bbox.center.position
    assert (centre.x, centre.y) == (25.25, 40.0)
    assert (detection.bbox.size_x, detection.bbox.size_y) == (30.5, 40.0)
    (result,) = detection.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ('ball', 0.75)


def test_without_tracking_ids_are_empty():
    instances = Instances(
        torch.zeros((1, 4)),
        torch.ones(1),
        torch.tensor([0]),
        torch.zeros((1, 8, 8), dtype=torch.bool),
    )
    (detection,) = detections_message(instances, Header(), ('mug',)).detections
    assert detection.id == ''

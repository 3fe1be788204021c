"""Instances as vision_msgs/Detection2DArray, where that package is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from std_msgs.msg import Header

from msfc.types import Instances

try:
    from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose
except ImportError:
    Detection2DArray = None

__all__ = ['Detection2DArray', 'detections_message']


def detections_message(
    instances: Instances, header: Header, class_names: Sequence[str]
) -> Any:
    """Return a vision_msgs/Detection2DArray.

    Args:
        instances: K instances.
        header: the header of the camera image.
        class_names: names of the classes, by label.

    Returns:
        The boxes, unrounded, in the order of the label map's values; ``class_id`` is the name of
        the class. ``id`` is the track id, which stays with an object from image to image; empty
        where it is not known.
    """
    message = Detection2DArray(header=header)
    count = len(instances)
    tracks = [0] * count if instances.track_ids is None else instances.track_ids.tolist()
    items = zip(
        instances.boxes.tolist(),
        instances.scores.tolist(),
        instances.labels.tolist(),
        tracks,
        strict=True,
    )
    for (x1, y1, x2, y2), score, label, track_id in items:
        detection = Detection2D(header=header, id=str(track_id or ''))
        detection.bbox.center.position.x = (x1 + x2) / 2
        detection.bbox.center.position.y = (y1 + y2) / 2
        detection.bbox.size_x = x2 - x1
        detection.bbox.size_y = y2 - y1
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id = class_names[label]
        result.hypothesis.score = score
        detection.results.append(result)
        message.detections.append(detection)
    return message

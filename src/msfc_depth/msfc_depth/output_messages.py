"""Located objects as messages: a point cloud, markers, vision_msgs/Detection3DArray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from msfc_msgs.msg import Instance
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from msfc.geometry.boxes import OrientedBox
from msfc.geometry.objects import LocatedObject
from msfc.visualization import class_colour
from msfc_ros.image_to_message import to_bytes_field

try:
    from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose
except ImportError:
    Detection3DArray = None

__all__ = ['Detection3DArray', 'Found', 'detections_message', 'markers_message', 'points_message']

POINT = np.dtype(
    [
        ('x', '<f4'), ('y', '<f4'), ('z', '<f4'),
        ('track_id', '<u4'), ('class_id', '<u2'), ('id', '<u2'),
    ]
)  # fmt: skip
"""A point of the cloud, 20 bytes: metres, then the numbers of its instance."""

DATATYPES = {
    np.dtype('<f4'): PointField.FLOAT32,
    np.dtype('<u4'): PointField.UINT32,
    np.dtype('<u2'): PointField.UINT16,
}

OPACITY = 0.4
"""Of the boxes, so that what is inside can be seen."""

TEXT_HEIGHT = 0.03
"""Least height of the letters in metres; large objects have larger ones."""


@dataclass(frozen=True)
class Found:
    """An instance and where it is."""

    instance: Instance
    place: LocatedObject


def points_message(found: Sequence[Found], header: Header, most: int) -> PointCloud2:
    """Return the points of objects as a cloud.

    Args:
        found: the objects.
        header: the frame and the stamp.
        most: points of an object at most; of more they are taken evenly.

    Returns:
        The fields x, y and z (FLOAT32, metres), track_id (UINT32, 0 where it is not known),
        class_id and id (UINT16, as in ``msfc_msgs/Instance``).
    """
    parts = []
    for item in found:
        points = item.place.thinned(most)
        part = np.empty(len(points), POINT)
        part['x'], part['y'], part['z'] = points.T
        for name in ('track_id', 'class_id', 'id'):
            part[name] = getattr(item.instance, name)
        parts.append(part)
    cloud = np.concatenate(parts) if parts else np.empty(0, POINT)
    assert POINT.fields is not None
    fields = [
        PointField(name=name, offset=offset, datatype=DATATYPES[kind], count=1)
        for name, (kind, offset, *_) in POINT.fields.items()
    ]
    return PointCloud2(
        header=header,
        height=1,
        width=len(cloud),
        fields=fields,
        is_bigendian=False,
        point_step=POINT.itemsize,
        row_step=POINT.itemsize * len(cloud),
        data=to_bytes_field(cloud.tobytes()),
        is_dense=True,
    )


def markers_message(found: Sequence[Found], header: Header, lifetime: float) -> MarkerArray:
    """Return boxes and names of objects for rviz2; they take the place of those before.

    Args:
        found: the objects.
        header: the frame and the stamp.
        lifetime: seconds after which they vanish if no others come; 0 for never.
    """
    whole = int(lifetime)
    kept = Duration(sec=whole, nanosec=round((lifetime - whole) * 1e9))
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for item in found:
        instance, box = item.instance, item.place.box
        blue, green, red = (value / 255 for value in class_colour(instance.class_id))
        colour = {'r': red, 'g': green, 'b': blue}
        common = {'header': header, 'id': instance.id, 'action': Marker.ADD, 'lifetime': kept}
        markers.append(
            Marker(
                **common, ns='boxes', type=Marker.CUBE, pose=pose_of(box), scale=_vector(box.size),
                color=ColorRGBA(**colour, a=OPACITY),
            )
        )
        letters = max(TEXT_HEIGHT, 0.2 * float(box.size[2]))
        above = box.centre + box.rotation[:, 2] * (box.size[2] / 2 + letters)
        markers.append(
            Marker(
                **common, ns='names', type=Marker.TEXT_VIEW_FACING,
                pose=Pose(position=_point(above)), scale=Vector3(z=letters),
                color=ColorRGBA(**colour, a=1.0), text=_name(instance),
            )
        )  # fmt: skip
    return MarkerArray(markers=markers)


def detections_message(found: Sequence[Found], header: Header) -> Any:
    """Return a vision_msgs/Detection3DArray.

    Args:
        found: the objects.
        header: the frame and the stamp.

    Returns:
        The boxes; ``id`` is the track id, empty where it is not known, ``class_id`` the name of
        the class.
    """
    message = Detection3DArray(header=header)
    for item in found:
        instance, pose = item.instance, pose_of(item.place.box)
        detection = Detection3D(header=header, id=str(instance.track_id or ''))
        detection.bbox.center = pose
        detection.bbox.size = _vector(item.place.box.size)
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id = instance.class_name
        result.hypothesis.score = float(instance.score)
        result.pose.pose = pose
        detection.results.append(result)
        message.detections.append(detection)
    return message


def pose_of(box: OrientedBox) -> Pose:
    """Return centre and orientation of a box."""
    x, y, z, w = box.quaternion.tolist()
    return Pose(position=_point(box.centre), orientation=Quaternion(x=x, y=y, z=z, w=w))


def _point(values: Any) -> Point:
    x, y, z = map(float, values)
    return Point(x=x, y=y, z=z)


def _vector(values: Any) -> Vector3:
    x, y, z = map(float, values)
    return Vector3(x=x, y=y, z=z)


def _name(instance: Instance) -> str:
    number = f'#{instance.track_id} ' if instance.track_id else ''
    return f'{number}{instance.class_name} {instance.score:.2f}'

"""The frame that the results are in: the camera's, or another one by tf2, where that is here."""

from __future__ import annotations

from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header

from msfc.geometry.transforms import RigidTransform

try:
    import tf2_ros
except ImportError:
    tf2_ros = None

PATIENCE = Duration(seconds=0.1)
"""How long a transform is waited for: it may come a little later than the images."""


class TransformError(ValueError):
    """There is no transform to the target frame; the message says why."""


class TargetFrame:
    """Follows the transforms from the cameras' frames to another one.

    Args:
        node: the node.
        name: name of the frame; empty for the camera's own.
    """

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self.name = name
        self._buffer: Any = None
        self._listener: Any = None

    def begin(self) -> None:
        """Listen to the transforms, if there is need of any.

        Raises:
            ValueError: if tf2 is not here.
        """
        if not self.name:
            return
        if tf2_ros is None:
            raise ValueError(
                f"target_frame is '{self.name}', but the Python module tf2_ros is not installed: "
                'install it (Ubuntu: apt-get install ros-jazzy-tf2-ros-py), or leave target_frame '
                "empty for results in the camera's frame"
            )
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, self._node)

    def end(self) -> None:
        """Listen no more."""
        listener, self._listener, self._buffer = self._listener, None, None
        if listener is not None:
            listener.unregister()

    def transform(self, header: Header) -> RigidTransform | None:
        """Return what takes a frame's coordinates to the target frame's, at a stamp.

        Args:
            header: the frame and the stamp.

        Returns:
            None where the target is that frame, or no other.

        Raises:
            TransformError: if it is not known.
        """
        buffer = self._buffer
        if buffer is None or header.frame_id == self.name:
            return None
        try:
            found = buffer.lookup_transform(
                self.name, header.frame_id, Time.from_msg(header.stamp), PATIENCE
            ).transform
        except tf2_ros.TransformException as error:
            raise TransformError(
                f"no transform from '{header.frame_id}' to target_frame '{self.name}' at the "
                f"images' stamp: {error}"
            ) from error
        q, t = found.rotation, found.translation
        return RigidTransform.from_quaternion((q.x, q.y, q.z, q.w), (t.x, t.y, t.z))

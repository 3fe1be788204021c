"""What both cameras without hardware share: topics, stamps and the pace of the frames."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from msfc_msgs.msg import InstanceArray
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from msfc_ros.image_to_message import image_to_message
from msfc_ros.node import ManagedNode
from msfc_ros.parameters import declare
from msfc_ros.qos import declare_qos
from msfc_ros.stamps import stamp_text

POLL_PERIOD = 0.05
"""Seconds between two looks for subscribers or overdue results."""


@dataclass(frozen=True)
class CameraFrame:
    """What a camera gives at one instant; the headers are yet to be filled in.

    Attributes:
        image: H x W x 3 uint8 BGR.
        camera_info: its calibration.
        ground_truth: its true instances.
        depth: its depth image, where the camera has any.
    """

    image: np.ndarray
    camera_info: CameraInfo
    ground_truth: InstanceArray
    depth: Image | None = None


class StreamNode(ManagedNode):
    """Publishes ``image_raw``, ``camera_info`` and ``ground_truth`` under one header a frame.

    With the parameter ``rate`` at 0 one frame is on its way at a time: the next is taken when the
    instances of the last have come on ``instances``, so that each is seen through on a machine
    that is slower than the camera.

    A camera implements :meth:`frames`; one with depth says so by :attr:`has_depth`, and
    ``depth/image`` and ``depth/camera_info`` are published as well.

    Args:
        name: default name of the node.
        **kwargs: for :class:`rclpy.node.Node`.
    """

    # What draws with OpenGL has to be opened and used in one thread.
    transitions_in_background = False

    has_depth = False
    """Whether its frames have depth."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, 'capturing', **kwargs)
        self._frame_id: str = declare(
            self,
            'frame_id',
            'camera_optical_frame',
            'Frame of the headers: x to the right, y down, z forward (REP 103).',
            read_only=True,
        )
        self._rate: float = declare(
            self,
            'rate',
            10.0,
            'Frames per second; 0 takes one frame at a time, the next when the instances of the '
            'last have come.',
            limits=(0.0, 120.0),
            read_only=True,
        )
        self._limit: int = declare(
            self,
            'frames',
            0,
            'Frames after which it ends; 0 for no limit.',
            limits=(0, 2**31 - 1),
            read_only=True,
        )
        self._subscribers: int = declare(
            self,
            'wait_for_subscribers',
            1,
            'The first frame is taken when the images have so many subscribers.',
            limits=(0, 1000),
            read_only=True,
        )
        self._patience: float = declare(
            self,
            'result_timeout',
            20.0,
            'With rate 0: seconds after which the instances of a frame are not waited for longer.',
            limits=(0.1, 3600.0),
            read_only=True,
        )
        # Reliable matches subscribers of both kinds.
        self._image_qos = declare_qos(self, 'image', 'the camera images', 'reliable', depth=10)
        self._truth_qos = declare_qos(
            self, 'ground_truth', 'the true instances and the calibration', 'reliable', depth=10
        )
        self._result_qos = declare_qos(
            self, 'instances', 'the instances found', 'reliable', depth=10
        )
        self._out: dict[str, Any] = {}
        self._frames: Iterator[CameraFrame] | None = None
        self._timer: Any = None
        self._awaited: tuple[int, int] | None = None
        self._taken = 0
        self._last = 0.0
        self._ended = False

    # -- for the cameras to implement --

    @abstractmethod
    def frames(self) -> Iterator[CameraFrame]:
        """Return the frames; whatever can go wrong should do so before the first."""

    # -- life cycle --

    def configure(self) -> None:
        """Open the camera."""
        self._frames = self.frames()
        self._taken, self._awaited, self._ended = 0, None, False
        self._out = {
            'image_raw': self.publisher(Image, 'image_raw', self._image_qos),
            'camera_info': self.publisher(CameraInfo, 'camera_info', self._truth_qos),
            'ground_truth': self.publisher(InstanceArray, 'ground_truth', self._truth_qos),
        }
        if self.has_depth:
            self._out |= {
                'depth/image': self.publisher(Image, 'depth/image', self._image_qos),
                'depth/camera_info': self.publisher(
                    CameraInfo, 'depth/camera_info', self._truth_qos
                ),
            }
        self._timer = self.create_timer(
            1 / self._rate if self._rate else POLL_PERIOD,
            self._tick,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    def activate(self) -> None:
        """Wait for subscribers, then begin."""
        if not self._rate:
            self.subscribe(InstanceArray, 'instances', self._result_qos, self._result)
        self.get_logger().info(
            f'{self._rate:g} frames per second' if self._rate else 'one frame at a time'
        )

    def clean_up(self) -> None:
        """Close the camera."""
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
        for publisher in self._out.values():
            self.destroy_lifecycle_publisher(publisher)
        self._out.clear()
        self._frames = None

    # -- frames --

    def _tick(self) -> None:
        image = self._out['image_raw']
        if self._ended or not image.is_activated:
            return
        if not self._taken and image.get_subscription_count() < self._subscribers:
            return
        if self._awaited is not None:
            if time.monotonic() - self._last < self._patience:
                return
            self.statistics.count('without_result')
            self.get_logger().warning(
                f'no instances of frame {self._taken} within {self._patience:g} s: going on'
            )
        self._take()

    def _result(self, message: InstanceArray) -> None:
        stamp = message.header.stamp
        if self._awaited == (stamp.sec, stamp.nanosec):
            self._awaited = None
            self._tick()

    def _take(self) -> None:
        assert self._frames is not None
        frame = next(self._frames, None)
        if frame is None:
            self._end()
            return
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._frame_id)
        if not self._rate:
            self._awaited = (header.stamp.sec, header.stamp.nanosec)
        frame.camera_info.header = header
        frame.ground_truth.header = header
        if frame.depth is not None:
            frame.depth.header = header
            self._out['depth/camera_info'].publish(frame.camera_info)
            self._out['depth/image'].publish(frame.depth)
        # The image last: who has got it has all that belongs to it.
        self._out['ground_truth'].publish(frame.ground_truth)
        self._out['camera_info'].publish(frame.camera_info)
        self._out['image_raw'].publish(image_to_message(frame.image, header, 'bgr8'))
        self._taken += 1
        self._last = time.monotonic()
        self.statistics.count('captured')
        self.debug(lambda: f'image {stamp_text(header)} published as number {self._taken}')
        self.statistics.frame({'instances': len(frame.ground_truth.instances)})
        if self._taken == self._limit:
            self._end()

    def _end(self) -> None:
        self._ended = True
        self.get_logger().info(f'ended after {self._taken} frames')

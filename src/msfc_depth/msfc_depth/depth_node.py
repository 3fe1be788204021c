"""Puts instances into metres: which points are whose, and an upright box around each object.

Subscribes ``instances`` (msfc_msgs/InstanceArray), ``depth/image`` (sensor_msgs/Image, 16UC1 or
32FC1, registered to the camera) and ``depth/camera_info`` (sensor_msgs/CameraInfo). Publishes
``object_markers`` (visualization_msgs/MarkerArray), ``object_points`` (sensor_msgs/PointCloud2)
and, where vision_msgs is installed, ``detections_3d`` (vision_msgs/Detection3DArray). Nothing is
subscribed while nobody subscribes to these: instances cross the link, and depth images are large.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from msfc_msgs.msg import InstanceArray
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from msfc.geometry.depth import check_same_view
from msfc.geometry.objects import locate_objects
from msfc.geometry.transforms import RigidTransform
from msfc_depth.depth_messages import (
    DepthError,
    RayTable,
    crops_of,
    depth_from_message,
)
from msfc_depth.depth_parameters import DepthParameters
from msfc_depth.depth_store import DepthStore
from msfc_depth.output_messages import (
    Detection3DArray,
    Found,
    detections_message,
    markers_message,
    points_message,
)
from msfc_depth.target_frame import TargetFrame, TransformError
from msfc_ros.diagnostics import OK, Finding
from msfc_ros.enable import EnableSwitch
from msfc_ros.node import ManagedNode
from msfc_ros.qos import Subscription
from msfc_ros.stamps import is_stamped, nanoseconds, stamp_text

OUTPUTS: dict[str, type] = {
    'object_markers': MarkerArray,
    'object_points': PointCloud2,
    **({} if Detection3DArray is None else {'detections_3d': Detection3DArray}),
}
"""Names of what is published, and the types of the messages."""

BEGINNING = 5.0
"""Seconds after subscribing in which instances may come whose depth image was before."""

EARLY = ('no_camera_info', 'no_depth')
"""Reasons for which instances are refused then without a word."""

WATCH_PERIOD = 0.2
"""Seconds between two looks for subscribers."""


class DepthNode(ManagedNode):
    """Instances and depth in, objects in metres out.

    Args:
        **kwargs: for :class:`rclpy.node.Node`.

    Raises:
        ValueError: if a parameter has a value that it cannot have.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('msfc_depth', 'locating', **kwargs)
        self._settings = DepthParameters(self)
        self._switch = EnableSwitch(self, 'nothing is located and published')
        self._target = TargetFrame(self, self._settings.target_frame)
        self._store = DepthStore(self._settings.history)
        self._rays = RayTable()
        self._info: CameraInfo | None = None
        self._out: dict[str, Any] = {}
        self._timer: Any = None
        self._inputs_lock = threading.Lock()
        self._inputs: list[Subscription] = []
        self._since = float('-inf')
        self._frames_told: tuple[str, str] | None = None

    # -- life cycle --

    def configure(self) -> None:
        """Create the publishers."""
        self._target.begin()
        self._out = {
            name: self.publisher(kind, name, self._settings.output_qos)
            for name, kind in OUTPUTS.items()
        }
        self.facts['target_frame'] = self._target.name or "the camera's"
        self.get_logger().info(
            f"results in {self._target.name or 'the frame of the depth images'}"
            + ('' if Detection3DArray else '; no vision_msgs here, so no detections_3d')
        )

    def activate(self) -> None:
        """Wait for subscribers."""
        self._frames_told = None
        self.start_worker(self._locate)
        self._watch()
        self._timer = self.create_timer(
            WATCH_PERIOD, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def deactivate(self) -> None:
        """Unsubscribe and finish the instances at work."""
        timer, self._timer = self._timer, None
        if timer is not None:
            self.destroy_timer(timer)
        with self._inputs_lock:
            # All that was subscribed is ended by the base class.
            self._inputs.clear()
        super().deactivate()
        self._forget()

    def clean_up(self) -> None:
        """Destroy the publishers."""
        self._target.end()
        self.facts.clear()
        publishers, self._out = self._out, {}
        for publisher in publishers.values():
            self.destroy_lifecycle_publisher(publisher)

    def listeners(self) -> int:
        """Return the number of subscribers of all outputs."""
        return sum(publisher.get_subscription_count() for publisher in self._out.values())

    def findings(self) -> list[Finding]:
        """Return what there is to tell about an active node, for the diagnostics."""
        if not self._switch.on:
            return self._switch.findings()
        if not self._inputs:
            return [Finding(OK, 'idle: nobody subscribes')]
        return super().findings()

    # -- inputs --

    def _watch(self) -> None:
        """Subscribe while somebody listens."""
        wanted = self._switch.on and self.listeners() > 0
        with self._inputs_lock:
            if wanted == bool(self._inputs) or self._worker is None:
                return
            if wanted:
                # Else the silence before would be judged.
                self.statistics.reset()
                self._since = time.monotonic()
                self._subscribe_inputs()
                return
            for subscription in self._inputs:
                self.unsubscribe(subscription)
            self._inputs.clear()
        self._forget()

    def _subscribe_inputs(self) -> None:
        wanted = self._settings
        qos = wanted.depth_qos
        self._inputs = [
            self.subscribe(CameraInfo, wanted.camera_info_topic, qos, self._calibrate),
            self.subscribe(Image, wanted.depth_topic, qos, self._keep),
            self.work_on_latest(InstanceArray, 'instances', wanted.instances_qos),
        ]

    def _forget(self) -> None:
        self._store.clear()
        self._info = None

    def _calibrate(self, message: CameraInfo) -> None:
        self._info = message

    def _keep(self, message: Image) -> None:
        self.statistics.count('depth_images')
        self._store.keep(message)

    # -- work --

    def _locate(self, messages: Sequence[InstanceArray]) -> None:
        (message,) = messages
        start = time.perf_counter()
        try:
            image, info = self._depth_of(message)
            self._note_frames(message.header.frame_id, image.header.frame_id)
            depth = depth_from_message(image)
            rays = self._rays.rays(info, (image.height, image.width))
            header = Header(
                stamp=message.header.stamp,
                frame_id=image.header.frame_id or message.header.frame_id,
            )
            transform = self._target.transform(header)
            found = self._find(message, depth, rays, transform)
        except (DepthError, TransformError) as error:
            self._refuse(getattr(error, 'reason', 'no_transform'), str(error))
            return
        if self._target.name:
            header.frame_id = self._target.name
        located = time.perf_counter()
        self._publish(found, header)
        self.statistics.count('without_depth', len(message.instances) - len(found))
        self.statistics.frame(
            {
                'locate_ms': (located - start) * 1e3,
                'publish_ms': (time.perf_counter() - located) * 1e3,
                'age_ms': self.age_ms(message.header),
                'objects': len(found),
            }
        )
        self.debug(
            lambda: (
                f'image {stamp_text(message.header)}: {len(found)} of {len(message.instances)} '
                'instances located'
            )
        )

    def _refuse(self, reason: str, sentence: str) -> None:
        if reason in EARLY and time.monotonic() - self._since < BEGINNING:
            self.statistics.count('early')
            self.debug(lambda: f'instances just after subscribing: {sentence}')
        else:
            self.refuse(reason, sentence)

    def _depth_of(self, message: InstanceArray) -> tuple[Image, CameraInfo]:
        """Return the depth image of some instances and its calibration.

        Raises:
            DepthError: if there is none.
        """
        if not is_stamped(message.header):
            raise DepthError('unstamped', 'instances without a stamp have no depth image')
        info = self._info
        if info is None:
            topic = self.resolve_topic_name(self._settings.camera_info_topic)
            raise DepthError('no_camera_info', f"no calibration has come on '{topic}' yet")
        stamp = nanoseconds(message.header)
        nearest = self._store.nearest(stamp)
        if nearest is None:
            topic = self.resolve_topic_name(self._settings.depth_topic)
            raise DepthError('no_depth', f"no depth image has come on '{topic}' yet")
        image, difference = nearest
        allowed = self._settings.max_stamp_difference
        if abs(difference) * 1e-9 > allowed:
            raise DepthError('no_depth', self._too_far(stamp, difference * 1e-9, allowed))
        self.statistics.sample('stamp_difference_ms', difference * 1e-6)
        return image, info

    def _too_far(self, stamp: int, difference: float, allowed: float) -> str:
        """Return why no depth image is near enough, and what to do."""
        words = (
            f'the nearest depth image is {abs(difference):.3g} s '
            f'{"after" if difference > 0 else "before"} the camera image, and '
            f'max_stamp_difference is {allowed:g} s'
        )
        span = self._store.span()
        if span is not None and stamp < span[0]:
            kept = (span[1] - span[0]) * 1e-9
            return (
                f'{words}. Results come later than the {kept:.3g} s of depth images that are '
                f'kept: set history to more than {self._settings.history}'
            )
        return f"{words}. Do camera and depth have one clock, and is the depth camera's rate high?"

    def _note_frames(self, camera: str, depth: str) -> None:
        """Say so, once, where depth and camera have different frames."""
        if camera and depth and camera != depth and self._frames_told != (camera, depth):
            self._frames_told = (camera, depth)
            self.get_logger().warning(
                f"the depth images are of frame '{depth}', the camera's of '{camera}': depth has "
                "to be registered to the camera's view, else masks choose the wrong pixels"
            )

    def _find(
        self,
        message: InstanceArray,
        depth: NDArray[Any],
        rays: NDArray[Any],
        transform: RigidTransform | None,
    ) -> list[Found]:
        least = self._settings.min_score
        instances = [item for item in message.instances if item.score >= least]
        crops = crops_of(instances, (message.image_height, message.image_width))
        if crops:
            try:
                rows, columns = depth.shape
                check_same_view(crops[0].image_size, (rows, columns))
            except ValueError as error:
                raise DepthError('not_registered', str(error)) from error
        places = locate_objects(
            depth,
            rays,
            crops,
            self._settings.points,
            self._settings.up(in_target=bool(self._target.name)),
            self._settings.trim,
            transform,
        )
        return [Found(instances[place.index], place) for place in places]

    def _publish(self, found: Sequence[Found], header: Header) -> None:
        """Publish what was found, in all forms that somebody listens to."""
        settings = self._settings
        makers: dict[str, Callable[[], Any]] = {
            'object_markers': lambda: markers_message(found, header, settings.marker_lifetime),
            'object_points': lambda: points_message(found, header, settings.max_points),
            'detections_3d': lambda: detections_message(found, header),
        }
        for name, publisher in self._out.items():
            if publisher.get_subscription_count():
                publisher.publish(makers[name]())

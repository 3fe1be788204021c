"""Shows or records what the pair sends and finds, in Rerun: a viewer without rviz2.

Subscribes ``image_raw`` and ``camera_info``, ``features``, ``instances``, and what ``msfc_depth``
publishes: ``object_markers`` and ``object_points``. Publishes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from msfc_msgs.msg import CompressedFeature, InstanceArray
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from msfc_ros.diagnostics import Finding
from msfc_ros.message_to_image import ImageError, image_to_bgr
from msfc_ros.node import ManagedNode
from msfc_ros.parameters import declare
from msfc_ros.qos import declare_qos
from msfc_viewer.recording import Recording
from msfc_viewer.screen import WEB_PORT, has_screen

SHOWS = ('auto', 'window', 'web', 'none')
"""Values of ``show``; auto is a window where there is a screen, else web."""


class ViewerNode(ManagedNode):
    """Messages in, a Rerun recording out.

    Args:
        **kwargs: for :class:`rclpy.node.Node`.

    Raises:
        ValueError: if a parameter has a value that it cannot have.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('msfc_viewer', 'showing', **kwargs)
        self._show: str = declare(
            self,
            'show',
            'auto',
            "Where it is shown: in a 'window', to browsers ('web'), nowhere ('none'), or 'auto', "
            'a window where there is a screen, else web.',
            choices=SHOWS,
            read_only=True,
        )
        self._record: str = declare(
            self, 'record', '', 'File (.rrd) that it is recorded to; empty: none.', read_only=True
        )
        self._port: int = declare(
            self,
            'web_port',
            WEB_PORT,
            'Port of the pages for browsers; the next one is that of the data.',
            limits=(1, 65534),
            read_only=True,
        )
        self._min_score: float = declare(
            self,
            'min_score',
            0.0,
            'Instances with a lower score are not shown.',
            limits=(0.0, 1.0),
            read_only=True,
        )
        self._image_topic: str = declare(
            self, 'image_topic', 'image_raw', 'Topic of the camera images.', read_only=True
        )
        self._image_qos = declare_qos(
            self, 'image', 'the camera images', 'best_available', depth=5
        )
        self._result_qos = declare_qos(
            self, 'results', 'what is sent and found', 'best_available', depth=10
        )
        self._recording: Recording | None = None

    def configure(self) -> None:
        """Open the viewer and the file.

        Raises:
            ValueError: if there is nothing to do, or it cannot be opened.
        """
        show = self._show
        if show == 'auto':
            show = 'window' if has_screen() else 'web'
        if show == 'none' and not self._record:
            raise ValueError("show is 'none' and record is empty: there is nothing to do")
        recording = Recording()
        self._recording = recording
        if self._record:
            path = Path(self._record).expanduser().absolute()
            recording.save(path)
            self.get_logger().info(f'recording to {path}; to open it: rerun {path}')
        if show == 'window':
            recording.show()
        elif show == 'web':
            self.get_logger().info(f'open {recording.serve(self._port)} in a browser')

    def activate(self) -> None:
        """Subscribe."""
        recording = self._recording
        assert recording is not None
        images, results = self._image_qos, self._result_qos
        takers: list[tuple[type, str, Any, Callable[[Any], None]]] = [
            (Image, self._image_topic, images, self._take_image),
            (CameraInfo, 'camera_info', results, recording.calibration),
            (CompressedFeature, 'features', results, recording.features),
            (InstanceArray, 'instances', results, self._take_instances),
            (MarkerArray, 'object_markers', results, recording.objects),
            (PointCloud2, 'object_points', results, recording.points),
        ]
        for kind, topic, qos, take in takers:
            self.subscribe(kind, topic, qos, take)

    def clean_up(self) -> None:
        """Close the file and the connection to the viewer."""
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.close()

    def findings(self) -> list[Finding]:
        """Return what there is to tell about an active node, for the diagnostics."""
        return []

    def _take_image(self, message: Image) -> None:
        assert self._recording is not None
        try:
            image = image_to_bgr(message)
        except ImageError as error:
            self.refuse(error.reason, str(error))
            return
        self._recording.image(message.header, image)

    def _take_instances(self, message: InstanceArray) -> None:
        assert self._recording is not None
        size = len(serialize_message(message))
        message.instances = [i for i in message.instances if i.score >= self._min_score]
        self._recording.instances(message, self.age_ms(message.header), size)
        self.statistics.frame({'instances': len(message.instances)})

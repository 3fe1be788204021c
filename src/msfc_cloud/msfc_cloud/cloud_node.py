"""The cloud-side node: takes the latest compressed feature pyramid, finds the instances in it.

Subscribes ``features`` (msfc_msgs/CompressedFeature). Publishes, with the camera's header:
``instances`` (msfc_msgs/InstanceArray), ``label_map`` (sensor_msgs/Image, mono16), ``overlay``
(sensor_msgs/Image, bgr8), ``detections`` (vision_msgs/Detection2DArray, where that package is
installed), and once ``label_info`` (msfc_msgs/LabelInfo). What nobody listens to is not made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from msfc_msgs.msg import CompressedFeature, InstanceArray, LabelInfo
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from msfc.codec.packet import DecodeLimits, PacketError
from msfc.detectors.base import Instances, Size
from msfc.pipeline import CloudPipeline
from msfc.visualization import draw_instances, label_map
from msfc_cloud.detections import Detection2DArray, detections_message
from msfc_cloud.pictures import PictureStore
from msfc_ros.images import image_to_message
from msfc_ros.messages import (
    age,
    instances_to_message,
    label_info_message,
    packet_from_message,
)
from msfc_ros.model import ModelParameters
from msfc_ros.node import ManagedNode
from msfc_ros.parameters import declare
from msfc_ros.qos import LATCHED, declare_qos


class CloudNode(ManagedNode):
    """Compressed features in, instances out.

    Args:
        **kwargs: for :class:`rclpy.node.Node`.

    Raises:
        ValueError: if a parameter has a value that it cannot have.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('msfc_cloud', 'decoding', **kwargs)
        self._model_parameters = ModelParameters.declare(self)
        self._score_threshold: float = declare(
            self,
            'score_threshold',
            0.5,
            'Instances with a lower score are not published. Can be changed at any time.',
            limits=(0.0, 1.0),
        )
        self._max_age: float = declare(
            self,
            'max_age',
            0.0,
            'Features of images older than this, in seconds, are dropped before decoding; 0 takes '
            "all. It compares two hosts' clocks. Can be changed at any time.",
            limits=(0.0, 3600.0),
        )
        self._limits = DecodeLimits(
            **{
                field.name: declare(
                    self,
                    f'limits.{field.name}',
                    field.default,
                    f'Refuse features beyond this: {field.name.replace("_", " ")}.',
                    limits=(1, 2**31 - 1),
                    read_only=True,
                )
                for field in fields(DecodeLimits)
            }
        )
        self._features_topic: str = declare(
            self, 'features_topic', 'features', 'Topic of what the edge sends.', read_only=True
        )
        self._topics: dict[str, str] = {
            name: declare(self, f'{name}_topic', name, f'Topic of {what}.', read_only=True)
            for name, what in (
                ('instances', 'the instances'),
                ('label_map', 'the label map'),
                ('label_info', 'the meaning of the labels'),
                ('detections', 'the instances as vision_msgs/Detection2DArray'),
                ('overlay', 'the picture with the instances drawn in'),
            )
        }
        self._picture_topic: str = declare(
            self,
            'overlay_image_topic',
            '',
            'Topic of camera images to draw the overlay on; empty draws on a dark canvas, since '
            'the features hold no picture.',
            read_only=True,
        )
        self._features_qos = declare_qos(self, 'features', 'what the edge sends', 'reliable')
        # Reliable, so that subscribers of both kinds match.
        self._output_qos = declare_qos(self, 'output', 'the outputs', 'reliable')
        self._picture_qos = declare_qos(
            self, 'overlay_image', 'the images for the overlay', 'best_effort', depth=5
        )
        self.add_post_set_parameters_callback(self._apply_parameters)
        self._pipeline: CloudPipeline | None = None
        self._pictures = PictureStore()
        self._out: dict[str, Any] = {}

    def configure(self) -> None:
        """Load the model."""
        model = self._model_parameters.load()
        self._pipeline = CloudPipeline(model, self._limits)
        types = {'instances': InstanceArray, 'label_map': Image, 'overlay': Image}
        if Detection2DArray is not None:
            types['detections'] = Detection2DArray
        self._out = {
            name: self.publisher(kind, self._topics[name], self._output_qos)
            for name, kind in types.items()
        }
        self._out['label_info'] = self.publisher(LabelInfo, self._topics['label_info'], LATCHED)
        self.hardware = str(model.detector.device)
        self.get_logger().info(
            f"model '{self._model_parameters.model}' ({self._pipeline.fingerprint}) on "
            f"{self.hardware}: C' = {model.codec.config.code_channels}, "
            f'{len(model.class_names)} classes'
            + ('' if Detection2DArray else '; no vision_msgs here, so no detections')
        )

    def activate(self) -> None:
        """Say what the labels mean and subscribe to the features."""
        self._publish_label_info()
        self.work_on_latest(
            CompressedFeature, self._features_topic, self._features_qos, self._decode
        )
        if self._picture_topic:
            self.subscribe(
                Image, self._picture_topic, self._picture_qos, self._keep_picture
            )

    def clean_up(self) -> None:
        """Let the model go."""
        self._pipeline = None
        self._pictures.clear()
        for publisher in self._out.values():
            self.destroy_lifecycle_publisher(publisher)
        self._out.clear()

    def listeners(self) -> int:
        """Return the number of subscribers of the instances."""
        return self._out['instances'].get_subscription_count() if 'instances' in self._out else 0

    def _decode(self, message: CompressedFeature) -> None:
        pipeline = self._pipeline
        assert pipeline is not None
        age = self._age(message.header)
        if self._max_age and age > self._max_age:
            self.statistics.count('stale')
            return
        try:
            result = pipeline.decode(packet_from_message(message))
        except PacketError as error:
            self.refuse(str(error.reason), str(error))
            return
        start = time.perf_counter()
        instances = result.instances.above(self._score_threshold)
        size = (message.image_height, message.image_width)
        self._publish(instances, message.header, size)
        self.statistics.count('decoded')
        self.statistics.frame(
            {
                **{f'{stage}_ms': value * 1e3 for stage, value in result.durations.items()},
                'publish_ms': (time.perf_counter() - start) * 1e3,
                'age_ms': self._age(message.header) * 1e3,
                'payload_bytes': len(message.data),
                'instances': len(instances),
            }
        )

    def _publish(self, instances: Instances, header: Header, size: Size) -> None:
        assert self._pipeline is not None
        names = self._pipeline.model.class_names

        def overlay() -> Image:
            picture = self._pictures.find(header, size)
            return image_to_message(draw_instances(picture, instances, names), header, 'bgr8')

        makers: dict[str, Callable[[], Any]] = {
            'instances': lambda: instances_to_message(instances, header, size, names),
            'label_map': lambda: image_to_message(label_map(instances, size), header, 'mono16'),
            'detections': lambda: detections_message(instances, header, names),
            'overlay': overlay,
        }
        for name, make in makers.items():
            publisher = self._out.get(name)
            if publisher is not None and publisher.get_subscription_count():
                publisher.publish(make())

    def _publish_label_info(self) -> None:
        assert self._pipeline is not None
        header = Header(stamp=self.get_clock().now().to_msg())
        self._out['label_info'].publish(
            label_info_message(
                self._pipeline.fingerprint,
                self._pipeline.model.class_names,
                self._score_threshold,
                header,
            )
        )

    def _keep_picture(self, message: Image) -> None:
        if self._out['overlay'].get_subscription_count():
            self._pictures.keep(message)

    def _age(self, header: Header) -> float:
        """Return the seconds since the image was taken, by this host's clock."""
        return age(self.get_clock().now().nanoseconds, header)

    def _apply_parameters(self, parameters: Sequence[Parameter]) -> None:
        for parameter in parameters:
            if parameter.name == 'max_age':
                self._max_age = parameter.value
            elif parameter.name == 'score_threshold':
                self._score_threshold = parameter.value
                if self._pipeline is not None:
                    self._publish_label_info()

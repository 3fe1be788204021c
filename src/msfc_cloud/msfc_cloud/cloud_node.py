"""The cloud-side node: takes the latest compressed feature pyramid, finds the instances in it.

Subscribes ``features`` (msfc_msgs/CompressedFeature). Publishes, with the camera's header:
``instances`` (msfc_msgs/InstanceArray), ``label_map`` (sensor_msgs/Image, mono16), ``overlay``
(sensor_msgs/Image, bgr8), ``detections`` (vision_msgs/Detection2DArray, where that package is
installed), and once ``label_info`` (msfc_msgs/LabelInfo). What nobody listens to is not made.

A message is checked as it comes, so that one that cannot be decoded, or that is older than one
before it, never takes the place of one that is wanted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from msfc_msgs.msg import CompressedFeature, InstanceArray, LabelInfo
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from msfc.codec.accounting import payload_bpfe
from msfc.codec.packet import DecodeLimits, PacketError, RefusalReason, is_fingerprint
from msfc.detectors.base import Instances, Size
from msfc.pipeline import CloudPipeline
from msfc.visualization import draw_instances, label_map
from msfc_cloud.detections import Detection2DArray, detections_message
from msfc_cloud.pictures import PictureStore
from msfc_cloud.stream import Order, Stream
from msfc_ros.diagnostics import WARN, Finding
from msfc_ros.images import image_to_message
from msfc_ros.messages import instances_to_message, label_info_message, packet_from_message
from msfc_ros.model import ModelParameters, free_memory
from msfc_ros.node import LOG_PERIOD, ManagedNode
from msfc_ros.parameters import LiveParameters, declare
from msfc_ros.qos import LATCHED, declare_qos
from msfc_ros.stamps import age, nanoseconds

OVERLAY_PERIOD = 0.5
"""Seconds between two looks whether somebody listens to the overlay."""

LIMITS = {
    'max_image_side': 'Longest side of a camera image in pixels; features beyond it are refused.',
    'max_image_pixels': 'Pixels of a camera image; features beyond it are refused.',
    'max_padded_side': 'Longest side of the network input in pixels; features beyond it are '
    'refused.',
    'max_payload_bytes': 'Bytes of a payload; features beyond it are refused.',
    'max_mask_pixels': 'Pixels of the masks of all instances of an image, a byte each; of more '
    'instances the surest are kept. At least max_image_pixels.',
}
"""What :class:`msfc.codec.packet.DecodeLimits` limits, for the descriptions of the parameters."""

COUNTED = {Order.RESTARTED: 'restarted', Order.LATE: 'reordered', Order.REPEATED: 'repeated'}
"""Names of what is counted of messages that are not simply next, for the diagnostics."""


class CloudNode(ManagedNode):
    """Compressed features in, instances out.

    Args:
        **kwargs: for :class:`rclpy.node.Node`.

    Raises:
        ValueError: if a parameter has a value that it cannot have.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('msfc_cloud', 'decoding', **kwargs)
        self._model_parameters = ModelParameters(self)
        live = LiveParameters(self)
        self._score_threshold: float = live.declare(
            'score_threshold',
            0.5,
            'Instances with a lower score are not published.',
            self._set_score_threshold,
            limits=(0.0, 1.0),
        )
        self._max_age: float = live.declare(
            'max_age',
            0.0,
            'Features of images older than this, in seconds, are dropped before decoding; 0 takes '
            "all. It compares two hosts' clocks.",
            self._set_max_age,
            limits=(0.0, 3600.0),
        )
        self._overlay: bool = live.declare(
            'overlay',
            True,
            'Draw the overlay, as long as somebody listens to it.',
            self._set_overlay,
        )
        self._limits = DecodeLimits(
            **{
                field.name: declare(
                    self,
                    f'limits.{field.name}',
                    field.default,
                    LIMITS[field.name],
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
        self._pipeline: CloudPipeline | None = None
        self._stream: Stream | None = None
        self._foreign = ''
        self._pictures = PictureStore()
        self._picture_lock = threading.Lock()
        self._picture_timer: Any = None
        self._picture_subscription: Any = None
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
        self.facts['fingerprint'] = self._pipeline.fingerprint
        self.get_logger().info(
            f"model '{self._model_parameters.model}' ({self._pipeline.fingerprint}) on "
            f"{self.hardware}: C' = {model.codec.config.code_channels}, "
            f'{len(model.class_names)} classes'
            + ('' if Detection2DArray else '; no vision_msgs here, so no detections')
        )

    def activate(self) -> None:
        """Say what the labels mean and subscribe to the features."""
        self._stream = Stream(self.resolve_topic_name(self._features_topic))
        self._foreign = ''
        self._publish_label_info()
        self.work_on_latest(
            CompressedFeature,
            self._features_topic,
            self._features_qos,
            self._decode,
            accept=self._accept,
        )
        if self._picture_topic:
            self._picture_timer = self.create_timer(
                OVERLAY_PERIOD,
                self._watch_overlay,
                clock=Clock(clock_type=ClockType.STEADY_TIME),
            )

    def deactivate(self) -> None:
        """Unsubscribe and finish the message at work."""
        with self._picture_lock:
            if self._picture_timer is not None:
                self.destroy_timer(self._picture_timer)
            self._picture_timer = self._picture_subscription = None
        self._pictures.clear()
        super().deactivate()

    def clean_up(self) -> None:
        """Let the model go."""
        self._pipeline = None
        self._model_parameters.release()
        self.facts.clear()
        out, self._out = self._out, {}
        for publisher in out.values():
            self.destroy_lifecycle_publisher(publisher)
        free_memory()

    def listeners(self) -> int:
        """Return the number of subscribers of the instances."""
        instances = self._out.get('instances')
        return 0 if instances is None else instances.get_subscription_count()

    def findings(self) -> list[Finding]:
        """Return what there is to tell about an active node, for the diagnostics."""
        found = super().findings()
        if str(RefusalReason.FOREIGN_MODEL) in self.statistics.recently_refused():
            own = self.facts.get('fingerprint')
            found.append(Finding(WARN, f'the edge has model {self._foreign}, here is {own}'))
        stream = self._stream
        if stream is not None and (senders := self.count_publishers(stream.name)) > 1:
            found.append(Finding(WARN, f'{senders} nodes publish {stream.name}'))
        return found

    def values(self) -> Mapping[str, str]:
        """Return what is shown of this node beside its statistics, for the diagnostics."""
        return {'foreign_fingerprint': self._foreign} if self._foreign else {}

    def _accept(self, message: CompressedFeature) -> bool:
        """Return whether a message that has just come can be decoded and is news."""
        pipeline, stream = self._pipeline, self._stream
        assert pipeline is not None
        assert stream is not None
        try:
            pipeline.validate(packet_from_message(message))
        except PacketError as error:
            if error.reason is RefusalReason.FOREIGN_MODEL:
                self._foreign = message.model if is_fingerprint(message.model) else 'unnamed'
            self.refuse(str(error.reason), str(error))
            return False
        arrival = stream.note(message.sequence, nanoseconds(message.header))
        if arrival.lost:
            self.statistics.count('lost', arrival.lost)
        if arrival.order in COUNTED:
            self.statistics.count(COUNTED[arrival.order])
        if arrival.order is Order.RESTARTED:
            self.get_logger().info(
                f'{stream.name} begins anew with number {message.sequence}: its sender was '
                'restarted, or a recording is played again',
                throttle_duration_sec=LOG_PERIOD,
            )
        return arrival.order.is_news

    def _decode(self, message: CompressedFeature) -> None:
        pipeline = self._pipeline
        assert pipeline is not None
        if self._max_age and self._age(message.header) > self._max_age:
            self.statistics.count('stale')
            return
        packet = packet_from_message(message)
        result = pipeline.decode(packet)
        if pipeline is not self._pipeline:
            return  # it took so long that the node has been cleaned up meanwhile
        start = time.perf_counter()
        instances = result.instances.above(self._score_threshold)
        self._publish(instances, message.header, packet.image_size)
        self.statistics.count('decoded')
        detector = pipeline.model.detector
        self.statistics.frame(
            {
                **{f'{stage}_ms': value * 1e3 for stage, value in result.durations.items()},
                'publish_ms': (time.perf_counter() - start) * 1e3,
                'age_ms': self._age(message.header) * 1e3,
                'payload_bytes': packet.payload_bytes,
                'payload_bpfe': payload_bpfe(
                    packet.payload_bytes,
                    detector.pyramid_sizes(packet.padded_size),
                    detector.feature_channels,
                ),
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
            if name == 'overlay' and not self._overlay:
                continue
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

    def _watch_overlay(self) -> None:
        """Subscribe to the pictures while somebody listens to the overlay: they are large."""
        with self._picture_lock:
            if self._picture_timer is None:
                return
            wanted = self._overlay and self._out['overlay'].get_subscription_count() > 0
            if wanted and self._picture_subscription is None:
                self._picture_subscription = self.subscribe(
                    Image, self._picture_topic, self._picture_qos, self._pictures.keep
                )
            elif not wanted and self._picture_subscription is not None:
                self.unsubscribe(self._picture_subscription)
                self._picture_subscription = None
                self._pictures.clear()

    def _age(self, header: Header) -> float:
        """Return the seconds since the image was taken, by this host's clock."""
        return age(self.get_clock().now().nanoseconds, header)

    def _set_overlay(self, on: bool) -> None:
        self._overlay = on

    def _set_max_age(self, seconds: float) -> None:
        self._max_age = seconds

    def _set_score_threshold(self, threshold: float) -> None:
        self._score_threshold = threshold
        # Else it is published when the node becomes active.
        if self.state in ('activating', 'active'):
            self._publish_label_info()

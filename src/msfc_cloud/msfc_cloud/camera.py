"""What the cloud has for each camera: its topics, its numbers, its counts, its pictures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from msfc_msgs.msg import CompressedFeature, InstanceArray, LabelInfo
from msfc_msgs.msg import LinkReport as LinkReportMessage
from numpy.typing import NDArray
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from msfc.link.receiver import LinkReceiver
from msfc.link.report import LinkReport
from msfc.pipeline.references import KeyStore
from msfc.pipeline.tracking import InstanceTracker
from msfc.types import Instances, Size
from msfc.visualization import draw_instances, label_map
from msfc.wire.message_size import compressed_feature_bytes
from msfc_cloud.detections import Detection2DArray, detections_message
from msfc_cloud.image_store import ImageStore
from msfc_cloud.sequence_tracker import Arrival, Order, SequenceTracker
from msfc_ros.diagnostics import WARN, Finding
from msfc_ros.image_to_message import image_to_message
from msfc_ros.messages import instances_to_message, report_to_message
from msfc_ros.node import LOG_PERIOD, ManagedNode
from msfc_ros.qos import LATCHED
from msfc_ros.stamps import nanoseconds, sent_and_received
from msfc_ros.statistics import Statistics

OUTPUTS: dict[str, type] = {
    'instances': InstanceArray,
    'label_map': Image,
    'overlay': Image,
    **({} if Detection2DArray is None else {'detections': Detection2DArray}),
}
"""Names of what is published per image, and the types of the messages."""

HEAD_OUTPUTS: dict[str, type] = {'semantic': Image}
"""The same for what further heads make: published where the model has the head."""

COUNTED = {Order.RESTARTED: 'restarted', Order.LATE: 'reordered', Order.REPEATED: 'repeated'}
"""Names of what is counted of messages that are not simply next, for the diagnostics."""


def info_name(output: str) -> str:
    """Return the name of what says what the pixels of a head's output mean."""
    return f'{output}_info'


class Camera:
    """One edge's features and what is made of them.

    Args:
        node: the node.
        name: namespace of the camera's topics, relative to the node's; empty for the node's own.
        topics: topic of the ``features``, of each of :data:`OUTPUTS` and :data:`HEAD_OUTPUTS`, the
            latter's with ``_info`` behind it, of the ``label_info``, the ``link_report`` and, if
            there is one, of the camera images for the ``overlay``, named
            ``picture``.
        weight: of its edge among those that share a budget.

    Attributes:
        statistics: counts and means for the diagnostics, also counted in the node's.
        features_topic: resolved name of the topic of the features.
        foreign: fingerprint of the foreign model that last sent something.
        link: what has arrived over the link.
        keys: the key frames of its edge.
        weight: of its edge among those that share a budget.
        tracker: follows its instances.
    """

    def __init__(
        self, node: ManagedNode, name: str, topics: Mapping[str, str], weight: float = 1.0
    ) -> None:
        self.name = name
        self.weight = weight
        self.link = LinkReceiver(1.0)
        self.keys = KeyStore()
        self.tracker = InstanceTracker()
        self.statistics = Statistics(whole=node.statistics)
        self._node = node
        self._topics = topics
        self.features_topic = node.resolve_topic_name(topics['features'])
        self.foreign = ''
        self._sequences = SequenceTracker(self.features_topic)
        self._publishers: dict[str, Any] = {}
        self._images = ImageStore()
        self._picture_lock = threading.Lock()
        self._picture_subscription: Any = None
        self._active = False
        self._told = float('-inf')

    def advertise(
        self, qos: QoSProfile, report_qos: QoSProfile, heads: Iterable[str] = ()
    ) -> None:
        """Create the publishers.

        Args:
            qos: of the outputs.
            report_qos: of the reports on the link.
            heads: those of :data:`HEAD_OUTPUTS` that the model has a head for.
        """
        for name in heads:
            self._publishers[name] = self._node.publisher(
                HEAD_OUTPUTS[name], self._topics[name], qos
            )
            self._publishers[info_name(name)] = self._node.publisher(
                LabelInfo, self._topics[info_name(name)], LATCHED
            )
        for name, kind in OUTPUTS.items():
            self._publishers[name] = self._node.publisher(kind, self._topics[name], qos)
        self._publishers['label_info'] = self._node.publisher(
            LabelInfo, self._topics['label_info'], LATCHED
        )
        self._publishers['link_report'] = self._node.publisher(
            LinkReportMessage, self._topics['link_report'], report_qos
        )

    def withdraw(self) -> None:
        """Destroy the publishers."""
        publishers, self._publishers = self._publishers, {}
        for publisher in publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)

    def begin(self, report_period: float) -> None:
        """Know of nothing before.

        Args:
            report_period: seconds between two reports on the link.
        """
        self.link = LinkReceiver(report_period)
        self.keys.clear()
        self.statistics.reset()
        self._sequences = SequenceTracker(self.features_topic)
        self.tracker.restart()
        self.foreign = ''
        self._active = True

    def end(self) -> None:
        """Forget the pictures; the node has ended, or will end, all subscriptions."""
        with self._picture_lock:
            self._active = False
            self._picture_subscription = None
        self._images.clear()
        self.keys.clear()
        self.statistics.reset()

    def listeners(self, output: str) -> int:
        """Return the number of subscribers of an output."""
        publisher = self._publishers.get(output)
        return 0 if publisher is None else publisher.get_subscription_count()

    def wanted_heads(self) -> frozenset[str]:
        """Return those of :data:`HEAD_OUTPUTS` that somebody listens to."""
        return frozenset(name for name in HEAD_OUTPUTS if self.listeners(name))

    def note(self, message: CompressedFeature, info: Mapping[str, int]) -> Arrival:
        """Take note of a message of this model, and count what its number tells.

        Args:
            message: the message.
            info: what the middleware knows of it.
        """
        sequence = message.sequence
        arrival = self._sequences.note(sequence, nanoseconds(message.header))
        self._note_link(message, info, arrival)
        if arrival.order is Order.RESTARTED:
            # Zero, which stands for none, is no key frame's number.
            self.keys.restart(keep=sequence - 1 if arrival.dropped else 0)
        if arrival.lost:
            self.statistics.count('lost', arrival.lost)
        if arrival.order in COUNTED:
            self.statistics.count(COUNTED[arrival.order])
        now = time.monotonic()
        if arrival.order is Order.RESTARTED and now - self._told >= LOG_PERIOD:
            self._told = now
            self._node.get_logger().info(
                f'{self.features_topic} begins anew with number {sequence}: its sender was '
                'restarted, or a recording is played again'
            )
        return arrival

    def _note_link(
        self, message: CompressedFeature, info: Mapping[str, int], arrival: Arrival
    ) -> None:
        if arrival.order is Order.REPEATED:
            return
        if arrival.order is Order.LATE:
            self.link.note_late(arrival.lost)
            return
        if arrival.order is Order.RESTARTED:
            self.link.forget()
        sent, received = sent_and_received(info, time.monotonic(), time.time_ns())
        size = compressed_feature_bytes(len(message.data), message.header.frame_id)
        self.link.note(message.sequence, sent, received, size, arrival.lost)

    def publish_report(self, report: LinkReport, header: Header) -> None:
        """Tell the edge about the link."""
        publisher = self._publishers.get('link_report')
        if publisher is not None:
            publisher.publish(report_to_message(report, header))

    def publish(
        self,
        instances: Instances,
        header: Header,
        size: Size,
        class_names: Iterable[str],
        overlay: bool,
        masks: str,
    ) -> None:
        """Publish what was found in an image, in all forms that somebody listens to.

        Args:
            instances: what was found.
            header: header of the camera image.
            size: its height and width in pixels.
            class_names: names of the classes, by label.
            overlay: whether the overlay may be drawn.
            masks: their form in ``instances``, see :data:`msfc.instance_records.MASK_FORMS`.
        """
        names = tuple(class_names)

        def draw() -> Image:
            picture = self._images.find(header, size)
            return image_to_message(draw_instances(picture, instances, names), header, 'bgr8')

        makers: dict[str, Callable[[], Any]] = {
            'instances': lambda: instances_to_message(instances, header, size, names, masks),
            'label_map': lambda: image_to_message(label_map(instances, size), header, 'mono16'),
            'detections': lambda: detections_message(instances, header, names),
            'overlay': draw,
        }
        for name, make in makers.items():
            if name == 'overlay' and not overlay:
                continue
            if self.listeners(name):
                self._publishers[name].publish(make())

    def publish_outputs(self, outputs: Mapping[str, NDArray[np.uint8]], header: Header) -> None:
        """Publish what further heads made of an image.

        Args:
            outputs: H x W for each of :data:`HEAD_OUTPUTS` that was asked for.
            header: header of the camera image.
        """
        for name, pixels in outputs.items():
            if self.listeners(name):
                self._publishers[name].publish(image_to_message(pixels, header, 'mono8'))

    def publish_label_info(self, message: LabelInfo, name: str = 'label_info') -> None:
        """Say what the labels mean.

        Args:
            message: says it.
            name: ``label_info``, or that of a head.
        """
        self._publishers[name].publish(message)

    def watch_overlay(self, overlay: bool, qos: QoSProfile) -> None:
        """Subscribe to the pictures while somebody listens to the overlay: they are large."""
        with self._picture_lock:
            if not self._active:
                return
            wanted = overlay and self.listeners('overlay') > 0
            if wanted and self._picture_subscription is None:
                self._picture_subscription = self._node.subscribe(
                    Image, self._topics['picture'], qos, self._images.keep
                )
            elif not wanted and self._picture_subscription is not None:
                self._node.unsubscribe(self._picture_subscription)
                self._picture_subscription = None
                self._images.clear()

    def findings(self, own: str) -> list[Finding]:
        """Return what there is to tell about the camera's edge, for the diagnostics.

        Args:
            own: fingerprint of the node's model.
        """
        found = []
        if self.foreign and 'foreign_model' in self.statistics.recently_refused():
            found.append(Finding(WARN, f'the edge has model {self.foreign}, here is {own}'))
        if (senders := self._node.count_publishers(self.features_topic)) > 1:
            found.append(Finding(WARN, f'{senders} nodes publish {self.features_topic}'))
        return found

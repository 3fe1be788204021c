"""Listens to the whole chain and joins what belongs to one frame by the header's stamp."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from msfc_msgs.msg import CompressedFeature, InstanceArray
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from msfc.model import SplitModel
from msfc.wire.accounting import bits_per_pixel, payload_bpfe
from msfc_ros.message_to_image import image_to_bgr

QOS = QoSProfile(depth=10, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)

JPEG_QUALITY = 90
"""Quality of the JPEG image that the messages are compared with."""

EDGE_STAGES = ('preprocess', 'backbone', 'encode', 'pack')
CLOUD_STAGES = ('unpack', 'decode', 'infer')

MAX_PENDING = 100
"""Frames that are waited for; with a camera at its own pace most of them are never sent."""

Stamp = tuple[int, int]


@dataclass(frozen=True)
class SentMessage:
    """A message that crossed the link.

    Attributes:
        payload_bytes: bytes of the code.
        message_bytes: bytes of the whole serialised message.
        payload_bpfe: bits of the code per element of the uncompressed pyramid.
        bits_per_pixel: bits of the whole message per pixel of the camera's image.
        c_prime: channels of the code.
        rate: of the features; what it means is their coding's.
        stages: durations of the edge's stages in seconds.
    """

    payload_bytes: int
    message_bytes: int
    payload_bpfe: float
    bits_per_pixel: float
    c_prime: int
    rate: int
    stages: dict[str, float]


@dataclass
class FrameRecord:
    """What is known of one frame; fields are None until their message has come.

    Attributes:
        image: the camera's image, H x W x 3 uint8 BGR.
        jpeg: the same as JPEG of :data:`JPEG_QUALITY`.
        raw_bytes: bytes of the camera's image as it is.
        truth: its true instances.
        sent: what was measured of the message that crossed the link.
        found: the instances of all scores.
        received: when they were received, in nanoseconds.
        latency: seconds from the header's stamp until then.
    """

    image: NDArray[np.uint8] | None = None
    jpeg: bytes | None = None
    raw_bytes: int = 0
    truth: InstanceArray | None = None
    sent: SentMessage | None = None
    found: InstanceArray | None = None
    received: int = 0
    latency: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether all messages have come."""
        return None not in (self.jpeg, self.truth, self.sent, self.found)


class FrameJoiner:
    """Joins what belongs to one frame; its public methods take the messages as they come.

    Args:
        model: the model that the nodes use.
        frames: frames after which it takes no more.
        on_decoded: called with each frame of which all messages have come.
        on_sent: called with the stamp of each message of the edge, and with what it is.

    Attributes:
        decoded: how many frames are complete.
        listeners: by task of a node, how many listen to it by its own account.
        cloud_stages: mean durations of the cloud's stages in seconds.
    """

    def __init__(
        self,
        model: SplitModel,
        frames: int,
        on_decoded: Callable[[FrameRecord], None],
        on_sent: Callable[[Stamp, SentMessage], None] = lambda stamp, sent: None,
    ) -> None:
        self._detector = model.detector
        self._limit = frames
        self._on_decoded = on_decoded
        self._on_sent = on_sent
        self._pending: dict[Stamp, FrameRecord] = {}
        self.decoded = 0
        self._captured: list[Stamp] = []
        self._sent: list[Stamp] = []
        self._newest: Stamp = (0, 0)
        self.cloud_stages: dict[str, float] = {}
        self._cloud_decoded = 0
        self.listeners = {'encoding': 0, 'decoding': 0}

    @property
    def captured(self) -> int:
        """Frames that the camera took, up to the newest decoded one; later ones are under way."""
        return sum(stamp <= self._newest for stamp in self._captured)

    @property
    def sent(self) -> int:
        """Frames that the edge sent, up to the newest decoded one; later ones are under way."""
        return sum(stamp <= self._newest for stamp in self._sent)

    @property
    def complete(self) -> bool:
        """Whether all frames have been decoded."""
        return self.decoded >= self._limit

    @property
    def diagnosed(self) -> bool:
        """Whether the cloud has told the stage times of all frames."""
        return self._cloud_decoded >= self._limit

    def image(self, message: Image) -> None:
        """Take an image of the camera."""
        if not self.complete:
            record = self._record(message.header)
            record.raw_bytes = len(message.data)
            record.image = image_to_bgr(message)
            record.jpeg = encode_jpeg(record.image)
            self._join(message.header)

    def truth(self, message: InstanceArray) -> None:
        """Take the true instances of an image."""
        if not self.complete:
            self._captured.append(stamp_of(message.header))
            self._record(message.header).truth = message
            self._join(message.header)

    def features(self, data: bytes) -> None:
        """Take a message of the edge as it was serialised."""
        if self.complete:
            return
        message = deserialize_message(data, CompressedFeature)
        sizes = self._detector.pyramid_sizes((message.padded_height, message.padded_width))
        self._sent.append(stamp_of(message.header))
        sent = SentMessage(
            payload_bytes=len(message.data),
            message_bytes=len(data),
            payload_bpfe=payload_bpfe(len(message.data), sizes, self._detector.feature_channels),
            bits_per_pixel=bits_per_pixel(len(data), (message.image_height, message.image_width)),
            c_prime=message.channels,
            rate=message.rate,
            stages={stage: getattr(message, f'{stage}_time') for stage in EDGE_STAGES},
        )
        self._record(message.header).sent = sent
        self._on_sent(stamp_of(message.header), sent)
        self._join(message.header)

    def instances(self, message: InstanceArray, received: int) -> None:
        """Take what was found.

        Args:
            message: the message.
            received: when it came, in nanoseconds since 1970.
        """
        if self.complete:
            return
        record = self._record(message.header)
        record.found = message
        record.received = received
        stamp = message.header.stamp
        record.latency = (record.received - stamp.sec * 10**9 - stamp.nanosec) * 1e-9
        self._join(message.header)

    def _record(self, header: Header) -> FrameRecord:
        record = self._pending.setdefault(stamp_of(header), FrameRecord())
        while len(self._pending) > MAX_PENDING:
            del self._pending[next(iter(self._pending))]
        return record

    def _join(self, header: Header) -> None:
        if self._pending[stamp_of(header)].complete:
            self.decoded += 1
            self._newest = max(self._newest, stamp_of(header))
            self._on_decoded(self._pending.pop(stamp_of(header)))

    def diagnostics(self, message: DiagnosticArray) -> None:
        """Take what a node tells of itself."""
        for status in message.status:
            values = {item.key: item.value for item in status.values}
            task = status.name.rpartition(': ')[2]
            if task in self.listeners:
                self.listeners[task] = int(values.get('listeners', 0))
            if status.name.endswith(': decoding') and 'decoded' in values:
                self._cloud_decoded = int(values['decoded'])
                self.cloud_stages = {
                    stage: float(values[f'{stage}_ms']) * 1e-3
                    for stage in CLOUD_STAGES
                    if f'{stage}_ms' in values
                }


class Monitor(Node):
    """Listens to camera, edge and cloud.

    Args:
        joiner: what it hears is for.
        paced: whether the camera waits for the instances of each frame.
        features: topic of the edge's messages.
    """

    def __init__(self, joiner: FrameJoiner, paced: bool, features: str = 'features') -> None:
        super().__init__('demo')
        self._joiner = joiner
        self._paced = paced
        self._features_topic = features
        # What is waiting is handled in this order.
        self.create_subscription(InstanceArray, 'ground_truth', joiner.truth, QOS)
        self.create_subscription(CompressedFeature, features, joiner.features, QOS, raw=True)
        self.create_subscription(InstanceArray, 'instances', self._instances, QOS)
        self.create_subscription(DiagnosticArray, '/diagnostics', joiner.diagnostics, QOS)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def missing(self) -> list[str]:
        """Return the processes that are not ready yet.

        That this process has discovered two others does not mean that they know each other: edge
        and cloud themselves tell, by their diagnostics, how many listen to them.
        """
        own = 1
        camera = int(self._paced)
        before_cloud = own if self._features_topic == 'features' else 0
        listeners = self._joiner.listeners
        return [
            name
            for name, ready in (
                ('camera', self.count_publishers('image_raw') > 0),
                (
                    'cloud',
                    self.count_subscribers('features') > before_cloud
                    and listeners['decoding'] >= own + camera,
                ),
                (
                    'edge',
                    self.count_subscribers('image_raw') > 0 and listeners['encoding'] > own,
                ),
            )
            if not ready
        ]

    def listen_to_camera(self) -> None:
        """Subscribe to the images, which the camera waits for."""
        self.create_subscription(Image, 'image_raw', self._joiner.image, QOS)

    def spin_once(self, seconds: float) -> None:
        """Take a message, or wait for one for some seconds at most."""
        self._executor.spin_once(timeout_sec=seconds)

    def close(self) -> None:
        """Listen no more."""
        self._executor.shutdown()
        self.destroy_node()

    def _instances(self, message: InstanceArray, info: dict[str, Any]) -> None:
        # By the middleware: this process may have been busy since.
        received = int(info['received_timestamp']) or self.get_clock().now().nanoseconds
        self._joiner.instances(message, received)


def stamp_of(header: Header) -> Stamp:
    """Return seconds and nanoseconds of a header."""
    return header.stamp.sec, header.stamp.nanosec


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """Return an image, H x W x 3 uint8 BGR, as JPEG of :data:`JPEG_QUALITY`."""
    return bytes(cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])


def decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    """Return the image, H x W x 3 uint8 BGR, that :func:`encode_jpeg` was given, or nearly so."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image.astype(np.uint8, copy=False)

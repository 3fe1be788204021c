"""The camera-side node: takes the latest image, sends its compressed feature pyramid.

Subscribes ``image_raw`` (sensor_msgs/Image) or ``image_raw/compressed``
(sensor_msgs/CompressedImage), publishes ``features`` (msfc_msgs/CompressedFeature). Nothing is
computed while nobody subscribes to the latter. With ``adaptive`` it follows what the cloud says of
the link in ``link_report`` (msfc_msgs/LinkReport); with ``key_interval`` it codes frames against
the key frame that the cloud acknowledges there, and sends a new one when ``~/request_keyframe``
(std_srvs/Trigger) is called.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msfc_msgs.msg import CompressedFeature
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from msfc.pipeline.edge import EdgeFrame, EdgePipeline
from msfc.pipeline.rate_control import Choice
from msfc.wire.accounting import bits_per_pixel, payload_bpfe
from msfc.wire.packet import FeaturePacket, PacketError
from msfc_edge.budget import EdgeBudget
from msfc_edge.keys import UNANSWERED, EdgeKeys
from msfc_edge.limits import beyond_limits
from msfc_edge.link import DEAF, EdgeLink
from msfc_edge.pace import Pace
from msfc_edge.reports import LinkReports
from msfc_edge.robot_half import RobotHalf, RobotHalfParameters
from msfc_ros.diagnostics import LOST, Finding
from msfc_ros.enable import EnableSwitch
from msfc_ros.message_to_image import CONVERTER, ImageError, to_bgr
from msfc_ros.messages import packet_to_message
from msfc_ros.model_parameters import free_memory
from msfc_ros.node import LOG_PERIOD, ManagedNode
from msfc_ros.parameters import LiveParameters, declare
from msfc_ros.qos import Subscription, declare_qos
from msfc_ros.stamps import stamp_text
from msfc_ros.statistics import in_ms

if TYPE_CHECKING:
    from msfc.model import SplitModel

TRANSPORTS = {'raw': Image, 'compressed': CompressedImage}
"""Image transports, named as image_transport names them, and the types of their messages."""

LISTENING = (
    'The cloud has to be of a version that reports on the link, and its link_report and this '
    "node's on the same topic"
)
ADVICE = {DEAF: f'{LISTENING}; until then little is sent', UNANSWERED: LISTENING}
"""What to do about findings, by their kind."""

LARGE_MESSAGE = 64000
"""Bytes of one UDP datagram; beyond it losing one of several loses the message."""


class EdgeNode(ManagedNode):
    """Image in, compressed features out.

    Args:
        make_pipeline: makes the pipeline of a model; None for the usual one.
        **kwargs: for :class:`rclpy.node.Node`.

    Raises:
        ValueError: if a parameter has a value that it cannot have.
    """

    def __init__(
        self, make_pipeline: Callable[[SplitModel], EdgePipeline] | None = None, **kwargs: Any
    ) -> None:
        super().__init__('msfc_edge', 'encoding', **kwargs)
        self._make_pipeline = make_pipeline
        self._half_parameters = RobotHalfParameters(self)
        live = LiveParameters(self)
        self._budget = EdgeBudget(self, live)
        self._reports = LinkReports(self)
        self._link = EdgeLink(self, live, self._reports, self._budget.controller)
        self._keys = EdgeKeys(self, live, self._reports)
        self._pace = Pace(
            live.declare(
                'max_rate',
                0.0,
                'Most images that are worked on, per second; others are skipped. 0 takes all.',
                self._set_max_rate,
                limits=(0.0, 1000.0),
            )
        )
        self._image_topic: str = declare(
            self, 'image_topic', 'image_raw', 'Topic of the camera images.', read_only=True
        )
        self._transport: str = declare(
            self,
            'image_transport',
            'raw',
            "Kind of the images: 'raw' takes sensor_msgs/Image, 'compressed' takes "
            'sensor_msgs/CompressedImage, JPEG or PNG, from the topic <image_topic>/compressed.',
            choices=tuple(TRANSPORTS),
            read_only=True,
        )
        self._features_topic: str = declare(
            self, 'features_topic', 'features', 'Topic of what is sent.', read_only=True
        )
        # Most of an ordinary camera's images are too large to arrive best effort.
        self._image_qos = declare_qos(self, 'image', 'the camera images', 'best_available')
        self._features_qos = declare_qos(self, 'features', 'what is sent', 'reliable')
        self._switch = EnableSwitch(self, 'nothing is encoded and sent')
        self._half: RobotHalf | None = None
        self._features: Any = None
        self._sequence = 0
        self._large = LargeMessages()
        self._beyond: set[str] = set()

    def configure(self) -> None:
        """Load the model or the edge bundle."""
        half = self._half_parameters.load(self._make_pipeline)
        pipeline = half.pipeline
        self._budget.take_rates(pipeline.rates, pipeline.rate)
        self._keys.take_keys(pipeline.keys)
        self._half = half
        self._features = self.publisher(
            CompressedFeature, self._features_topic, self._features_qos
        )
        self.hardware = half.hardware
        self.facts['fingerprint'] = pipeline.fingerprint
        self.get_logger().info(
            f"model '{self._half_parameters.model}' ({pipeline.fingerprint}) on "
            f"{self.hardware}: C' = {half.code_channels}, "
            f'{self._budget.describe_rate()}; images are converted by {CONVERTER}'
        )

    def activate(self) -> None:
        """Subscribe to the images."""
        self._sequence = 0
        self._beyond.clear()
        self._budget.restart()
        self._pace.restart()
        self._check_topic()
        self.start_worker(self._encode)
        self._link.begin()
        self._keys.begin()
        self.work_on_latest(
            TRANSPORTS[self._transport],
            self._input_topic(),
            self._image_qos,
            admit=self._keep_pace,
            wanted=lambda: self.listeners() > 0,
            count_lost=True,
        )

    def deactivate(self) -> None:
        """Unsubscribe and finish the image at work."""
        self._link.end()
        self._keys.end()
        self._reports.end()
        super().deactivate()

    def clean_up(self) -> None:
        """Let the model go."""
        self._half = None
        self._budget.forget_rates()
        self._keys.forget_keys()
        self.facts.clear()
        features, self._features = self._features, None
        if features is not None:
            self.destroy_lifecycle_publisher(features)
        free_memory()

    def listeners(self) -> int:
        """Return the number of subscribers of the features."""
        features = self._features
        return features.get_subscription_count() if features is not None else 0

    def findings(self) -> list[Finding]:
        """Return what there is to tell about an active node, for the diagnostics."""
        return [
            *self._switch.findings(),
            *super().findings(),
            *self._budget.findings(),
            *self._link.findings(),
            *self._keys.findings(),
        ]

    def values(self) -> Mapping[str, str]:
        """Return what is shown of this node beside its statistics, for the diagnostics."""
        return self._budget.values() | self._link.values() | self._keys.values()

    def _input_topic(self) -> str:
        """Return the topic to subscribe to; who remaps the image topic remaps its transports."""
        if self._transport == 'raw':
            return self._image_topic
        return f'{self.resolve_topic_name(self._image_topic)}/{self._transport}'

    def _check_topic(self) -> None:
        """Say so where the suffix that the transport adds is in the topic's name already."""
        topic, suffix = self.resolve_topic_name(self._image_topic), f'/{self._transport}'
        if self._transport != 'raw' and topic.endswith(suffix):
            self.get_logger().warning(
                f"subscribed to '{topic}{suffix}', as image_transport {self._transport} adds "
                f"{suffix} to image_topic: set image_topic to '{topic.removesuffix(suffix)}'"
            )

    def advice(self, kind: str) -> str:
        """Return what to do about a finding of a kind, as a sentence for the log."""
        if kind in ADVICE:
            return ADVICE[kind]
        if kind != LOST:
            return ''
        return (
            f"These images on '{self._input_topic()}' never came, as they are too large or too "
            'many for this host. Let both ends be reliable (qos.image.reliability), give the '
            "camera's process more shared memory, or take image_transport compressed: see "
            'docs/network.md, images on one machine'
        )

    def type_advice(self, subscription: Subscription, other: str) -> str:
        """Return what to do about a topic of another type, as a sentence for the log."""
        transports = {f'sensor_msgs/msg/{kind.__name__}': n for n, kind in TRANSPORTS.items()}
        transport = transports.get(other)
        if transport is None:
            return ''
        topic = subscription.topic
        if transport != 'raw':
            topic = topic.removesuffix(f'/{transport}')
        return f"Set image_transport to {transport} and image_topic to '{topic}'"

    def _keep_pace(
        self, message: Image | CompressedImage, info: Mapping[str, int]
    ) -> Image | CompressedImage | None:
        """Return an image that has just come, or None if it is too soon for it."""
        if not self._switch.on:
            self.statistics.count('disabled')
            return None
        reason = self._link.refuses()
        if not reason and self._pace.admits(time.monotonic()):
            return message
        self.statistics.count('skipped')
        if reason:
            self.statistics.count(f'skipped_{reason}')
        self.debug(
            lambda: f'image {stamp_text(message.header)} skipped: {reason or "beyond max_rate"}'
        )
        return None

    def _encode(self, messages: Sequence[Image | CompressedImage]) -> None:
        (message,) = messages
        if not self._switch.on:
            return
        assert self._half is not None
        pipeline = self._half.pipeline
        start = time.perf_counter()
        try:
            image = to_bgr(message)
            convert_time = time.perf_counter() - start
            frame = pipeline.analyse(image)
            if not self._switch.on:
                return  # it was switched off meanwhile
            self._link.before_choice()
            self._keys.before_choice()
            choice = self._budget.choose(frame, message.header.frame_id)
            if choice.rate is None:
                return
            packet = frame.packet(choice.rate, self._sequence)
        except (ImageError, PacketError) as error:
            self.refuse(str(error.reason), str(error))
            return
        self._sequence += 1
        data = serialize_message(packet_to_message(packet, message.header))
        self._budget.controller.spend(len(data))
        self._link.sent(packet.sequence, len(data))
        self._features.publish(data)
        self._note_keys(frame, packet)
        self._note(message.header, packet, choice, convert_time)

    def _note_keys(self, frame: EdgeFrame, packet: FeaturePacket) -> None:
        if packet.is_key:
            self.statistics.count('key_frames')
        elif packet.refers:
            self.statistics.count('referring')
        if self._keys.interval:
            self.statistics.sample('alone_bytes', frame.alone_bytes(packet.rate))

    def _note(
        self, header: Header, packet: FeaturePacket, choice: Choice, convert_time: float
    ) -> None:
        half = self._half
        assert half is not None
        message_bytes = choice.message_bytes
        self.statistics.count('encoded')
        self.statistics.frame(
            {
                'convert_ms': convert_time * 1e3,
                **{f'{stage}_ms': value * 1e3 for stage, value in packet.durations.items()},
                'age_ms': self.age_ms(header),
                'rate': packet.rate,
                'budget_used': choice.used or None,
                'payload_bytes': packet.payload_bytes,
                'message_bytes': message_bytes,
                'payload_bpfe': payload_bpfe(
                    packet.payload_bytes,
                    half.pyramid_sizes(packet.padded_size),
                    half.feature_channels,
                ),
                'bits_per_pixel': bits_per_pixel(message_bytes, packet.image_size),
            }
        )
        self.debug(
            lambda: (
                f'image {stamp_text(header)} sent as number {packet.sequence}, {message_bytes} '
                f'bytes; ms: convert {convert_time * 1e3:.1f}, {in_ms(packet.durations)}'
            )
        )
        for limit, sentence in beyond_limits(packet).items():
            if limit not in self._beyond:
                self._beyond.add(limit)
                self.get_logger().warning(
                    f'a cloud with default limits will refuse this: {sentence}. Raise that '
                    "parameter of the cloud, or make the camera's images smaller"
                )
        kind = (packet.padded_size, packet.channels, packet.rate)
        if self._large.is_news(kind, message_bytes, time.monotonic()):
            self.get_logger().warning(
                f'a message has {message_bytes} bytes, more than one UDP datagram takes: on a '
                'lossy link many will be lost; consider a smaller rate or image'
            )

    def _set_max_rate(self, rate: float) -> None:
        self._pace.rate = rate


class LargeMessages:
    """Decides when there is something to say about large messages.

    Once for each kind of them that comes up, again when it comes back after another, and never
    more often than every :data:`msfc_ros.node.LOG_PERIOD` seconds.
    """

    def __init__(self) -> None:
        self._told: object = None
        self._at = float('-inf')

    def is_news(self, kind: object, size: int, now: float) -> bool:
        """Return whether to tell of a message.

        Args:
            kind: what its size depends on.
            size: its bytes.
            now: the time in seconds.
        """
        if size <= LARGE_MESSAGE:
            self._told = None
            return False
        if kind == self._told or now - self._at < LOG_PERIOD:
            return False
        self._told, self._at = kind, now
        return True

"""The camera-side node: takes the latest image, sends its compressed feature pyramid.

Subscribes ``image_raw`` (sensor_msgs/Image), publishes ``features``
(msfc_msgs/CompressedFeature). Nothing is computed while nobody subscribes to the latter.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from msfc_msgs.msg import CompressedFeature
from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image

from msfc.codec.accounting import bits_per_pixel, payload_bpfe
from msfc.codec.packet import FeaturePacket, PacketError
from msfc.codec.quantizer import BIT_DEPTHS
from msfc.pipeline import EdgePipeline
from msfc_ros.image_conversion import CONVERTER, ImageError, image_to_bgr
from msfc_ros.messages import age, packet_to_message
from msfc_ros.model import ModelParameters
from msfc_ros.node import ManagedNode
from msfc_ros.parameters import check_choice, declare
from msfc_ros.qos import declare_qos

BIT_DEPTH_CHOICES = (0, *BIT_DEPTHS)

LARGE_MESSAGE = 64000
"""Bytes of one UDP datagram; beyond it losing one of several loses the message."""


class EdgeNode(ManagedNode):
    """Image in, compressed features out.

    Args:
        **kwargs: for :class:`rclpy.node.Node`.

    Raises:
        ValueError: if a parameter has a value that it cannot have.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('msfc_edge', 'encoding', **kwargs)
        self._model_parameters = ModelParameters.declare(self)
        self._bit_depth: int = declare(
            self,
            'bit_depth',
            0,
            'Bits per symbol n; 32 sends float32, 0 is what the model is made for. Can be changed '
            'at any time.',
            limits=(0, 32),
            choices=BIT_DEPTH_CHOICES,
        )
        self._image_topic: str = declare(
            self, 'image_topic', 'image_raw', 'Topic of the camera images.', read_only=True
        )
        self._features_topic: str = declare(
            self, 'features_topic', 'features', 'Topic of what is sent.', read_only=True
        )
        # Best effort takes images from publishers of both kinds.
        self._image_qos = declare_qos(self, 'image', 'the camera images', 'best_effort')
        self._features_qos = declare_qos(self, 'features', 'what is sent', 'reliable')
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        self._pipeline: EdgePipeline | None = None
        self._features: Any = None
        self._sequence = 0
        self._warned_size = False

    def configure(self) -> None:
        """Load the model."""
        model = self._model_parameters.load()
        self._pipeline = EdgePipeline(model, self._bit_depth or None)
        self._features = self.publisher(
            CompressedFeature, self._features_topic, self._features_qos
        )
        self.hardware = str(model.detector.device)
        self.get_logger().info(
            f"model '{self._model_parameters.model}' ({self._pipeline.fingerprint}) on "
            f"{self.hardware}: C' = {model.codec.config.code_channels}, n = "
            f'{self._pipeline.bit_depth}; images are converted by {CONVERTER}'
        )

    def activate(self) -> None:
        """Subscribe to the images."""
        self._sequence = 0
        self.work_on_latest(
            Image,
            self._image_topic,
            self._image_qos,
            self._encode,
            wanted=lambda: self.listeners() > 0,
        )

    def clean_up(self) -> None:
        """Let the model go."""
        self._pipeline = None
        if self._features is not None:
            self.destroy_lifecycle_publisher(self._features)
            self._features = None

    def listeners(self) -> int:
        """Return the number of subscribers of the features."""
        return self._features.get_subscription_count() if self._features is not None else 0

    def _encode(self, message: Image) -> None:
        pipeline = self._pipeline
        assert pipeline is not None
        start = time.perf_counter()
        try:
            image = image_to_bgr(message)
            convert_time = time.perf_counter() - start
            packet = pipeline.encode(image, self._sequence)
        except (ImageError, PacketError) as error:
            self.refuse(str(error.reason), str(error))
            return
        self._sequence += 1
        data = serialize_message(packet_to_message(packet, message.header))
        self._features.publish(data)
        self._note(message, packet, len(data), convert_time)

    def _note(
        self, image: Image, packet: FeaturePacket, message_bytes: int, convert_time: float
    ) -> None:
        assert self._pipeline is not None
        detector = self._pipeline.model.detector
        self.statistics.count('encoded')
        self.statistics.frame(
            {
                'convert_ms': convert_time * 1e3,
                **{f'{stage}_ms': value * 1e3 for stage, value in packet.durations.items()},
                'age_ms': age(self.get_clock().now().nanoseconds, image.header) * 1e3,
                'payload_bytes': packet.payload_bytes,
                'message_bytes': message_bytes,
                'payload_bpfe': payload_bpfe(
                    packet.payload_bytes,
                    detector.pyramid_sizes(packet.padded_size),
                    detector.feature_channels,
                ),
                'bits_per_pixel': bits_per_pixel(message_bytes, packet.image_size),
            }
        )
        if message_bytes > LARGE_MESSAGE and not self._warned_size:
            self._warned_size = True
            self.get_logger().warning(
                f'a message has {message_bytes} bytes, more than one UDP datagram takes: on a '
                'lossy link many will be lost; consider a smaller bit_depth or image'
            )

    def _check_parameters(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == 'bit_depth':
                try:
                    check_choice(parameter.name, parameter.value, BIT_DEPTH_CHOICES)
                except ValueError as error:
                    return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply_parameters(self, parameters: Sequence[Parameter]) -> None:
        for parameter in parameters:
            if parameter.name == 'bit_depth':
                self._bit_depth = parameter.value
                if self._pipeline is not None:
                    self._pipeline.bit_depth = self._bit_depth or self._pipeline.model.bit_depth

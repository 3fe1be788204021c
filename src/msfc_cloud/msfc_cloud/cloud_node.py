"""The cloud-side node: takes the latest compressed feature pyramid, finds the instances in it.

Subscribes ``features`` (msfc_msgs/CompressedFeature). Publishes, with the camera's header:
``instances`` (msfc_msgs/InstanceArray), ``label_map`` (sensor_msgs/Image, mono16), ``overlay``
(sensor_msgs/Image, bgr8), ``detections`` (vision_msgs/Detection2DArray, where that package is
installed), ``semantic`` (sensor_msgs/Image, mono8, where the model has such a head), and once
``label_info`` and ``semantic_info`` (msfc_msgs/LabelInfo); a few times per second ``link_report``
(msfc_msgs/LinkReport) for the edge. What nobody listens to is not made.

A message is checked as it comes, so that one that cannot be decoded, or that is older than one
before it, never takes the place of one that is wanted. Key frames are read as they come, and kept:
the reports acknowledge them, and ask for a new one where a message refers to one that is not here.

One node can serve several cameras, each with an edge of its own and all these topics in its
namespace. Each has one place for its latest message; they are decoded in turn, or at once.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from msfc_msgs.msg import CompressedFeature
from rclpy.clock import Clock, ClockType
from std_msgs.msg import Header

from msfc.heads.head_file import load_heads
from msfc.instance_records import MASK_FORMS
from msfc.model import SplitModel
from msfc.pipeline.cloud import CloudPipeline, CloudResult
from msfc.pipeline.tracking import TrackSettings
from msfc.serving.remote import EngineError, RemotePipeline
from msfc.wire.accounting import payload_bpfe
from msfc.wire.packet import (
    DecodeLimits,
    PacketError,
    RefusalReason,
    ValidPacket,
    is_fingerprint,
)
from msfc_cloud.camera import HEAD_OUTPUTS, Camera, info_name
from msfc_cloud.camera_parameters import declare_cameras
from msfc_cloud.detections import Detection2DArray
from msfc_cloud.engine import declare_engine
from msfc_cloud.filters import Filters
from msfc_cloud.link_reports import LinkReporter
from msfc_cloud.track_parameters import declare_tracking
from msfc_ros.diagnostics import Finding, clock_findings, shown_values, work_findings
from msfc_ros.enable import EnableSwitch
from msfc_ros.messages import label_info_message, packet_from_message
from msfc_ros.model_parameters import ModelParameters, free_memory
from msfc_ros.node import ManagedNode
from msfc_ros.parameters import LiveParameters, declare
from msfc_ros.qos import declare_qos
from msfc_ros.stamps import age, nanoseconds
from msfc_ros.statistics import in_ms

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
"""What :class:`msfc.wire.packet.DecodeLimits` limits, for the descriptions of the parameters."""

AUTO_BATCH = {'cpu': 1, 'cuda': 8, 'ray': 16}
"""Messages that are decoded at once by default, by the kind of device; by Ray are under way."""


@dataclass(frozen=True)
class Waiting:
    """A message that can be decoded, and the camera that it is of."""

    camera: Camera
    header: Header
    packet: ValidPacket

    def __str__(self) -> str:
        return f'{self.camera.features_topic} number {self.packet.packet.sequence}'


class CloudNode(ManagedNode):
    """Compressed features in, instances out.

    Args:
        make_pipeline: makes the pipeline of a model and limits; None for that of ``engine``.
        **kwargs: for :class:`rclpy.node.Node`.

    Raises:
        ValueError: if a parameter has a value that it cannot have.
    """

    def __init__(
        self,
        make_pipeline: Callable[[SplitModel, DecodeLimits], CloudPipeline] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__('msfc_cloud', 'decoding', **kwargs)
        engine = declare_engine(self)
        self._make_pipeline = make_pipeline or engine
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
        self._masks: str = live.declare(
            'masks',
            MASK_FORMS[0],
            "Form of the masks in the instances: 'packed' (run lengths), 'plain' (a byte a pixel) "
            "or 'both'.",
            self._set_masks,
            choices=MASK_FORMS,
        )
        self._filters = Filters(live)
        self._limits = self._declare_limits()
        self._max_batch: int = declare(
            self,
            'max_batch',
            0,
            'Messages, each of another camera, that are decoded at once; 0: '
            + ', '.join(f'{number} on {kind}' for kind, number in AUTO_BATCH.items())
            + '. The limits are those of one message.',
            limits=(0, 64),
            read_only=True,
        )
        self._features_qos = declare_qos(self, 'features', 'what the edge sends', 'reliable')
        # Reliable, so that subscribers of both kinds match; with one place only, a result would
        # be lost whenever the next one is published before it is sent.
        self._output_qos = declare_qos(self, 'output', 'the outputs', 'reliable', depth=10)
        self._picture_qos = declare_qos(
            self, 'overlay_image', 'the images for the overlay', 'best_available', depth=5
        )
        # Small, and the next one comes soon.
        self._report_qos = declare_qos(
            self, 'link_report', 'the reports on the link', 'best_effort'
        )
        self._cameras, self._has_pictures = declare_cameras(self)
        declare_tracking(live, self._set_tracking)
        self._reporter = LinkReporter(self, live, self._cameras)
        self._switch = EnableSwitch(self, 'nothing is decoded and published')
        self._pipeline: CloudPipeline | None = None
        self._lanes = 1
        self._picture_timer: Any = None

    def _declare_limits(self) -> DecodeLimits:
        return DecodeLimits(
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

    def configure(self) -> None:
        """Load the model."""
        model = self._model_parameters.load()
        self._filters.take_classes(model.class_names)
        self._pipeline = self._make_pipeline(model, self._limits)
        heads = self._load_heads(self._pipeline)
        for camera in self._cameras:
            camera.advertise(self._output_qos, self._report_qos, heads)
        self.hardware = (
            f'Ray at {self._pipeline.address}'
            if isinstance(self._pipeline, RemotePipeline)
            else str(model.detector.device)
        )
        self.facts['fingerprint'] = self._pipeline.fingerprint
        self.get_logger().info(
            f"model '{self._model_parameters.model}' ({self._pipeline.fingerprint}) on "
            f"{self.hardware}: C' = {model.require_codec().code_channels}, "
            f'{len(model.class_names)} classes'
            + ''.join(f'; {name} head' for name in heads)
            + ('' if Detection2DArray else '; no vision_msgs here, so no detections')
            + (f'; {len(self._cameras)} cameras' if len(self._cameras) > 1 else '')
        )

    def _load_heads(self, pipeline: CloudPipeline) -> list[str]:
        """Give the pipeline the model's further heads; return their names."""
        found = load_heads(pipeline.model, self._model_parameters.model)
        pipeline.heads = {name: head for name, head in found.items() if name in HEAD_OUTPUTS}
        return list(pipeline.heads)

    def activate(self) -> None:
        """Say what the labels mean and subscribe to the features."""
        pipeline = self._pipeline
        assert pipeline is not None
        self._start_worker(pipeline)
        for camera in self._cameras:
            camera.begin(self._reporter.period)
        self._publish_label_info()
        self._reporter.begin()
        for camera in self._cameras:
            self._subscribe_features(camera)
        if self._has_pictures:
            self._picture_timer = self.create_timer(
                OVERLAY_PERIOD,
                self._watch_overlays,
                clock=Clock(clock_type=ClockType.STEADY_TIME),
            )

    def deactivate(self) -> None:
        """Unsubscribe and finish the messages at work."""
        timer, self._picture_timer = self._picture_timer, None
        if timer is not None:
            self.destroy_timer(timer)
        self._reporter.end()
        for camera in self._cameras:
            camera.end()
        super().deactivate()

    def clean_up(self) -> None:
        """Let the model go."""
        self._pipeline = None
        self._filters.forget_classes()
        self.facts.clear()
        for camera in self._cameras:
            camera.withdraw()
        free_memory()

    def listeners(self) -> int:
        """Return the number of subscribers of the instances, of all cameras together."""
        return sum(camera.listeners('instances') for camera in self._cameras)

    def findings(self) -> list[Finding]:
        """Return what there is to tell about an active node, for the diagnostics."""
        found = self._switch.findings() + super().findings()
        if len(self._cameras) == 1:
            found += self._cameras[0].findings(self.facts.get('fingerprint', ''))
        return found

    def values(self) -> Mapping[str, str]:
        """Return what is shown of this node beside its statistics, for the diagnostics."""
        foreign = {camera.foreign for camera in self._cameras if camera.foreign}
        shown = {'foreign_fingerprint': ' '.join(sorted(foreign))} if foreign else {}
        if len(self._cameras) == 1:
            shown.update(self._reporter.values(self._cameras[0]))
        return shown

    def parts(self) -> Mapping[str, tuple[list[Finding], Mapping[str, str]]]:
        """Return findings and values of each camera, where there are several."""
        if len(self._cameras) == 1:
            return {}
        own = self.facts.get('fingerprint', '')
        parts: dict[str, tuple[list[Finding], Mapping[str, str]]] = {}
        for camera in self._cameras:
            found = []
            if self.state == 'active':
                found = work_findings(camera.statistics, 0.0) + clock_findings(camera.statistics)
                found += camera.findings(own)
            values = shown_values(camera.statistics) | dict(self._reporter.values(camera))
            if camera.foreign:
                values['foreign_fingerprint'] = camera.foreign
            parts[camera.features_topic] = (found, values)
        return parts

    def _start_worker(self, pipeline: CloudPipeline) -> None:
        remote = isinstance(pipeline, RemotePipeline)
        kind = 'ray' if remote else pipeline.model.detector.device.type
        most = self._max_batch or AUTO_BATCH.get(kind, 1)
        if not remote:
            self._lanes = 1
            self.start_worker(self._decode, most)
            return
        # Each camera waits for its own answer alone. One has one request under way at most.
        self._lanes = min(most, len(self._cameras))
        self.start_worker(self._decode, lanes=self._lanes)

    def _subscribe_features(self, camera: Camera) -> None:
        self.work_on_latest(
            CompressedFeature,
            camera.features_topic,
            self._features_qos,
            admit=lambda message, info: self._admit(camera, message, info),
            statistics=camera.statistics,
        )

    def _admit(
        self, camera: Camera, message: CompressedFeature, info: Mapping[str, int]
    ) -> Waiting | None:
        """Return a message that has just come, if it can be decoded and is news."""
        pipeline = self._pipeline
        assert pipeline is not None
        packet = packet_from_message(message)
        try:
            valid = pipeline.check(packet)
        except PacketError as error:
            if error.reason is RefusalReason.FOREIGN_MODEL:
                camera.foreign = message.model if is_fingerprint(message.model) else 'unnamed'
            self._refuse(camera, str(error.reason), str(error))
            return None
        # Before the reference: one that is missing is no fault of the link's, and of a sender that
        # counts anew the key frames before are not meant.
        order = camera.note(message, info).order
        if not order.is_news:
            if packet.is_key:
                # Overtaken, but frames to come may refer to it.
                with suppress(PacketError):
                    pipeline.resolve(valid, camera.keys)
            self.debug(lambda: f'{Waiting(camera, message.header, valid)} dropped: {order.value}')
            return None
        try:
            item = Waiting(camera, message.header, pipeline.resolve(valid, camera.keys))
        except PacketError as error:
            self._refuse(camera, str(error.reason), f'{error}{self._what_follows(camera, error)}')
            return None
        if packet.is_key:
            camera.statistics.count('key_frames')
        if not self._switch.on:
            camera.statistics.count('disabled')
            return None
        self._reporter.load.arrived(camera.features_topic, time.monotonic())
        return item

    def _what_follows(self, camera: Camera, error: PacketError) -> str:
        if error.reason is not RefusalReason.MISSING_REFERENCE:
            return ''
        if camera.listeners('link_report'):
            return '; the edge is asked for a new key frame'
        return '; nobody listens to link_report, so the next key frame is waited for'

    def _decode(self, waiting: Sequence[Waiting]) -> None:
        pipeline = self._pipeline
        assert pipeline is not None
        fresh = []
        for item in waiting if self._switch.on else ():
            seconds = age(self.get_clock().now().nanoseconds, item.header)
            if self._max_age and seconds > self._max_age:
                item.camera.statistics.count('stale')
                self.debug(partial('{} dropped: older than max_age'.format, item))
            else:
                fresh.append(item)
        if not fresh:
            return
        begin = time.monotonic()
        try:
            results = self._run(pipeline, fresh)
        except Exception as error:
            if len(fresh) == 1:
                self._fail(fresh[0], error)
                return
            # One camera's trouble is not the others'.
            for item in fresh:
                self._decode([item])
            return
        for item, result in zip(fresh, results, strict=True):
            if pipeline is not self._pipeline or not self._switch.on:
                return  # it took so long that the node has been cleaned up or disabled meanwhile
            try:
                self._publish(pipeline, item, result, len(fresh))
            except Exception as error:
                self._fail(item, error)
        now = time.monotonic()
        self._reporter.load.worked((now - begin) / self._lanes, len(fresh), now)

    def _run(self, pipeline: CloudPipeline, items: Sequence[Waiting]) -> list[CloudResult]:
        packets = [item.packet for item in items]
        wanted = [item.camera.wanted_heads() for item in items]
        if any(wanted):
            return pipeline.decode_with(packets, wanted)
        return pipeline.decode_valid(packets)

    def _publish(
        self, pipeline: CloudPipeline, item: Waiting, result: CloudResult, batch: int
    ) -> None:
        camera, packet = item.camera, item.packet.packet
        start = time.perf_counter()
        tracked = camera.tracker.track(
            result.instances, nanoseconds(item.header), packet.image_size
        )
        track_time = time.perf_counter() - start
        start = time.perf_counter()
        instances = self._filters.apply(tracked.above(self._score_threshold))
        names = pipeline.model.class_names
        camera.publish(
            instances, item.header, packet.image_size, names, self._overlay, self._masks
        )
        maps = {name: output.numpy() for name, output in result.outputs.items()}
        camera.publish_outputs(maps, item.header)
        camera.statistics.count('decoded')
        detector = pipeline.model.detector
        camera.statistics.frame(
            {
                **{f'{stage}_ms': value * 1e3 for stage, value in result.durations.items()},
                'track_ms': track_time * 1e3,
                'publish_ms': (time.perf_counter() - start) * 1e3,
                'age_ms': self.age_ms(item.header),
                'payload_bytes': packet.payload_bytes,
                'payload_bpfe': payload_bpfe(
                    packet.payload_bytes,
                    detector.pyramid_sizes(packet.padded_size),
                    detector.feature_channels,
                ),
                'instances': len(instances),
                'batch': batch,
            }
        )
        self.debug(
            lambda: f'{item} decoded: {len(instances)} instances; ms: {in_ms(result.durations)}'
        )

    def _fail(self, item: Waiting, error: Exception) -> None:
        camera = item.camera
        if isinstance(error, PacketError):  # what only reading the payload has shown
            if item.packet.packet.refers:
                camera.keys.miss()  # it may have been written against another
            self._refuse(camera, str(error.reason), str(error))
            return
        if isinstance(error, EngineError):
            self._refuse(camera, error.reason, str(error))
            return
        text = ''.join(traceback.format_exception(error)).rstrip()
        self._refuse(camera, 'internal_error', text)

    def _refuse(self, camera: Camera, reason: str, sentence: str) -> None:
        topic = camera.features_topic if len(self._cameras) > 1 else ''
        self.refuse(reason, sentence, topic, camera.statistics)

    def _publish_label_info(self) -> None:
        assert self._pipeline is not None
        pipeline = self._pipeline
        header = Header(stamp=self.get_clock().now().to_msg())
        detector = pipeline.model.detector
        message = label_info_message(
            pipeline.fingerprint,
            pipeline.model.class_names,
            self._score_threshold,
            header,
            detector.keypoint_names,
        )
        for camera in self._cameras:
            camera.publish_label_info(message)
            for name, head in pipeline.heads.items():
                meaning = label_info_message(pipeline.fingerprint, head.class_names, 0.0, header)
                camera.publish_label_info(meaning, info_name(name))

    def _watch_overlays(self) -> None:
        for camera in self._cameras:
            camera.watch_overlay(self._overlay, self._picture_qos)

    def _set_tracking(self, settings: TrackSettings) -> None:
        for camera in self._cameras:
            camera.tracker.settings = settings

    def _set_overlay(self, on: bool) -> None:
        self._overlay = on

    def _set_masks(self, form: str) -> None:
        self._masks = form

    def _set_max_age(self, seconds: float) -> None:
        self._max_age = seconds

    def _set_score_threshold(self, threshold: float) -> None:
        self._score_threshold = threshold
        # Else it is published when the node becomes active.
        if self.state in ('activating', 'active'):
            self._publish_label_info()

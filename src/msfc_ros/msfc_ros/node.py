"""The managed node that both halves are: worker thread, refusals, diagnostics, the process.

States and transitions are those of ROS 2's managed nodes (design.ros2.org, "Managed nodes"). With
``autostart``, the default, a node configures and activates itself.
"""

from __future__ import annotations

import gc
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy._rclpy_pybind11 import RCLError
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.exceptions import InvalidHandle, ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import LoggingSeverity, get_logger
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Header

from msfc_ros.diagnostics import (
    ERROR,
    WARN,
    Finding,
    clock_findings,
    make_status,
    shown_values,
    work_findings,
)
from msfc_ros.fast_dds import use_profile
from msfc_ros.fast_dds_queues import dead_graph_ports_avoided
from msfc_ros.lifecycle import BackgroundLifecycleNode
from msfc_ros.parameters import declare
from msfc_ros.participants import held_participant
from msfc_ros.qos import LossCounter, Subscription, create_publisher
from msfc_ros.security import check_security
from msfc_ros.signals import StopSignals
from msfc_ros.stamps import age, is_stamped, nanoseconds, stamp_text
from msfc_ros.statistics import Statistics
from msfc_ros.surroundings import REPEAT, Surroundings
from msfc_ros.time_line import JUMP, TimeLine, WallClock
from msfc_ros.worker import LatestWorker

LOG_PERIOD = 5.0
"""Seconds between two log lines about refused messages of one kind."""

STOP_PATIENCE = 15.0
"""Seconds that the message at work has for its end when the node is deactivated."""

LOOK_PERIOD = 0.5
"""Seconds between two looks at who publishes what."""

START_PATIENCE = 3.0
"""Seconds after which a node says that nobody has started it."""

SPIN_PERIOD = 0.2
"""Seconds between two looks at what may end the process."""


class ManagedNode(BackgroundLifecycleNode):
    """A life cycle node that works on the latest message of its topics in a thread of its own.

    A node implements :meth:`configure`, :meth:`activate` and :meth:`clean_up`.

    Args:
        name: default name of the node.
        task: what it does, in one word, for the diagnostics.
        **kwargs: for :class:`rclpy.node.Node`.

    Attributes:
        statistics: counts and means for the diagnostics.
        facts: what does not change from frame to frame, for the diagnostics.
        hardware: what the work is done on, for the diagnostics.
    """

    def __init__(self, name: str, task: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.statistics = Statistics()
        self.facts: dict[str, str] = {}
        self.hardware = ''
        self._task = task
        self._worker: LatestWorker[Any] | None = None
        self._subscriptions_active: list[Subscription] = []
        # Transitions have a thread of their own.
        self._subscribing = threading.RLock()
        self._logged: dict[tuple[str, str], float] = {}
        self._idle_since: float | None = time.monotonic()
        self.autostart: bool = declare(
            self,
            'autostart',
            True,
            'Configure and activate at start; else wait for the transitions.',
            read_only=True,
        )
        period = declare(
            self,
            'diagnostics_period',
            1.0,
            'Time between two messages on /diagnostics, in seconds.',
            limits=(0.1, 60.0),
            read_only=True,
        )
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # A steady clock, so that a paused simulation is diagnosed as well.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(period, self.publish_diagnostics, clock=steady)
        self.create_timer(LOOK_PERIOD, self._look_around, clock=steady)
        self._surroundings = Surroundings(self, self.type_advice)
        self._time_line, self._wall_clock = TimeLine(), WallClock()
        self._jumps = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=Duration(seconds=JUMP), min_backward=Duration(nanoseconds=-1)
            ),
            post_callback=lambda jump: self._note_jump('arrival_age_ms', 'age_ms'),
        )
        self._findings_logged: dict[tuple[str, str], float] = {}
        self._findings_before: set[tuple[str, str]] = set()
        if not self.autostart:
            self._tell_how_to_start(f'autostart is false: {self.state}')

    # -- for the nodes to implement --

    def listeners(self) -> int:
        """Return how many subscribers of the main output this node has discovered."""
        return 0

    def findings(self) -> list[Finding]:
        """Return what there is to tell about an active node, for the diagnostics."""
        worker = self._worker
        if worker is None:
            return []
        found = work_findings(self.statistics, worker.busy_for())
        if self._surroundings.lacks_clock:
            return [*found, Finding(WARN, 'use_sim_time is true, but nobody publishes /clock')]
        return found + clock_findings(self.statistics)

    def values(self) -> Mapping[str, str]:
        """Return what is shown of this node beside its statistics, for the diagnostics."""
        return {}

    def parts(self) -> Mapping[str, tuple[list[Finding], Mapping[str, str]]]:
        """Return findings and values of each part of the node that has a status of its own."""
        return {}

    def advice(self, kind: str) -> str:
        """Return what to do about a finding of a kind, as a sentence for the log."""
        return ''

    def type_advice(self, subscription: Subscription, other: str) -> str:
        """Return what to do about a topic of another type, as a sentence for the log."""
        return ''

    # -- for the nodes to use --

    def start_worker(
        self, work: Callable[[Sequence[Any]], None], most: int = 1, lanes: int = 1
    ) -> None:
        """Start the thread that works, until deactivation, on what :meth:`work_on_latest` admits.

        Args:
            work: called in the thread with what was admitted, each of another topic.
            most: how much of it is worked on at once.
            lanes: number of threads; two never work on the same topic.
        """
        name = f'{self.get_name()}_worker'
        self._worker = LatestWorker(work, self._work_failed, name, most, lanes)

    def work_on_latest(
        self,
        message_type: type,
        topic: str,
        qos: QoSProfile,
        admit: Callable[[Any, Mapping[str, int]], Any] = lambda message, info: message,
        wanted: Callable[[], bool] = lambda: True,
        statistics: Statistics | None = None,
        count_lost: bool = False,
    ) -> Subscription:
        """Subscribe until deactivation; the latest message is worked on, older ones are dropped.

        Args:
            message_type: type of the messages; they have a header.
            topic: the topic.
            qos: quality of service of the subscription.
            admit: called with each message as it comes and what the middleware knows of it;
                returns what the worker gets of it, or None for a message that is dropped and does
                not take the place of one that waits. It counts these itself.
            wanted: a message that comes while this is false is dropped and counted as idle.
            statistics: where the topic's messages are counted; by default those of the node.
            count_lost: count the messages as lost that their publisher's numbers tell of and that
                did not come.

        Returns:
            The subscription, which :meth:`unsubscribe` can end before.
        """
        worker = self._worker
        assert worker is not None
        noted = self.statistics if statistics is None else statistics
        losses = LossCounter()
        subscription: Subscription | None = None

        def publishers() -> int:
            return subscription.publisher_count() if subscription is not None else 0

        def received(message: Any, info: Mapping[str, int]) -> None:
            noted.count('received')
            if count_lost:
                noted.count('lost', losses.missed(info, publishers))
            self._note_arrival(message.header, info, noted)
            if not wanted():
                noted.count('idle')
                self.debug(lambda: f'{stamp_text(message.header)} on {topic}: nobody subscribes')
                return
            item = admit(message, info)
            if item is not None and worker.put(item, topic):
                noted.count('overwritten')
                self.debug(lambda: f'{stamp_text(message.header)} on {topic} replaces one')

        subscription = self._subscribe(message_type, topic, qos, received)
        return subscription

    def subscribe(
        self, message_type: type, topic: str, qos: QoSProfile, callback: Callable[[Any], None]
    ) -> Subscription:
        """Subscribe until deactivation, or until :meth:`unsubscribe`.

        Args:
            message_type: type of the messages.
            topic: the topic.
            qos: quality of service of the subscription.
            callback: called with each message; what it raises is counted and logged.

        Returns:
            The subscription.
        """
        return self._subscribe(message_type, topic, qos, lambda message, info: callback(message))

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription of :meth:`subscribe` or :meth:`work_on_latest`."""
        with self._subscribing:
            self._subscriptions_active.remove(subscription)
            subscription.destroy()

    def debug(self, sentence: Callable[[], str]) -> None:
        """Log a sentence that is not even made unless the level is debug."""
        logger = self.get_logger()
        if logger.is_enabled_for(LoggingSeverity.DEBUG):
            logger.debug(sentence())

    def publisher(self, message_type: type, topic: str, qos: QoSProfile) -> Any:
        """Create a publisher that is silent unless the node is active."""
        return create_publisher(self, message_type, topic, qos)

    def refuse(
        self, reason: str, sentence: str, topic: str = '', statistics: Statistics | None = None
    ) -> None:
        """Count a message that cannot be used; say why, at most every few seconds per reason.

        Args:
            reason: why, in a word.
            sentence: why, in words.
            topic: where it came from, where there are several topics.
            statistics: where it is counted; by default those of the node.
        """
        count = (self.statistics if statistics is None else statistics).refuse(reason)
        now = time.monotonic()
        if now - self._logged.get((topic, reason), -LOG_PERIOD) >= LOG_PERIOD:
            self._logged[topic, reason] = now
            what = f'a message on {topic}' if topic else 'a message'
            self.get_logger().warning(f'refused {what} ({reason}, {count} so far): {sentence}')
        else:
            self.debug(lambda: f'refused {topic} ({reason}, {count} so far): {sentence}')

    def age_ms(self, header: Header) -> float | None:
        """Return the time since a stamp; None if it is none, or the clock has jumped since."""
        now = self.get_clock().now().nanoseconds
        if not is_stamped(header) or not self._time_line.has(nanoseconds(header), now):
            return None
        return age(now, header) * 1e3

    def publish_diagnostics(self) -> None:
        """Publish the node's state, findings, counts and means, then those of its parts."""
        findings = self.findings() if self.state == 'active' else []
        parts = self.parts()
        self._log_findings({'': findings, **{name: found for name, (found, _) in parts.items()}})
        if self.failure:
            findings.insert(0, Finding(ERROR, self.failure))
        try:
            listeners = self.listeners()
        except InvalidHandle:  # the publisher is being destroyed
            listeners = 0
        values = {
            **self.facts,
            **shown_values(self.statistics),
            **self.values(),
            'listeners': str(listeners),
        }
        name = f'{self.get_fully_qualified_name().lstrip("/")}: {self._task}'
        message = DiagnosticArray(
            status=[
                make_status(name, self.state, findings, values, self.hardware),
                *(
                    make_status(f'{name} {part}', self.state, found, shown, self.hardware)
                    for part, (found, shown) in parts.items()
                ),
            ]
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def on_activate(self, state: Any) -> Any:
        """Activate, with statistics that know of nothing before."""
        self.statistics.reset()
        return super().on_activate(state)

    def deactivate(self) -> None:
        """Unsubscribe and finish the message at work.

        Raises:
            TimeoutError: if that takes too long; it is then left to itself.
        """
        with self._subscribing:
            for subscription in self._subscriptions_active:
                subscription.destroy()
            self._subscriptions_active.clear()
        self.statistics.reset()
        worker, self._worker = self._worker, None
        if worker is not None and not worker.stop(STOP_PATIENCE):
            raise TimeoutError(
                f'the message at work does not end within {STOP_PATIENCE:g} s; its thread is left '
                'to itself, and may keep memory until the process is restarted'
            )

    def _subscribe(
        self,
        message_type: type,
        topic: str,
        qos: QoSProfile,
        callback: Callable[[Any, Mapping[str, int]], None],
    ) -> Subscription:
        def guarded(message: Any, info: Mapping[str, int]) -> None:
            try:
                callback(message, info)
            except Exception as error:
                self._work_failed(error)

        with self._subscribing:
            subscription = Subscription(self, message_type, topic, qos, guarded)
            self._subscriptions_active.append(subscription)
        return subscription

    def _note_arrival(
        self, header: Header, info: Mapping[str, int], statistics: Statistics
    ) -> None:
        if not is_stamped(header):
            statistics.count('unstamped')
        elif (milliseconds := self.age_ms(header)) is not None:
            statistics.sample('arrival_age_ms', milliseconds)
        # By the senders' and this host's system clock; 0 where the middleware does not know.
        sent, received = info.get('source_timestamp', 0), info.get('received_timestamp', 0)
        if sent > 0 and received > 0:
            statistics.sample('transit_ms', (received - sent) * 1e-6)

    def _look_around(self) -> None:
        """Follow the publishers, and say what is waited for."""
        if self._wall_clock.has_jumped():
            self._note_jump('arrival_age_ms', 'age_ms', 'transit_ms')
        with self._subscribing:
            for subscription in self._subscriptions_active:
                if subscription.follow():
                    kind = subscription.qos_profile.reliability.name.lower()
                    self.get_logger().info(
                        f"subscribed to '{subscription.topic}' anew, {kind} as its publishers are"
                    )
            self._surroundings.look(self._subscriptions_active)
        if self._idle_since is not None and time.monotonic() - self._idle_since > START_PATIENCE:
            self._idle_since = None
            if self.state == 'unconfigured' and self.autostart:
                self._tell_how_to_start('unconfigured')

    def _tell_how_to_start(self, state: str) -> None:
        self._idle_since = None
        name = self.get_fully_qualified_name()
        self.get_logger().info(
            f'{state}. Nothing is done until it is configured and activated: '
            f'ros2 lifecycle set {name} configure, then activate; in Python: node.start()'
        )

    def _note_jump(self, *names: str) -> None:
        """Forget the values that were taken by the clock as it went before."""
        self._time_line.jump(self.get_clock().now().nanoseconds)
        self.statistics.forget(*names)
        self.debug(lambda: 'the clock has jumped: ages are taken anew')

    def _log_findings(self, findings: Mapping[str, Sequence[Finding]]) -> None:
        """Log what is found for the first time, or again after some time without it.

        Args:
            findings: of the node, named '', and of each of its parts.
        """
        now, present = time.monotonic(), set()
        for part, found in findings.items():
            for finding in found:
                key = part, finding.kind
                if not finding.kind:
                    continue
                present.add(key)
                told = self._findings_logged.get(key, -REPEAT)
                if key in self._findings_before or now - told < REPEAT:
                    continue
                self._findings_logged[key] = now
                text = ': '.join(filter(None, (part, finding.text)))
                text = '. '.join(filter(None, (text, self.advice(finding.kind))))
                # Two lines, as rclpy wants one severity of each.
                if finding.level == ERROR:
                    self.get_logger().error(text)
                else:
                    self.get_logger().warning(text)
        self._findings_before = present

    def _work_failed(self, error: Exception) -> None:
        self.refuse('internal_error', ''.join(traceback.format_exception(error)).rstrip())


def run(
    make_node: Callable[[], ManagedNode],
    args: Sequence[str] | None = None,
    sends_images: bool = False,
) -> int:
    """Run a node until SIGINT or SIGTERM.

    Args:
        make_node: creates the node.
        args: command line; by default the process's.
        sends_images: whether it sends images, see :func:`msfc_ros.fast_dds.use_profile`.

    Returns:
        The exit status: 0 after a signal, 1 if the node could not start.
    """
    stop = threading.Event()
    # Not rclpy's handlers: they shut the context down, and nothing could be said on the way out.
    StopSignals((signal.SIGINT, signal.SIGTERM), lambda number: stop.set())
    with held_participant() as participant:
        try:
            check_security()
            use_profile(sends_images, participant)
            rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        except (ValueError, RCLError) as error:
            get_logger('msfc').fatal(f'cannot start: {error}')
            return 1
        try:
            return _run(make_node, stop)
        finally:
            rclpy.try_shutdown()
            # At its end Python looks for cycles among all of torch's objects: seconds on a busy
            # machine, and ros2 launch grants five for everything.
            gc.freeze()


def _run(make_node: Callable[[], ManagedNode], stop: threading.Event) -> int:
    """Create a node and spin it; return the exit status."""
    try:
        with dead_graph_ports_avoided():
            node = make_node()
    except (ValueError, ParameterException, RCLError) as error:
        get_logger('msfc').fatal(f'cannot start: {error}')
        return 1
    try:
        return spin(node, stop)
    finally:
        node.destroy_node()


def spin(node: ManagedNode, stop: threading.Event) -> int:
    """Start a node, spin it until ``stop`` is set, stop it; return the exit status."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    failed = threading.Event()

    def start() -> None:
        if node.autostart and not node.start():
            failed.set()

    starter = threading.Thread(target=start, name=f'{node.get_name()}_start')
    if node.transitions_in_background:
        starter.start()
    else:
        start()
    while not stop.is_set() and not failed.is_set():
        try:
            executor.spin_once(timeout_sec=SPIN_PERIOD)
        except InvalidHandle:
            pass  # a transition destroyed what was being waited for
        except ExternalShutdownException:
            break
        except Exception:
            # One callback's fault is no reason to take the robot's eyes away.
            node.get_logger().error(f'error in a callback:\n{traceback.format_exc().rstrip()}')
    if starter.ident is not None:
        starter.join()
    node.stop()
    executor.shutdown()
    return int(failed.is_set())

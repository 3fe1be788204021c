"""The managed node that both halves are: life cycle, worker thread, refusals, diagnostics.

States and transitions are those of ROS 2's managed nodes (design.ros2.org, "Managed nodes"). With
``autostart``, the default, a node configures and activates itself.
"""

from __future__ import annotations

import gc
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions

from msfc_ros.parameters import declare
from msfc_ros.qos import publisher_events, subscription_events
from msfc_ros.statistics import Statistics
from msfc_ros.worker import LatestWorker

LOG_PERIOD = 5.0
"""Seconds between two log lines about refused messages of one kind."""


class ManagedNode(LifecycleNode):
    """A life cycle node that works on the latest message of one topic in a thread of its own.

    A node implements :meth:`configure`, :meth:`activate` and :meth:`clean_up`; each may raise, and
    the transition then fails with what was raised as an error in the log.

    Args:
        name: default name of the node.
        task: what it does, in one word, for the diagnostics.
        **kwargs: for :class:`rclpy.node.Node`.

    Attributes:
        statistics: counts and means for the diagnostics.
        hardware: what the work is done on, for the diagnostics.
    """

    def __init__(self, name: str, task: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.statistics = Statistics()
        self.hardware = ''
        self._task = task
        self._state = 'unconfigured'
        self._worker: LatestWorker[Any] | None = None
        self._subscriptions_active: list[Any] = []
        self._logged: dict[str, float] = {}
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
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 1)
        # A steady clock, so that a paused simulation is diagnosed as well.
        self._diagnostics_timer = self.create_timer(
            period, self.publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    # -- for the nodes to implement --

    def configure(self) -> None:
        """Load what takes long and create the publishers."""

    def activate(self) -> None:
        """Subscribe."""

    def clean_up(self) -> None:
        """Free what :meth:`configure` made."""

    def listeners(self) -> int:
        """Return how many subscribers of the main output this node has discovered."""
        return 0

    # -- for the nodes to use --

    def work_on_latest(
        self,
        message_type: type,
        topic: str,
        qos: QoSProfile,
        work: Callable[[Any], None],
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Subscribe until deactivation; the latest message is worked on, older ones are dropped.

        Args:
            message_type: type of the messages.
            topic: the topic.
            qos: quality of service of the subscription.
            work: called in the worker thread.
            wanted: a message that comes while this is false is dropped and counted as idle.
        """
        worker = LatestWorker(work, self._work_failed, f'{self.get_name()}_worker')

        def received(message: Any) -> None:
            self.statistics.count('received')
            if not wanted():
                self.statistics.count('idle')
            elif worker.put(message):
                self.statistics.count('overwritten')

        self._worker = worker
        self.subscribe(message_type, topic, qos, received)

    def subscribe(
        self, message_type: type, topic: str, qos: QoSProfile, callback: Callable[[Any], None]
    ) -> None:
        """Subscribe until deactivation."""
        events = subscription_events(self, topic, qos)
        self._subscriptions_active.append(
            self.create_subscription(message_type, topic, callback, qos, event_callbacks=events)
        )

    def publisher(self, message_type: type, topic: str, qos: QoSProfile) -> Any:
        """Create a publisher that is silent unless the node is active."""
        events = publisher_events(self, topic, qos)
        return self.create_lifecycle_publisher(message_type, topic, qos, event_callbacks=events)

    def refuse(self, reason: str, sentence: str) -> None:
        """Count a message that cannot be used; say why, at most every few seconds per reason."""
        count = self.statistics.refuse(reason)
        now = time.monotonic()
        if now - self._logged.get(reason, -LOG_PERIOD) >= LOG_PERIOD:
            self._logged[reason] = now
            self.get_logger().warning(f'refused a message ({reason}, {count} so far): {sentence}')

    def publish_diagnostics(self) -> None:
        """Publish the node's state, counts and means."""
        name = f'{self.get_fully_qualified_name().lstrip("/")}: {self._task}'
        status = self.statistics.status(name, self._state, self.hardware)
        status.values.append(KeyValue(key='listeners', value=str(self.listeners())))
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    # -- life cycle --

    def start(self) -> bool:
        """Configure and activate. Return whether both succeeded."""
        success = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == success and self.trigger_activate() == success

    def stop(self) -> None:
        """Deactivate and clean up, as far as the state asks for it."""
        if self._state == 'active':
            self.trigger_deactivate()
        if self._state == 'inactive':
            self.trigger_cleanup()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Configure; failing that, say why and stay unconfigured."""
        return self._attempt('configure', self.configure, super().on_configure, state, 'inactive')

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Activate; failing that, say why and stay inactive."""
        # Publishers first, as the node may publish while it activates.
        result = super().on_activate(state)
        if result != TransitionCallbackReturn.SUCCESS:
            return result
        result = self._attempt('activate', self.activate, None, state, 'active')
        if result != TransitionCallbackReturn.SUCCESS:
            super().on_deactivate(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, finish the message that is worked on, go silent."""
        self._unsubscribe()
        self._state = 'inactive'
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything."""
        return self._attempt('clean up', self.clean_up, super().on_cleanup, state, 'unconfigured')

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, for good."""
        self._unsubscribe()
        return self._attempt('shut down', self.clean_up, super().on_shutdown, state, 'finalized')

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything; the node may be configured anew."""
        self._unsubscribe()
        return self._attempt('recover', self.clean_up, super().on_error, state, 'unconfigured')

    def _attempt(
        self,
        what: str,
        own: Callable[[], None],
        inherited: Callable[[LifecycleState], TransitionCallbackReturn] | None,
        state: LifecycleState,
        reached: str,
    ) -> TransitionCallbackReturn:
        # rclpy drops what a transition raises without a word.
        try:
            own()
        except (ValueError, OSError) as error:
            self.get_logger().error(f'cannot {what}: {error}')
        except Exception:
            self.get_logger().error(f'cannot {what}:\n{traceback.format_exc()}')
        else:
            result = (
                TransitionCallbackReturn.SUCCESS if inherited is None else inherited(state)
            )
            if result == TransitionCallbackReturn.SUCCESS:
                self._state = reached
                self.get_logger().info(f'{reached}')
            return result
        self._unsubscribe()
        return TransitionCallbackReturn.FAILURE

    def _unsubscribe(self) -> None:
        for subscription in self._subscriptions_active:
            self.destroy_subscription(subscription)
        self._subscriptions_active.clear()
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def _work_failed(self, error: Exception) -> None:
        reason = 'internal_error'
        text = ''.join(traceback.format_exception(error)).rstrip()
        self.refuse(reason, text)


def run(make_node: Callable[[], ManagedNode], args: Sequence[str] | None = None) -> int:
    """Run a node until SIGINT or SIGTERM.

    Args:
        make_node: creates the node.
        args: command line; by default the process's.

    Returns:
        The exit status: 0 after a signal, 1 if the node could not start.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()
        # Whoever asks twice does not want to wait.
        signal.signal(number, signal.SIG_DFL)

    # Not rclpy's handlers: they shut the context down, and nothing could be said on the way out.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        try:
            node = make_node()
        except (ValueError, ParameterException) as error:
            get_logger('msfc').fatal(f'cannot start: {error}')
            return 1
        try:
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            if node.autostart and not node.start():
                return 1
            while not stop.is_set():
                executor.spin_once(timeout_sec=0.2)
            node.stop()
            executor.shutdown()
        finally:
            node.destroy_node()
        return 0
    finally:
        rclpy.try_shutdown()
        # At its end Python looks for cycles among all of torch's objects: seconds on a busy
        # machine, and ros2 launch grants five for everything.
        gc.freeze()

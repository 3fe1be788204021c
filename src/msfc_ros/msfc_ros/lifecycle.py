"""A life cycle node that goes on answering while a transition takes its time.

rclpy runs a transition inside the callback of its service. In a node with one executor thread
nothing else is answered then, no parameters, no ``get_state``, no diagnostics, and loading a model
takes seconds. Here a transition has a thread of its own, and the service's callback is a coroutine
that waits for it. A second executor thread would do the same, but every message would pay for it.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.task import Future

SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE = TransitionCallbackReturn.FAILURE
ERROR = TransitionCallbackReturn.ERROR

NEXT = {'unconfigured': 'configure', 'inactive': 'activate'}
"""Transitions that lead towards the active state, by the state that they begin in."""

Action = Callable[[], Any]
"""Part of a transition; it fails by raising, or by returning anything but None or SUCCESS."""


class BackgroundLifecycleNode(LifecycleNodeMixin, Node):
    """A life cycle node whose transitions run beside its executor.

    A node implements :meth:`configure`, :meth:`activate`, :meth:`deactivate` and
    :meth:`clean_up`. Each may raise; the reason is then in the log and in :attr:`failure`. What
    becomes of the node:

    * ``configure`` failed: cleaned up, unconfigured;
    * ``activate`` failed: deactivated, inactive;
    * ``deactivate``, ``clean_up`` or shutdown failed: cleaned up (again), unconfigured; where that
      fails as well, finalized.

    Args:
        name: default name of the node.
        **kwargs: for :class:`rclpy.node.Node`.

    Attributes:
        state: name of the state, or of the transition on its way, as ROS 2 has them.
        failure: why the last transition failed, in one line; empty if it did not.
    """

    transitions_in_background = True
    """Whether transitions have a thread of their own; else they run in the executor's."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        Node.__init__(self, name, **kwargs)
        # Reentrant, so that the services of the life cycle answer during a transition.
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self.state = 'unconfigured'
        self.failure = ''
        self._by_itself = False
        self._transition = threading.Lock()
        self._blocking_change_state = self._service_change_state.callback
        self._service_change_state.callback = (
            self._change_state_beside if self.transitions_in_background else self._change_state
        )

    # -- for the nodes to implement --

    def configure(self) -> None:
        """Load what takes long and create the publishers."""

    def activate(self) -> None:
        """Subscribe."""

    def deactivate(self) -> None:
        """Undo :meth:`activate`; it may have been done in part only, or not at all."""

    def clean_up(self) -> None:
        """Undo :meth:`configure`; it may have been done in part only, or not at all."""

    # -- for the process to use --

    def start(self) -> bool:
        """Configure and activate. Return whether both succeeded."""
        with self._transition, self._alone():
            return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    def stop(self) -> None:
        """Deactivate and clean up, as far as the state asks for it; waits for a transition."""
        with self._transition, self._alone():
            if self.state == 'active':
                self.trigger_deactivate()
            if self.state == 'inactive':
                self.trigger_cleanup()

    # -- transitions --

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Configure; failing that, clean up, say why and stay unconfigured."""
        inherited = partial(super().on_configure, state)
        return self._attempt(
            'configure',
            ('configuring', 'inactive'),
            [self.configure, inherited],
            undo=self.clean_up,
            failed=(FAILURE, 'unconfigured'),
        )

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Activate; failing that, deactivate, say why and stay inactive."""
        inherited = partial(super().on_activate, state)
        silence = partial(super().on_deactivate, state)

        def undo() -> None:
            self.deactivate()
            silence()

        return self._attempt(
            'activate',
            ('activating', 'active'),
            # Publishers first, as the node may publish while it activates.
            [inherited, self.activate],
            undo=undo,
            failed=(FAILURE, 'inactive'),
        )

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate and go silent."""
        inherited = partial(super().on_deactivate, state)
        return self._attempt(
            'deactivate', ('deactivating', 'inactive'), [self.deactivate, inherited]
        )

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything."""
        inherited = partial(super().on_cleanup, state)
        return self._attempt(
            'clean up', ('cleaningup', 'unconfigured'), [self.clean_up, inherited]
        )

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, for good."""
        inherited = partial(super().on_shutdown, state)
        return self._attempt(
            'shut down',
            ('shuttingdown', 'finalized'),
            [self.deactivate, self.clean_up, inherited],
        )

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything after a failure; the node may then be configured anew."""
        reason = self.failure
        inherited = partial(super().on_error, state)
        result = self._attempt(
            'recover',
            ('errorprocessing', 'unconfigured'),
            [self.deactivate, self.clean_up, inherited],
            failed=(FAILURE, 'finalized'),
        )
        # That it recovered does not undo what it had to recover from.
        self.failure = self.failure or reason
        return result

    def _attempt(
        self,
        what: str,
        states: tuple[str, str],
        steps: list[Action],
        undo: Action | None = None,
        failed: tuple[TransitionCallbackReturn, str] = (ERROR, 'errorprocessing'),
    ) -> TransitionCallbackReturn:
        """Go through the steps of a transition; rclpy drops what they raise without a word.

        Args:
            what: the transition in words.
            states: the state on the way and the one to reach.
            steps: what there is to do.
            undo: done after a failure.
            failed: after a failure, what the state machine is told and where that leads.
        """
        self.state, reached = states
        problem = self._problem(steps)
        if not problem:
            self.state, self.failure = reached, ''
            self.get_logger().info(reached + self._way_on())
            return SUCCESS
        self._tell_failure(f'cannot {what}: {problem}')
        if undo is not None and (problem := self._problem([undo])):
            self.get_logger().error(f'cannot undo it: {problem}')
        result, self.state = failed
        return result

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Go through transitions that nobody else has to ask for."""
        self._by_itself = True
        try:
            yield
        finally:
            self._by_itself = False

    def _way_on(self) -> str:
        """Return, for the log, how a node that is not active goes on."""
        step = NEXT.get(self.state)
        if step is None or self._by_itself:
            return ''
        return f'; to go on: ros2 lifecycle set {self.get_fully_qualified_name()} {step}'

    def _problem(self, steps: list[Action]) -> str:
        """Go through steps until one fails; return why it does, or nothing."""
        try:
            for step in steps:
                if step() not in (None, SUCCESS):
                    return 'a publisher does not follow'
        except (ValueError, OSError) as error:
            return str(error)
        except Exception:
            return f'an error in the node\n{traceback.format_exc().rstrip()}'
        return ''

    def _tell_failure(self, text: str) -> None:
        self.get_logger().error(text)
        # The last line of a traceback is what was raised.
        first, _, rest = text.partition('\n')
        self.failure = f'{first}: {rest.splitlines()[-1]}' if rest else first

    # -- the service --

    def _change_state(self, request: Any, response: Any) -> Any:
        """Run a transition that was asked for by service, here and now."""
        try:
            return self._blocking_change_state(request, response)
        except Exception as error:  # RCLError: the state has no such transition
            asked = request.transition.label or request.transition.id
            # rcl logs a page about it; what counts is that it is no reason to end the process.
            self.get_logger().warning(
                f'there is no transition {asked} from the state {self.state}: '
                f'{str(error).splitlines()[0]}'
            )
            response.success = False
            return response

    async def _change_state_beside(self, request: Any, response: Any) -> Any:
        """Run a transition that was asked for by service, in a thread of its own."""
        if not self._transition.acquire(blocking=False):
            self.get_logger().warning(f'no transition now: the node is {self.state}')
            response.success = False
            return response
        done = Future()

        def work() -> None:
            try:
                self._change_state(request, response)
            finally:
                # Before the answer, after which the next transition may be asked for.
                self._transition.release()
                done.set_result(response)
                if self.executor is not None:
                    self.executor.wake()

        threading.Thread(target=work, name=f'{self.get_name()}_transition', daemon=True).start()
        return await done

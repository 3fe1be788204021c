"""What a node waits for without getting it, in words: publishers, other types, the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from msfc_ros.qos import Subscription

PATIENCE = 5.0
"""Seconds after which it is said that something is not there."""

REPEAT = 60.0
"""Seconds between two log lines that say the same."""

NAMED = 5
"""Other topics that are named at most."""

CLOCK = '/clock'


def full_name(endpoint: Any) -> str:
    """Return the full name of the node that an endpoint is of."""
    return f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}'


class Surroundings:
    """Looks who is there of those that a node needs, and says once who is not.

    Args:
        node: the node.
        advice: returns what to do about a topic of another type: called with the subscription and
            the other type.
        clock: gives the time in seconds, steadily; another one for tests.
    """

    def __init__(
        self,
        node: Any,
        advice: Callable[[Subscription, str], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._advice = advice
        self._clock = clock
        self._told: dict[tuple[str, str], float] = {}
        self._missed: dict[str, float] = {}
        self._start = clock()

    def look(self, subscriptions: Iterable[Subscription]) -> None:
        """Say of what is needed what is not there."""
        missed = {}
        for subscription in subscriptions:
            topic, wanted = subscription.topic, subscription.type_name
            publishers = subscription.publishers()
            for other in publishers:
                if other.topic_type != wanted:
                    self._tell_type(subscription, other)
            if not publishers:
                missed[topic] = self._missed.get(topic, self._clock())
                if self._clock() - missed[topic] >= PATIENCE:
                    self._tell_missing(subscription)
        self._missed = missed
        if self.lacks_clock:
            self._warn(
                CLOCK,
                'missing',
                'use_sim_time is true, but nobody has published /clock: the time stands at 0, and '
                'ages cannot be told. Start the simulation, or ros2 bag play with --clock, or set '
                'use_sim_time to false',
            )

    @property
    def lacks_clock(self) -> bool:
        """Whether simulated time is wanted, and has not begun for some seconds."""
        if self._clock() - self._start < PATIENCE:
            return False
        simulated = self._node.get_parameter('use_sim_time').value
        return bool(simulated) and self._node.get_clock().now().nanoseconds == 0

    def _tell_type(self, subscription: Subscription, other: Any) -> None:
        topic, wanted, theirs = subscription.topic, subscription.type_name, other.topic_type
        self._warn(
            topic,
            theirs,
            f"{full_name(other)} publishes '{topic}' as {theirs}, but this node takes {wanted}: "
            f'none of it arrives. {self._advice(subscription, theirs)}',
        )

    def _tell_missing(self, subscription: Subscription) -> None:
        topic, wanted = subscription.topic, subscription.type_name
        others = sorted(
            name
            for name, types in self._node.get_topic_names_and_types()
            if wanted in types and name != topic and self._node.count_publishers(name)
        )
        text = f"nobody publishes '{topic}' ({wanted}) yet"
        if others:
            named = ', '.join(f"'{name}'" for name in others[:NAMED])
            more = f' and {len(others) - NAMED} more' if len(others) > NAMED else ''
            text += f'; of this type there are {named}{more}'
        self._warn(topic, 'missing', text)

    def _warn(self, topic: str, what: str, text: str) -> None:
        now = self._clock()
        if now - self._told.get((topic, what), -REPEAT) >= REPEAT:
            self._told[topic, what] = now
            self._node.get_logger().warning(text.rstrip())

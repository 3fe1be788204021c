"""Quality of service from parameters, and a log line that names both sides when they disagree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)

from msfc_ros.parameters import declare

RELIABILITIES = {
    'reliable': ReliabilityPolicy.RELIABLE,
    'best_effort': ReliabilityPolicy.BEST_EFFORT,
}

DISCOVERY = 1.0
"""Seconds after which the name of a node is known whose endpoint has just been seen."""

LATCHED = QoSProfile(
    depth=1,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""For what is said once and has to reach those who come later."""


def declare_qos(node: Node, name: str, what: str, reliability: str, depth: int = 1) -> QoSProfile:
    """Declare ``qos.<name>.reliability`` and ``qos.<name>.depth`` and return their profile.

    Args:
        node: the node.
        name: name of the topic in the parameters.
        what: the topic in words, for the descriptions.
        reliability: default of the first, a key of :data:`RELIABILITIES`.
        depth: default of the second.

    Raises:
        ValueError: if the reliability is unknown.
    """
    chosen = declare(
        node,
        f'qos.{name}.reliability',
        reliability,
        f'Reliability of {what}.',
        choices=tuple(RELIABILITIES),
        read_only=True,
    )
    depth = declare(
        node,
        f'qos.{name}.depth',
        depth,
        f'History depth of {what}, in messages.',
        limits=(1, 1000),
        read_only=True,
    )
    return QoSProfile(
        depth=depth,
        history=HistoryPolicy.KEEP_LAST,
        reliability=RELIABILITIES[chosen],
        durability=DurabilityPolicy.VOLATILE,
    )


def describe_qos(profile: QoSProfile) -> str:
    """Write what has to match of a profile in words."""
    return f'{profile.reliability.name.lower()}, {profile.durability.name.lower()}'


def subscription_events(
    node: Node, topic: str, profile: QoSProfile
) -> SubscriptionEventCallbacks:
    """Return event callbacks that say in words that a publisher's QoS does not fit."""
    return SubscriptionEventCallbacks(
        incompatible_qos=_report(
            node, topic, profile, 'a publisher', node.get_publishers_info_by_topic
        )
    )


def publisher_events(node: Node, topic: str, profile: QoSProfile) -> PublisherEventCallbacks:
    """Return event callbacks that say in words that a subscriber's QoS does not fit."""
    return PublisherEventCallbacks(
        incompatible_qos=_report(
            node, topic, profile, 'a subscriber', node.get_subscriptions_info_by_topic
        )
    )


def _report(
    node: Node, topic: str, profile: QoSProfile, who: str, endpoints: Callable[[str], Any]
) -> Callable[[Any], None]:
    def tell(policy: str) -> None:
        others = '; '.join(
            sorted(
                {
                    f'{info.node_namespace.rstrip("/")}/{info.node_name}: '
                    f'{describe_qos(info.qos_profile)}'
                    for info in endpoints(node.resolve_topic_name(topic))
                }
            )
        )
        node.get_logger().error(
            f"No message passes to or from {who} of '{topic}': its {policy.lower()} does not fit. "
            f'Here: {describe_qos(profile)}. There: {others or "gone already"}. '
            'Change the qos parameters of one of the two.'
        )

    def report(event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)

        def later() -> None:
            node.destroy_timer(timer)
            tell(policy)

        timer = node.create_timer(
            DISCOVERY, later, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    return report

"""Quality of service from parameters, what is lost on the way, and who does not fit with whom."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, cast

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.exceptions import InvalidHandle, ParameterException
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSCompatibility,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions

from msfc_ros.parameters import declare

RELIABILITIES = {
    'reliable': ReliabilityPolicy.RELIABLE,
    'best_effort': ReliabilityPolicy.BEST_EFFORT,
    'best_available': ReliabilityPolicy.BEST_AVAILABLE,
    'system_default': ReliabilityPolicy.SYSTEM_DEFAULT,
}
"""Values of the parameters; ``best_available`` is what the other end offers."""

OVERRIDABLE = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
    QoSPolicyKind.DEADLINE,
)
"""Policies for which there are parameters ``qos_overrides.<topic>.<entity>.<policy>``."""

DISCOVERY = 1.0
"""Seconds after which the name of a node is known whose endpoint has just been seen."""

LATCHED = QoSProfile(
    depth=1,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""For what is said once and has to reach those who come later."""

_UNSET = Duration()
_INFINITE = Duration(nanoseconds=2**63 - 1)
_UNNUMBERED = (None, 0, 2**64 - 1)  # the last is RMW_MESSAGE_INFO_SEQUENCE_NUMBER_UNSUPPORTED


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
        f'Reliability of {what}; best_available is that of the other end.',
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


# -- endpoints whose QoS a user can override --


def best_reliability(publishers: Iterable[Any]) -> ReliabilityPolicy:
    """Return the best reliability with which all publishers can be subscribed to.

    It is what ``BEST_AVAILABLE`` comes to. The middleware decides that once, when the subscription
    is made, and often before it has discovered anybody.

    Args:
        publishers: as ``get_publishers_info_by_topic`` gives them.
    """
    offered = {publisher.qos_profile.reliability for publisher in publishers}
    if ReliabilityPolicy.BEST_EFFORT in offered:
        return ReliabilityPolicy.BEST_EFFORT
    return ReliabilityPolicy.RELIABLE


class Subscription:
    """A subscription that obeys ``qos_overrides`` and says who does not fit with it.

    Where its reliability is ``BEST_AVAILABLE`` it is that of the publishers; :meth:`follow`
    subscribes anew when they change.

    Args:
        node: the node.
        message_type: type of the messages.
        topic: the topic.
        qos: quality of service where no override says otherwise.
        callback: called with the message and what the middleware knows of it.
        raw: the callback gets serialised messages.

    Attributes:
        topic: resolved name of the topic.
        message_type: type of the messages.

    Raises:
        ValueError: if an override is not valid.
    """

    def __init__(
        self,
        node: Node,
        message_type: type,
        topic: str,
        qos: QoSProfile,
        callback: Callable[[Any, dict[str, Any]], None],
        raw: bool = False,
    ) -> None:
        self._node = node
        self.message_type = message_type
        self.topic = node.resolve_topic_name(topic)
        self._follows = False
        self._create = partial(
            _with_overrides,
            node,
            topic,
            qos,
            partial(node.create_subscription, message_type, topic, callback, raw=raw),
            self._events,
            self._choose,
        )
        self._subscription = self._create()

    @property
    def qos_profile(self) -> QoSProfile:
        """Its quality of service, with the reliability that it has at present."""
        return cast(QoSProfile, self._subscription.qos_profile)

    @property
    def type_name(self) -> str:
        """Name of the messages' type, as tools show it."""
        package, _, _ = self.message_type.__module__.partition('.')
        return f'{package}/msg/{self.message_type.__name__}'

    def publishers(self) -> list[Any]:
        """Return who publishes the topic, messages of whatever type."""
        return list(self._node.get_publishers_info_by_topic(self.topic))

    def publisher_count(self) -> int:
        """Return how many publishers are matched with it; 0 while it is being destroyed."""
        try:
            return int(self._subscription.get_publisher_count())
        except InvalidHandle:
            return 0

    def follow(self) -> bool:
        """Subscribe anew if another reliability fits better; return whether it was so."""
        if not self._follows:
            return False
        publishers = self._of_its_type()
        if not publishers or best_reliability(publishers) == self.qos_profile.reliability:
            return False
        self.destroy()
        self._subscription = self._create()
        return True

    def destroy(self) -> None:
        """End it."""
        self._node.destroy_subscription(self._subscription)

    def _of_its_type(self) -> list[Any]:
        return [other for other in self.publishers() if other.topic_type == self.type_name]

    def _events(self, profile: QoSProfile) -> SubscriptionEventCallbacks:
        report = _report(self._node, self.topic, profile, True, lambda: self._follows)
        return SubscriptionEventCallbacks(incompatible_qos=report)

    def _choose(self, profile: QoSProfile) -> None:
        """Put a reliability in place of the best available one."""
        if profile.reliability == ReliabilityPolicy.BEST_AVAILABLE:
            self._follows = True
            profile.reliability = best_reliability(self._of_its_type())


def create_publisher(node: Any, message_type: type, topic: str, qos: QoSProfile) -> Any:
    """Create a life cycle publisher that obeys ``qos_overrides`` and says who does not fit.

    Args:
        node: the node.
        message_type: type of the messages.
        topic: the topic.
        qos: quality of service where no override says otherwise.

    Raises:
        ValueError: if an override is not valid.
    """

    def events(profile: QoSProfile) -> PublisherEventCallbacks:
        return PublisherEventCallbacks(incompatible_qos=_report(node, topic, profile, False))

    create = partial(node.create_lifecycle_publisher, message_type, topic)
    return _with_overrides(node, topic, qos, create, events, _serve_all)


def _serve_all(profile: QoSProfile) -> None:
    """Put a reliability in place of the best available one: reliable serves both kinds."""
    if profile.reliability == ReliabilityPolicy.BEST_AVAILABLE:
        profile.reliability = ReliabilityPolicy.RELIABLE


def _with_overrides(
    node: Node,
    topic: str,
    qos: QoSProfile,
    create: Callable[..., Any],
    events: Callable[[QoSProfile], Any],
    choose: Callable[[QoSProfile], None],
) -> Any:
    # rclpy writes the overrides into the profile that it is given.
    profile = copy.copy(qos)

    def check(overridden: QoSProfile) -> SetParametersResult:
        if overridden.depth < 1:
            reason = f'a depth of {overridden.depth} is not accepted, 1 is the least'
            return SetParametersResult(successful=False, reason=reason)
        choose(overridden)
        return SetParametersResult(successful=True)

    try:
        return create(
            profile,
            event_callbacks=events(profile),
            qos_overriding_options=QoSOverridingOptions(OVERRIDABLE, callback=check),
        )
    except (RuntimeError, InvalidQosOverridesError, ParameterException) as error:
        name = node.resolve_topic_name(topic)
        raise ValueError(f"topic '{name}' cannot have this QoS: {error}") from error


# -- what is lost --


class LossCounter:
    """Counts messages that were published but never handed over, by their publisher's numbers.

    Numbers are missing both when the network loses messages and when messages replace each other
    before the node takes them, of which the middleware's message-lost event says nothing.
    """

    def __init__(self) -> None:
        self._last: int | None = None

    def missed(self, info: Mapping[str, Any], publishers: Callable[[], int]) -> int:
        """Return how many messages were missed between the last one and this.

        Args:
            info: what the middleware knows of this message.
            publishers: returns how many publish the topic. The numbers do not tell whose they
                are, so with several nothing is counted.
        """
        number = info.get('publication_sequence_number')
        if number in _UNNUMBERED:
            return 0
        last, self._last = self._last, number
        # A smaller number is that of a publisher that was started anew.
        missed = number - last - 1 if last is not None and number > last else 0
        return missed if missed and publishers() == 1 else 0


# -- who does not fit --


def describe_qos(profile: QoSProfile) -> str:
    """Write what has to match of a profile in words."""
    words = [profile.reliability.name.lower(), profile.durability.name.lower()]
    if profile.deadline not in (_UNSET, _INFINITE):
        words.append(f'deadline {profile.deadline.nanoseconds * 1e-9:g} s')
    if profile.liveliness == LivelinessPolicy.MANUAL_BY_TOPIC:
        words.append('liveliness manual by topic')
    if profile.liveliness_lease_duration not in (_UNSET, _INFINITE):
        words.append(f'lease {profile.liveliness_lease_duration.nanoseconds * 1e-9:g} s')
    return ', '.join(words)


def misfits(
    here: QoSProfile, others: Iterable[Any], here_subscribes: bool
) -> list[tuple[str, str, str]]:
    """Return those of the other endpoints that do not fit, once each, in order of their names.

    Args:
        here: profile of the node's own endpoint.
        others: the other endpoints, as ``get_publishers_info_by_topic`` gives them.
        here_subscribes: the own endpoint is a subscription and the others are publishers; else
            the other way round.

    Returns:
        For each its node's full name, its profile in words and rclpy's reasons.
    """
    found = set()
    for other in others:
        pair = [_explicit(here), _explicit(other.qos_profile)]
        compatibility, reasons = qos_check_compatible(*(pair[::-1] if here_subscribes else pair))
        if compatibility == QoSCompatibility.ERROR:
            name = f'{other.node_namespace.rstrip("/")}/{other.node_name}'
            found.add((name, describe_qos(other.qos_profile), _sentence(reasons)))
    return sorted(found)


def _explicit(profile: QoSProfile) -> QoSProfile:
    """Return a profile with times that are left open, as our own are, made infinite.

    Those of discovered endpoints are, and rclpy takes the two for different.
    """
    explicit = copy.copy(profile)
    for policy in ('deadline', 'liveliness_lease_duration'):
        if getattr(explicit, policy) == _UNSET:
            setattr(explicit, policy, _INFINITE)
    return explicit


def _report(
    node: Node,
    topic: str,
    profile: QoSProfile,
    subscribes: bool,
    follows: Callable[[], bool] = lambda: False,
) -> Callable[[Any], None]:
    """Return an event callback that says in words whose QoS does not fit.

    Args:
        node: the node.
        topic: the topic.
        profile: QoS of the node's endpoint.
        subscribes: it is a subscription.
        follows: whether it takes the others' reliability; then that is nothing to tell of.
    """

    def tell(policy: str) -> None:
        name = node.resolve_topic_name(topic)
        endpoints = (
            node.get_publishers_info_by_topic(name)
            if subscribes
            else node.get_subscriptions_info_by_topic(name)
        )
        here = copy.copy(profile)
        if follows():
            here.reliability = ReliabilityPolicy.BEST_EFFORT
            policy = '' if policy == QoSPolicyKind.RELIABILITY.name else policy
        for who, theirs, why in misfits(here, endpoints, subscribes):
            node.get_logger().error(
                _incompatible(name, who, theirs, describe_qos(here), why, subscribes)
            )
            policy = ''
        if policy:
            # Gone already, or the middleware knows more than it tells of others' endpoints.
            node.get_logger().error(
                _incompatible(
                    name,
                    'an endpoint that is gone',
                    f'another {policy.lower()}',
                    describe_qos(here),
                    f'{policy.lower()} does not fit',
                    subscribes,
                )
            )

    def report(event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)

        def later() -> None:
            node.destroy_timer(timer)
            tell(policy)

        timer = node.create_timer(DISCOVERY, later, clock=Clock(clock_type=ClockType.STEADY_TIME))

    return report


def _incompatible(topic: str, who: str, theirs: str, ours: str, why: str, subscribes: bool) -> str:
    """Return the log line that says who does not get whose messages, and why."""
    if subscribes:
        passes, offered, wanted = f'from {who}', f'it offers {theirs}', f'wanted here is {ours}'
    else:
        passes, offered, wanted = f'to {who}', f'offered here is {ours}', f'it wants {theirs}'
    end = 'subscription' if subscribes else 'publisher'
    return (
        f"no message of topic '{topic}' passes {passes}: {offered}; {wanted} ({why}). Change the "
        f'QoS of one of the two; here by the parameters qos.* or qos_overrides.{topic}.{end}.*'
    )


def _sentence(reasons: str) -> str:
    """Return rclpy's list of reasons without its severities and separators."""
    parts = [part.strip().removeprefix('ERROR: ') for part in reasons.split(';')]
    return '; '.join(part for part in parts if part and not part.startswith('WARNING'))

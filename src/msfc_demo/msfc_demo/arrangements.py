"""Where the demo's processes run, and what is between edge and cloud.

:class:`OneGraph` has them all in one ROS 2 graph of this machine, :class:`PacedGraph` as well but
with a link that this process makes, :class:`Namespaces` on two hosts that are network namespaces,
with a link between them that carries real packets.
"""

from __future__ import annotations

import json
import os
import queue
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

import rclpy
from msfc_msgs.msg import InstanceArray
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions

from msfc_demo.link_shape import LinkShape
from msfc_demo.monitor import FrameJoiner, Monitor, Stamp
from msfc_demo.paced_link import CLOUD_SIDE, EDGE_SIDE, PacedRelay, Relayed
from msfc_demo.processes import NodeError
from msfc_demo.shaped_link import Crossing, ShapedHosts, tun_obstacle
from msfc_demo.tap import GRAPH, TOPICS, read_record
from msfc_demo.two_hosts import Host, obstacle
from msfc_ros.fast_dds import PROFILE, VARIABLES, use_profile

LOCAL = ('env', 'ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST')
"""What to put before a command of a host that only those on the same host are to know of."""

HEARD = {
    'robot': ('ground_truth', 'features', '/diagnostics'),
    'cloud': ('instances', '/diagnostics'),
}
"""What is heard on each host, beside the camera's images."""

ANNOUNCED = 3
"""Seconds after which edge and cloud announce themselves again, to each other, over the link."""

XMLNS = 'http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles'

UNMATCHED = 500
"""Messages at most of which it is not known yet what became of them."""


class Listener(Protocol):
    """What :class:`msfc_demo.monitor.Monitor` is, wherever it listens."""

    def missing(self) -> list[str]:
        """Return the processes that are not ready yet."""

    def listen_to_camera(self) -> None:
        """Subscribe to the images, which the camera waits for."""

    def spin_once(self, seconds: float) -> None:
        """Take a message, or wait for one for some seconds at most."""

    def close(self) -> None:
        """Listen no more."""


class OneGraph:
    """All in one graph, with nothing between edge and cloud.

    Attributes:
        how: what makes the link, in words; empty if there is none.
    """

    how = ''

    def __init__(self, environment: Mapping[str, str], paced: bool) -> None:
        self._environment = dict(environment)
        self._paced = paced

    def prefix(self, node: str) -> Sequence[str]:
        """Return what to put before the command of a node."""
        return ()

    def parameters(self, node: str) -> dict[str, object]:
        """Return the parameters that a node needs here."""
        return {}

    def listen(self, joiner: FrameJoiner) -> Listener:
        """Begin to listen to the nodes.

        Args:
            joiner: what is heard is for.
        """
        # For this process's own part in the graph.
        os.environ.update(self._environment)
        use_profile()
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        return Monitor(joiner, self._paced, self._features_topic())

    def narrow(self) -> None:
        """Let the link be what it is to be; the nodes have found each other."""

    def passed(self) -> list[Relayed]:
        """Return what became of messages on the link, since this was last asked."""
        return []

    def note_sent(self, stamp: Stamp) -> None:
        """Take note of a message of the edge."""

    def close(self) -> None:
        """End what was begun."""
        rclpy.try_shutdown()

    def _features_topic(self) -> str:
        return 'features'


class PacedGraph(OneGraph):
    """All in one graph, with a link between edge and cloud that this process makes.

    Args:
        shape: of the link.
        why: there are no two hosts, in words.
        environment: of the nodes.
    """

    def __init__(self, shape: LinkShape, why: str, environment: Mapping[str, str]) -> None:
        super().__init__(environment, paced=False)
        self.how = f'messages are held back by the demo itself, as {why}'
        self._shape = shape
        self._relay: PacedRelay | None = None
        self._passed: queue.SimpleQueue[Relayed] = queue.SimpleQueue()

    def parameters(self, node: str) -> dict[str, object]:
        """Return the parameters that a node needs here, see :meth:`OneGraph.parameters`."""
        return {
            'edge': {'features_topic': f'{EDGE_SIDE}/features'},
            'cloud': {'link_report_topic': f'{CLOUD_SIDE}/link_report'},
        }.get(node, {})  # type: ignore[return-value]

    def listen(self, joiner: FrameJoiner) -> Listener:
        """Begin to listen and to relay, see :meth:`OneGraph.listen`."""
        listener = super().listen(joiner)
        self._relay = PacedRelay(self._shape, self._passed.put)
        return listener

    def passed(self) -> list[Relayed]:
        """Return what became of messages, see :meth:`OneGraph.passed`."""
        return [self._passed.get() for _ in range(self._passed.qsize())]

    def close(self) -> None:
        """End the link, see :meth:`OneGraph.close`."""
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.close()
        super().close()

    def _features_topic(self) -> str:
        return f'{EDGE_SIDE}/features'


class Namespaces:
    """Camera and edge on one host, the cloud on another: network namespaces, packets between them.

    This process is on neither: on each a :mod:`tap <msfc_demo.tap>` listens for it, of which
    nothing crosses the link.

    Args:
        shape: of the link.
        environment: of the nodes.
        logs: folder of the taps' output.

    Attributes:
        how: what makes the link, in words.

    Raises:
        HostError: if the hosts cannot be made.
    """

    how = 'two network namespaces with a shaped link between them'

    def __init__(self, shape: LinkShape, environment: Mapping[str, str], logs: Path) -> None:
        self._shape = shape
        self._logs = logs
        self._profile = (logs / 'fast_dds.xml').resolve()
        self._profile.write_bytes(seldom_announced(PROFILE))
        self._hosts = ShapedHosts(environment)
        self._sent: list[Stamp] = []
        self._unknown: list[Crossing] = []

    def prefix(self, node: str) -> Sequence[str]:
        """Return what to put before the command of a node."""
        if node == 'camera':
            return [*self._hosts.robot.prefix, *LOCAL]
        host = self._hosts.cloud if node == 'cloud' else self._hosts.robot
        return [*host.prefix, 'env', *(f'{name}={self._profile}' for name in VARIABLES)]

    def parameters(self, node: str) -> dict[str, object]:
        """Return the parameters that a node needs here."""
        # A repeat comes late and fills the link.
        best_effort: dict[str, object] = {'qos.features.reliability': 'best_effort'}
        return best_effort if node in ('edge', 'cloud') else {}

    def listen(self, joiner: FrameJoiner) -> Listener:
        """Begin to listen to the nodes."""
        self._hosts.crossings()
        hosts = {'robot': self._hosts.robot, 'cloud': self._hosts.cloud}
        return TapListener(joiner, hosts, self._logs)

    def narrow(self) -> None:
        """Let the link be what it is to be; what DDS says at first would fill its queue."""
        shape = self._shape
        self._hosts.shape(shape.rate, shape.loss, shape.delay, shape.queue)

    def note_sent(self, stamp: Stamp) -> None:
        """Take note of a message of the edge."""
        self._sent = [*self._sent, stamp][-UNMATCHED:]

    def passed(self) -> list[Relayed]:
        """Return what became of messages on the link, since this was last asked."""
        found, unknown = [], []
        for crossing in [*self._unknown, *self._hosts.crossings()]:
            stamp = next((one for one in self._sent if stamp_bytes(one) in crossing.head), None)
            if stamp is None:
                # The tap may not have told of it yet; or it is none of the edge's messages.
                unknown.append(crossing)
            else:
                self._sent.remove(stamp)
                found.append(Relayed(stamp, crossing.delay))
        self._unknown = unknown[-UNMATCHED:]
        return found

    def close(self) -> None:
        """End both hosts; the nodes have to end before."""
        self._hosts.close()


def seldom_announced(profile: Path) -> bytes:
    """Return a profile of Fast DDS whose processes announce themselves every :data:`ANNOUNCED`.

    As docs/network.md says for thin links: otherwise announcements take 15 kbit/s a process.
    """
    tree = ElementTree.parse(profile)
    space = {'dds': XMLNS}
    for name, value in (('sec', ANNOUNCED), ('nanosec', 0)):
        element = tree.find(f'.//dds:leaseAnnouncement/dds:{name}', space)
        assert element is not None
        element.text = str(value)
    ElementTree.register_namespace('', XMLNS)
    return ElementTree.tostring(tree.getroot(), encoding='utf-8')


def stamp_bytes(stamp: Stamp) -> bytes:
    """Return the stamp of a header as it is in a serialised message."""
    return struct.pack('<iI', *stamp)


class TapListener:
    """Listens on two hosts by a process on each.

    Args:
        joiner: what is heard is for.
        hosts: by name, of :data:`HEARD`.
        logs: folder of what these processes say.
    """

    def __init__(self, joiner: FrameJoiner, hosts: Mapping[str, Host], logs: Path) -> None:
        self._joiner = joiner
        self._records: queue.SimpleQueue[tuple[str, int, bytes]] = queue.SimpleQueue()
        self._graph: dict[str, int] = {}
        self._taps: dict[str, subprocess.Popen[bytes]] = {}
        for name, host in hosts.items():
            with (logs / f'tap_{name}.log').open('wb') as log:
                tap = subprocess.Popen(
                    [*host.prefix, *LOCAL, sys.executable, '-m', 'msfc_demo.tap'],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                )
            self._taps[name] = tap
            threading.Thread(target=self._read, args=(name, tap), daemon=True).start()
            for topic in HEARD[name]:
                self._hear(name, topic)

    def missing(self) -> list[str]:
        """Return the processes that are not ready yet, see :meth:`Monitor.missing`."""
        listeners = self._joiner.listeners
        return [
            name
            for name, ready in (
                ('camera', self._graph.get('cameras', 0) > 0),
                ('cloud', listeners['decoding'] >= 1),
                # The cloud, and the tap.
                ('edge', self._graph.get('edges', 0) > 0 and listeners['encoding'] > 1),
            )
            if not ready
        ]

    def listen_to_camera(self) -> None:
        """Subscribe to the images, which the camera waits for."""
        self._hear('robot', 'image_raw')

    def spin_once(self, seconds: float) -> None:
        """Take a message, or wait for one for some seconds at most.

        Raises:
            NodeError: if one of the processes that listen has ended.
        """
        try:
            topic, received, data = self._records.get(timeout=seconds)
        except queue.Empty:
            self._check()
            return
        if topic == GRAPH:
            self._graph = self._graph | json.loads(data)
        elif topic == 'features':
            self._joiner.features(data)
        elif topic == 'instances':
            self._joiner.instances(deserialize_message(data, InstanceArray), received)
        else:
            takers: dict[str, Any] = {
                'image_raw': self._joiner.image,
                'ground_truth': self._joiner.truth,
                '/diagnostics': self._joiner.diagnostics,
            }
            takers[topic](deserialize_message(data, TOPICS[topic]))

    def close(self) -> None:
        """Listen no more."""
        for tap in self._taps.values():
            tap.kill()
            tap.wait()
            if tap.stdin is not None:
                tap.stdin.close()

    def _hear(self, host: str, topic: str) -> None:
        stream = self._taps[host].stdin
        assert stream is not None
        stream.write(f'{topic}\n'.encode())
        stream.flush()

    def _read(self, name: str, tap: subprocess.Popen[bytes]) -> None:
        assert tap.stdout is not None
        with tap.stdout as stream:
            while (record := read_record(stream)) is not None:
                # The cloud's host has no camera.
                if record[0] != GRAPH or name == 'robot':
                    self._records.put(record)

    def _check(self) -> None:
        for name, tap in self._taps.items():
            if tap.poll() is not None:
                raise NodeError(f'what listens on the host of the {name} has ended')


def namespaces_obstacle() -> str:
    """Return why there can be no two hosts with a link between them, in words; or nothing."""
    return obstacle('nice') or tun_obstacle()

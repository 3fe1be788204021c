"""The runs of ``benchmarks/link.py`` with the nodes, on two hosts: network namespaces.

Needs root and ROS 2. Sizes and delays are those of the datagrams on the link.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tests'))

from agents import Agent, wait_until
from link_pair import HEIGHT, SMALLEST, WIDTH, LinkPair, save_small_model
from msfc_demo.arrangements import LOCAL, seldom_announced
from msfc_demo.shaped_link import ShapedHosts, tun_obstacle
from msfc_demo.two_hosts import obstacle
from msfc_ros.fast_dds import PROFILE, VARIABLES
from ros_fixtures import NodeProcess
from tcp_flow import tcp_flow

if TYPE_CHECKING:
    from link import Run, Sharing

FIXED_RATE = 16
"""The edge's rate without the loop; its messages are those of :data:`link.FIXED`."""

LOOK = 0.2
"""Seconds between two looks at the edge's diagnostics."""

SETTLE = 4.0
"""Seconds on the wide link before a run begins."""

SHARED_RATE = 5.0
"""Images per second of the edges that share a link."""

SENDER = slice(36, 48)
"""Where in a datagram the sender is told, behind the headers of IP and UDP: RTPS's prefix of the
GUIDs, which is that of the process."""

PATIENCE = 120.0
"""Seconds until a wait has failed."""


def check_hosts() -> None:
    """Raise a ValueError that says why, if there can be no two hosts here."""
    if why_not := obstacle('nice') or tun_obstacle():
        raise ValueError(why_not)


def run_on_hosts(runs: Sequence[Run], console: Console) -> list[Run]:
    """Fill in runs, all with the same two nodes.

    Args:
        runs: the conditions.
        console: tells which one runs.

    Raises:
        ValueError: if there can be no two hosts here.
    """
    if not runs:
        return []
    check_hosts()
    with tempfile.TemporaryDirectory() as folder, LinkPair(Path(folder), adaptive=False) as pair:
        pair.film(runs[0].scenario.fps)
        pair.wait(pair.features, 'the first features')
        for run in runs:
            console.print(f'{run.name}, loop {"on" if run.loop else "off"}', highlight=False)
            pair.set_edge('rate', -2 if run.loop else FIXED_RATE)
            # It begins anew in each.
            pair.set_edge('adaptive', False)
            pair.set_edge('adaptive', run.loop)
            _Course(run, pair).take()
    return list(runs)


class _Course:
    """One run from its beginning to its end.

    Args:
        run: to fill in.
        pair: the nodes and the link, at work.
    """

    def __init__(self, run: Run, pair: LinkPair) -> None:
        self._run, self._scenario, self._pair = run, run.scenario, pair
        self._begin = 0.0

    def take(self) -> Run:
        """Let it take place; return it."""
        pair, scenario = self._pair, self._scenario
        self._shape(scenario.rates[0][1])
        pair.features_for(SETTLE)
        looked = len(pair.hosts.samples())
        self._begin = time.time()
        with ExitStack() as stack:
            events: list[tuple[float, Any]] = [
                (at, lambda rate=rate: self._shape(rate)) for at, rate in scenario.rates[1:]
            ]
            if self._run.tcp:
                begin, end = scenario.tcp
                flow = tcp_flow(pair.hosts, self._run.segment)
                events.append((begin, lambda: stack.enter_context(flow)))
                events.append((end, stack.close))
            for at, event in [*sorted(events, key=lambda item: item[0]), (scenario.end, None)]:
                self._watch_until(at)
                if event is not None:
                    event()
        self._note_tcp(pair.hosts.samples()[looked:])
        self._run.load = os.getloadavg()[0]
        return self._run

    def _shape(self, rate: float) -> None:
        scenario = self._scenario
        fair = self._run.fair
        self._pair.hosts.shape(rate, self._run.loss, scenario.delay, scenario.limit, fair)

    def _watch_until(self, at: float) -> None:
        while (now := time.time() - self._begin) < at:
            if self._run.loop:
                self._run.estimates.append((now, self._pair.value('edge', 'link_bitrate')))
            self._run.messages += [
                (sent - self._begin, size, delay)
                for sent, size, delay in self._pair.features()
                if sent >= self._begin
            ]
            self._pair.wait(lambda: True, 'nothing')
            time.sleep(max(0.0, min(LOOK, at - (time.time() - self._begin))))

    def _note_tcp(self, samples: Sequence[dict[str, float]]) -> None:
        if not self._run.tcp:
            return
        for before, sample in pairwise(samples):
            bits = 8.0 * (sample['tcp'] - before['tcp'])
            self._run.tcp_bits.append((sample['time'] - self._begin, bits))


# -- several edges --


def share_on_hosts(
    sharings: Sequence[Sharing], weights: Sequence[float], console: Console
) -> list[Sharing]:
    """Let edges share a link; fill in what they sent, all with the same nodes.

    Args:
        sharings: the conditions.
        weights: of the edges.
        console: tells which one runs.

    Raises:
        ValueError: if there can be no two hosts here.
    """
    if not sharings:
        return []
    check_hosts()
    with tempfile.TemporaryDirectory() as folder, _Group(Path(folder), weights) as group:
        for sharing in sharings:
            console.print(f'{len(weights)} edges, {sharing.name}', highlight=False)
            group.share(sharing)
    return list(sharings)


class _Group:
    """Edges on one host with a camera before them, their cloud on the other; a context manager.

    Args:
        folder: for logs and the model.
        weights: of the edges.
    """

    def __init__(self, folder: Path, weights: Sequence[float]) -> None:
        self._folder = folder
        profile = folder / 'fast_dds.xml'
        profile.write_bytes(seldom_announced(PROFILE))
        self._hosts = ShapedHosts(
            {
                'ROS_DOMAIN_ID': '7',  # nobody else is in there
                'ROS_LOG_DIR': str(folder),
                'OMP_NUM_THREADS': '1',
                **dict.fromkeys(VARIABLES, str(profile)),
            }
        )
        self._nodes: list[NodeProcess] = []
        self._agents: list[Agent] = []
        self._senders: dict[bytes, int] = {}
        try:
            self._start(weights)
        except BaseException:
            self.close()
            raise

    def _start(self, weights: Sequence[float]) -> None:
        cloud, robot = self._hosts.cloud, self._hosts.robot
        save_small_model(self._folder / 'model')
        names = [f'robot_{number}' for number in range(1, 1 + len(weights))]
        own = {'cameras': names, 'weights': list(weights), 'link_budget': 1e6}
        self._node('cloud', [], own, cloud.prefix)
        self._agents.append(Agent(cloud, self._folder / 'agent_cloud.log'))
        # What the camera says does not cross the link.
        self._agents.append(Agent(robot, self._folder / 'agent_robot.log', prefix=LOCAL))
        self._agents[1].ask('film', height=HEIGHT, width=WIDTH, rate=SHARED_RATE, count=0)
        edge = {'adaptive': True, 'rate': -2, 'qos__image__reliability': 'reliable'}
        for number, name in enumerate(names):
            remap = ['-r', f'__ns:=/{name}', '-r', 'image_raw:=/image_raw']
            self._node('edge', remap, edge, robot.prefix)
            wait_until(
                lambda number=number: self._meets(number), f'what {name} sends', PATIENCE, 0.2
            )

    def _node(
        self, kind: str, remap: list[str], parameters: dict[str, Any], prefix: list[str]
    ) -> None:
        # The diagnostics of all would fill the link.
        arguments = ['--ros-args', '-r', f'/diagnostics:=/{kind}_diagnostics', *remap]
        common = {'model': self._folder / 'model', 'qos__features__reliability': 'best_effort'}
        package, executable = f'msfc_{kind}', f'{kind}_node'
        self._nodes.append(
            NodeProcess(package, executable, arguments, common | parameters, self._folder, prefix)
        )

    def _meets(self, number: int) -> bool:
        """Return whether a process that was not known yet has sent; take it for that edge.

        On a busy machine its first features come seconds later.
        """
        for one in self._hosts.crossings():
            if one.size >= SMALLEST:
                self._senders.setdefault(one.head[SENDER], number)
        return number in self._senders.values()

    def __enter__(self) -> _Group:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything."""
        for node in self._nodes:
            if node.running():
                node.stop(signal.SIGKILL)
        for agent in self._agents:
            agent.kill()
        self._hosts.close()

    def share(self, sharing: Sharing) -> None:
        """Let the edges share a link, and fill in what they sent."""
        budget = {'node': 'msfc_cloud', 'name': 'link_budget', 'value': sharing.budget}
        refused = self._agents[0].ask('set_parameter', **budget)
        assert not refused, refused
        self._hosts.shape(sharing.rate)
        self._hosts.crossings()
        begin = time.time()
        sharing.edges = [[] for _ in range(len(self._nodes) - 1)]
        while time.time() - begin < sharing.end:
            time.sleep(0.5)
            for node in self._nodes:
                assert node.running(), node.output[-3000:]
            for one in self._hosts.crossings():
                if one.size >= SMALLEST and one.head[SENDER] in self._senders:
                    edge = sharing.edges[self._senders[one.head[SENDER]]]
                    edge.append((one.at - begin, one.size, one.delay))

"""The runs of ``benchmarks/link.py`` with both nodes, on two hosts: network namespaces.

Needs root and ROS 2. The model is small, with random weights and messages as large as those of the
shipped model; sizes and delays are those of the datagrams on the link.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tests'))

from link_pair import LinkPair
from msfc_demo.shaped_link import tun_obstacle
from msfc_demo.two_hosts import obstacle
from tcp_flow import tcp_flow

if TYPE_CHECKING:
    from link import Run, Scenario

FIXED_RATE = 16
"""The edge's rate without the loop; its messages are those of :data:`link.FIXED`."""

LOOK = 0.2
"""Seconds between two looks at the edge's diagnostics."""

SETTLE = 5.0
"""Seconds after the first message before a run begins."""


def run_on_hosts(runs: Iterable[Run], scenario: Scenario, console: Console) -> list[Run]:
    """Fill in runs.

    Args:
        runs: the conditions.
        scenario: what happens to the link.
        console: tells which one runs.

    Raises:
        ValueError: if there can be no two hosts here.
    """
    if why_not := obstacle('nice') or tun_obstacle():
        raise ValueError(why_not)
    filled = []
    with tempfile.TemporaryDirectory() as folder:
        for run in runs:
            console.print(f'{run.name}, loop {"on" if run.loop else "off"}', highlight=False)
            with LinkPair(Path(folder), run.loop, -2 if run.loop else FIXED_RATE) as pair:
                filled.append(_Course(run, scenario, pair).take())
    return filled


class _Course:
    """One run from its beginning to its end.

    Args:
        run: to fill in.
        scenario: what happens to the link.
        pair: the nodes and the link.
    """

    def __init__(self, run: Run, scenario: Scenario, pair: LinkPair) -> None:
        self._run, self._scenario, self._pair = run, scenario, pair
        self._begin = 0.0

    def take(self) -> Run:
        """Let it take place; return it."""
        pair, scenario = self._pair, self._scenario
        self._shape(scenario.rates[0][1])
        pair.film(scenario.fps)
        pair.wait(pair.features, 'the first features')
        pair.features_for(SETTLE)
        looked = len(pair.hosts.samples())
        self._begin = time.time()
        with ExitStack() as stack:
            events: list[tuple[float, Any]] = [
                (at, lambda rate=rate: self._shape(rate)) for at, rate in scenario.rates[1:]
            ]
            if self._run.tcp:
                begin, end = scenario.tcp
                events.append((begin, lambda: stack.enter_context(tcp_flow(pair.hosts))))
                events.append((end, stack.close))
            for at, event in [*sorted(events, key=lambda item: item[0]), (scenario.end, None)]:
                self._watch_until(at)
                if event is not None:
                    event()
        self._note_tcp(pair.hosts.samples()[looked:])
        return self._run

    def _shape(self, rate: float) -> None:
        scenario = self._scenario
        self._pair.hosts.shape(rate, self._run.loss, scenario.delay, scenario.limit)

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

"""The runs of ``benchmarks/link.py`` with both nodes, on two hosts: network namespaces.

Needs root and ROS 2. The model is small, with random weights and messages as large as those of the
shipped model; sizes and delays are those of the datagrams on the link.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
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
    from link import Run

FIXED_RATE = 16
"""The edge's rate without the loop; its messages are those of :data:`link.FIXED`."""

LOOK = 0.2
"""Seconds between two looks at the edge's diagnostics."""

SETTLE = 5.0
"""Seconds on the wide link before a run begins."""


MOST_REPEATED = 2
"""Runs that are repeated at most, so that it all ends."""


def run_on_hosts(
    runs: Sequence[Run], outlier: Callable[[Run], bool], console: Console
) -> list[Run]:
    """Fill in runs, all with the same two nodes.

    Args:
        runs: the conditions.
        outlier: says of a run whether it is to be repeated, once; the first stays in the list.
        console: tells which one runs.

    Raises:
        ValueError: if there can be no two hosts here.
    """
    if why_not := obstacle('nice') or tun_obstacle():
        raise ValueError(why_not)
    filled: list[Run] = []
    with tempfile.TemporaryDirectory() as folder, LinkPair(Path(folder), adaptive=False) as pair:
        pair.film(runs[0].scenario.fps)
        pair.wait(pair.features, 'the first features')
        waiting = list(runs)
        while waiting:
            run = waiting.pop(0)
            console.print(
                f'{run.name}, loop {"on" if run.loop else "off"}, attempt {run.attempt}',
                highlight=False,
            )
            pair.set_edge('rate', -2 if run.loop else FIXED_RATE)
            pair.set_edge('adaptive', run.loop)
            again = replace(run, messages=[], estimates=[], tcp_bits=[], attempt=2)
            filled.append(_Course(run, pair).take())
            repeated = sum(one.attempt > 1 for one in filled)
            if run.attempt == 1 and repeated < MOST_REPEATED and outlier(run):
                pair.set_edge('adaptive', False)
                waiting.insert(0, again)
    return filled


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
                events.append((begin, lambda: stack.enter_context(tcp_flow(pair.hosts))))
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

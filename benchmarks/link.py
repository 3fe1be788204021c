"""How the loop keeps to a link that falls and rises, with losses and a TCP flow beside it.

Ten frames a second go over a link of 10 Mbit/s that falls to 200 kbit/s and rises to 2 Mbit/s,
with and without ``adaptive``: with 0 and 5 % of the packets lost, with and without a TCP flow
beside them, in one queue with it, with fair queueing, and with that and small packets of TCP. Then
four edges share a narrow link, one of them with twice the weight. What messages of these bytes are
worth, and images of the same bytes, is read from what ``benchmarks/link_quality.py`` wrote:

    python benchmarks/link.py --json link.json --plot link.png             # a simulated link
    python benchmarks/link.py --hosts --json hosts.json --plot hosts.png   # nodes on two hosts

Simulated, the link, the edge's message sizes (``--sizes``) and TCP are models, the rest is
what the nodes use, and the result is the same on every machine. With ``--hosts`` the nodes run in
two network namespaces (root, ROS 2), and TCP is the kernel's; sizes and delays are those of the
datagrams on the link between them, which is shaped. That takes 11 minutes, and less with
``--only``. The model is small and its weights random, but its messages are as large as those of
``tabletop_msfc``; the four edges have 5 frames a second.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

from rich.console import Console
from rich.table import Table

_ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_ROOT / 'src' / 'msfc_core'), str(_ROOT / 'src' / 'msfc_core' / 'test')]

import harness  # noqa: E402
from link_quality import Quality, read_quality  # noqa: E402
from link_simulator import OVERHEAD, Edge, Tcp, World  # noqa: E402
from msfc.link.estimator import packets  # noqa: E402
from msfc.output import check_output_file  # noqa: E402


@dataclass(frozen=True)
class Scenario:
    """What happens to the link.

    Attributes:
        rates: from when it takes how much, in seconds and bit/s.
        end: when a run ends, in seconds.
        delay: seconds that a packet travels.
        limit: bytes of the queue in front of the link.
        fps: frames per second.
        tcp: when the TCP flow begins and ends, in seconds.
    """

    rates: tuple[tuple[float, float], ...] = ((0.0, 10e6), (20.0, 200e3), (50.0, 2e6))
    end: float = 80.0
    delay: float = 0.02
    limit: int = 60_000
    fps: float = 10.0
    tcp: tuple[float, float] = (5.0, 75.0)


SCENARIO = Scenario()

HOSTS_SCENARIO = Scenario(
    rates=((0.0, 10e6), (8.0, 200e3), (28.0, 2e6)), end=38.0, tcp=(1.0, 37.5)
)
"""Shorter, as it takes the time that it takes. What is queued when the link falls takes 5 s of it
to drain beside TCP."""

GOAL = 1.5
"""Times the idle one that the median delay is to have at most."""

QUALITY = _ROOT / 'docs' / 'results' / 'link' / 'quality.json'
SHARES = 'four edges'
"""What the runs with four edges are called."""

MODEL, IMAGES = 'tabletop_msfc', ('H.265 intra', 'JPEG')
"""What is compared in there."""

SETTLED = 3.0
"""Seconds after a change of the link from which on no queue should stand."""

SIZES = (764, 1404, 2684, 5244, 10_364)
"""Bytes of the shipped model's messages at n = 2, 4, 8, 16 and 32, for an image of 640 x 480."""

FIXED = 5244
"""Bytes of the messages without the loop."""

WEIGHTS = (1.0, 2.0, 1.0, 1.0)
"""Of the edges that share a link."""


@dataclass
class Run:
    """What happened on the link in one run; times are in seconds from its beginning.

    Attributes:
        loss: share of the packets lost.
        tcp: whether a TCP flow competes.
        fair: whether it and the messages have a queue each, and take turns.
        segment: bytes of data and options in a packet of TCP; None for all that the link takes.
        loop: whether the edge adapts.
        messages: time, bytes and delay of each, None if it was lost.
        estimates: time, and what the edge took the link for, in bit/s.
        tcp_bits: time, and bits that TCP has delivered since the time before.
        on_link: whether bytes are those on the link, with all headers, not those of messages.
        scenario: what happened to the link.
        load: processes that wanted a core by its end, mean of a minute; None if that is no matter.
    """

    loss: float
    tcp: bool
    fair: bool
    segment: int | None
    loop: bool
    messages: list[tuple[float, int, float | None]] = field(default_factory=list)
    estimates: list[tuple[float, float]] = field(default_factory=list)
    tcp_bits: list[tuple[float, float]] = field(default_factory=list)
    on_link: bool = False
    scenario: Scenario = SCENARIO
    load: float | None = None

    def idle_delay(self, size: int, rate: float) -> float:
        """Return the delay of a message on the link without a queue, in seconds.

        Args:
            size: its bytes.
            rate: bit/s of the link.
        """
        around = 0 if self.on_link else OVERHEAD + 20 * (packets(size) - 1)
        return self.scenario.delay + 8.0 * (size + around) / rate

    def message_bytes(self, size: int) -> int:
        """Return the bytes of the message that had so many of them here."""
        return message_bytes(size) if self.on_link else size

    @property
    def name(self) -> str:
        """The conditions in words."""
        words = [f'{self.loss:.0%} lost', 'TCP' * self.tcp, 'fair queues' * self.fair]
        words.append('small packets' * (self.segment is not None))
        return ', '.join(filter(None, words))


def message_bytes(size: int) -> int:
    """Return the bytes of the message of the shipped model that had so many on the link."""
    return max((one for one in SIZES if one <= size), default=size)


SMALL_SEGMENT = 536
"""Bytes of data and options in a packet of TCP where they are small: what every host takes (RFC
9293, section 3.7.1)."""

CONDITIONS: tuple[tuple[float, bool, bool, int | None], ...] = (
    (0.0, False, False, None), (0.05, False, False, None),
    (0.0, True, False, None), (0.05, True, False, None),
    (0.0, True, True, None), (0.0, True, True, SMALL_SEGMENT),
)  # fmt: skip
"""Loss, TCP, fair queueing, bytes of data and options in a packet of TCP."""

PACKET, AROUND_SEGMENT = 1500, 40
"""Bytes of a packet of TCP at most, and of its headers without options."""


def conditions(on_link: bool = False, scenario: Scenario = SCENARIO) -> Iterable[Run]:
    """Yield empty runs of all conditions."""
    for condition in CONDITIONS:
        for loop in (True, False):
            yield Run(*condition, loop, on_link=on_link, scenario=scenario)


def simulate(run: Run, sizes: Sequence[int], fixed: int) -> Run:
    """Fill in a run over a simulated link."""
    edge = Edge(fps=SCENARIO.fps, sizes=tuple(sizes) if run.loop else (fixed,), adaptive=run.loop)
    link = {'delay': SCENARIO.delay, 'limit': SCENARIO.limit}
    world = World([edge], list(SCENARIO.rates), loss=run.loss, fair=run.fair, **link)
    packet = run.segment + AROUND_SEGMENT if run.segment else PACKET
    flow = Tcp(world, *SCENARIO.tcp, size=packet) if run.tcp else None
    world.run(SCENARIO.end)
    run.messages = [
        (one.at, one.size, one.delay if one.arrived is not None else None) for one in edge.samples
    ]
    run.estimates = edge.estimates if run.loop else []
    run.tcp_bits = [(at, 8.0 * size) for at, size in flow.delivered] if flow else []
    return run


# -- what it comes to --


def phases(scenario: Scenario) -> list[tuple[float, float, float]]:
    """Return begin, end and bit/s of each phase, without the first seconds after a change."""
    rates = scenario.rates
    ends = [at for at, _ in rates[1:]] + [scenario.end]
    return [(at + SETTLED, end, rate) for (at, rate), end in zip(rates, ends, strict=True)]


def summarise(run: Run, quality: Mapping[str, Quality]) -> list[dict[str, Any]]:
    """Return the figures of each phase of a run.

    ``p50_ms`` and ``p95_ms`` are the median and the 95th percentile of the delay, ``p50_idle`` is
    the median of each message's delay by that of its size on the link without a queue. ``map_*``
    are means over what arrives: of the features, and of images with the same bytes; an image that
    is not to be had with so few is worth 0.

    Args:
        run: the run.
        quality: mask mAP over bytes, by name; empty if it is not known.
    """
    rows = []
    for begin, end, rate in phases(run.scenario):
        sent = [one for one in run.messages if begin <= one[0] < end]
        arrived = [(size, delay) for _, size, delay in sent if delay is not None]
        seconds = end - begin
        delays = sorted(delay for _, delay in arrived)
        rows.append(
            {
                'link_kbit_s': rate / 1e3,
                'conditions': run.name,
                'loop': run.loop,
                'hz': len(arrived) / seconds,
                'kbit_s': sum(8 * size for size, _ in arrived) / seconds / 1e3,
                'bytes': median(size for size, _ in arrived) if arrived else None,
                'lost': 1 - len(arrived) / len(sent) if sent else None,
                'p50_ms': 1e3 * median(delays) if delays else None,
                'p95_ms': 1e3 * delays[int(0.95 * len(delays))] if delays else None,
                'p50_idle': median(delay / run.idle_delay(size, rate) for size, delay in arrived)
                if arrived
                else None,
                'tcp_kbit_s': sum(bits for at, bits in run.tcp_bits if begin <= at < end)
                / seconds
                / 1e3,
                **{
                    f'map_{name.split()[0]}': worth(run, [size for size, _ in arrived], curve)
                    for name, curve in quality.items()
                },
                'load': run.load,
            }
        )
    return rows


def worth(run: Run, sizes: Sequence[int], quality: Quality) -> float | None:
    """Return the mean mask mAP of messages with the bytes that they had in a run."""
    values = [quality.at(run.message_bytes(size)) or 0.0 for size in sizes]
    return mean(values) if values else None


@dataclass
class Sharing:
    """Four edges that share a narrow link.

    Attributes:
        budget: bit/s of all of them, for the cloud to share.
        loss: share of the packets lost.
        rate: bit/s of the link.
        settled: seconds after which all edges have settled.
        end: seconds after which it ends.
        on_link: whether bytes are those on the link, with all headers, not those of messages.
        edges: time, bytes and delay, None if it was lost, of all that each sent.
    """

    budget: float
    loss: float
    rate: float = 400e3
    settled: float = 20.0
    end: float = 80.0
    on_link: bool = False
    edges: list[list[tuple[float, int, float | None]]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The conditions in words."""
        return f'budget {self.budget / 1e3:.0f} kbit/s, {self.loss:.0%} lost'

    def sent(self, begin: float, end: float) -> list[float]:
        """Return the bit/s of messages that each edge sent in a time."""
        sizes = [[size for at, size, _ in sent if begin <= at < end] for sent in self.edges]
        if self.on_link:
            sizes = [[message_bytes(size) for size in sent] for sent in sizes]
        return [8 * sum(sent) / (end - begin) for sent in sizes]

    def simulate(self) -> Sharing:
        """Let it take place; each edge begins 2 s after the one before."""
        edges = [
            Edge(fps=SCENARIO.fps, sizes=SIZES, weight=weight, begin=2.0 * index)
            for index, weight in enumerate(WEIGHTS)
        ]
        link = {'delay': SCENARIO.delay, 'limit': SCENARIO.limit, 'loss': self.loss}
        World(edges, [(0.0, self.rate)], budget=self.budget, **link).run(self.end)
        self.edges = [
            [(o.at, o.size, o.delay if o.arrived is not None else None) for o in edge.samples]
            for edge in edges
        ]
        return self


SHARINGS = tuple(Sharing(budget, loss) for budget in (350e3, 1e6) for loss in (0.0, 0.05))
"""Budgets of less than that link takes, what is around the messages included, and of more."""

HOSTS_SHARINGS = tuple(
    Sharing(budget, 0.0, rate=350e3, settled=15.0, end=40.0, on_link=True)
    for budget in (250e3, 1e6)
)
"""At 5 Hz the smallest messages of four edges take 122 kbit/s, the largest 1,658."""


def summarise_sharing(sharing: Sharing) -> dict[str, Any]:
    """Return what each edge sent over its part by weight, once all have settled."""
    begin, end = sharing.settled, sharing.end
    kept = [[one for one in sent if begin <= one[0] < end] for sent in sharing.edges]
    sent = sharing.sent(begin, end)
    delays = [delay for messages in kept for *_, delay in messages if delay is not None]
    gaps = [b[0] - a[0] for messages in kept for a, b in pairwise(messages)]
    row: dict[str, Any] = {
        'link_kbit_s': sharing.rate / 1e3,
        'budget_kbit_s': sharing.budget / 1e3,
        'lost': sharing.loss,
        'all_kbit_s': sum(sent) / 1e3,
        'p50_ms': 1e3 * median(delays) if delays else None,
        'longest_gap_ms': 1e3 * max(gaps) if gaps else None,
    }
    for index, (bits, weight) in enumerate(zip(sent, WEIGHTS, strict=True)):
        part = sum(sent) * weight / sum(WEIGHTS)
        row[f'edge_{index + 1}_weight_{weight:g}'] = bits / part if part else None
    return row


# -- what is shown --


def show(title: str, rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print a table."""
    table = Table(title=title, padding=(0, 0))
    for name in rows[0]:
        table.add_column(name.replace('_', ' '), justify='right', overflow='fold')
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    console.print(table)


def show_runs(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print the runs with one edge in two tables, which fit 100 columns."""
    keys = ('link_kbit_s', 'conditions', 'loop')
    worth_of = [name for name in rows[0] if name.startswith('map_')]
    narrow = [{k: v for k, v in row.items() if k not in worth_of} for row in rows]
    show('one edge', narrow, console)
    if worth_of:
        show('mask mAP', [{k: row[k] for k in (*keys, *worth_of)} for row in rows], console)


def _text(value: Any) -> str:
    if value is None:
        return '-'
    if isinstance(value, bool):
        return 'on' if value else 'off'
    if isinstance(value, float):
        return f'{value:.0f}' if value >= 100 else f'{value:.3g}'
    return str(value)


def plot(runs: Sequence[Run], quality: Mapping[str, Quality], path: Path) -> None:
    """Draw what happens over time, the loop on and off, a column a condition.

    Args:
        runs: of one scenario.
        quality: mask mAP over bytes, by name; not drawn if empty.
        path: of the picture.
    """
    from matplotlib import pyplot

    from msfc.evaluation.plots import COLOURS, STYLE

    names = list(dict.fromkeys(run.name for run in runs))
    scenario = runs[0].scenario
    count = 5 if quality else 4
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(
            count, len(names), figsize=(3.6 * len(names), 2.0 * count),
            sharex=True, sharey='row', squeeze=False,
        )  # fmt: skip
        for column, name in enumerate(names):
            rate, delay, size, loss = axes[:4, column]
            rate.set_title(name)
            times = [at for at, _ in scenario.rates] + [scenario.end]
            steps = [bits / 1e3 for _, bits in scenario.rates]
            rate.stairs(steps, times, baseline=None, color='black', label='link')
            of_it = [run for run in runs if run.name == name]
            for run in of_it:
                _draw(run, (rate, delay, size, loss), COLOURS[0 if run.loop else 1])
            rate.set_yscale('log')
            delay.set_yscale('log')
            size.set_yscale('log')
            loss.set_ylim(-3, 103)
            axes[-1, column].set_xlabel('seconds')
            if quality:
                axes[4, column].set_ylim(-0.03, 1)
                for run in of_it:
                    _draw_worth(run, quality, axes[4, column])
        labels = ('kbit/s', 'delay, ms', 'bytes of a message', 'lost messages, %', 'mask mAP')
        for axis, label in zip(axes[:, 0], labels, strict=False):
            axis.set_ylabel(label)
        lines = {}
        for axis in (*axes[0], *axes[-1]):
            handles, texts = axis.get_legend_handles_labels()
            lines |= dict(zip(texts, handles, strict=True))
        ncols = min(len(lines), 2 * len(names))
        figure.legend(lines.values(), lines, loc='outside lower center', ncols=ncols)
        figure.savefig(path)
        pyplot.close(figure)


def _draw(run: Run, axes: Sequence[Any], colour: str) -> None:
    rate, delay, size, loss = axes
    name = f'loop {"on" if run.loop else "off"}'
    seconds = range(int(run.scenario.end))
    each = by_second(run)
    arrived = [sum(8 * one[1] for one in some if one[2] is not None) / 1e3 for some in each]
    rate.step(seconds, [bits or None for bits in arrived], where='post', color=colour, label=name)
    if run.estimates:
        rate.plot(
            [at for at, _ in run.estimates], [bits / 1e3 for _, bits in run.estimates],
            color=colour, alpha=0.5, linewidth=0.8, linestyle='--', label='what the edge may send',
        )  # fmt: skip
    if run.tcp and run.loop:
        tcp = [sum(bits for at, bits in run.tcp_bits if s <= at < s + 1) / 1e3 for s in seconds]
        style = {'color': '#999999', 'label': 'TCP'}
        rate.step(seconds, [bits or None for bits in tcp], where='post', **style)
    known = [(at, bytes_, late) for at, bytes_, late in run.messages if late is not None]
    dots = {'color': colour, 'marker': '.', 'markersize': 2, 'linestyle': 'none'}
    delay.plot([at for at, *_ in known], [1e3 * late for *_, late in known], **dots)
    size.plot([at for at, *_ in known], [bytes_ for _, bytes_, _ in known], **dots)
    shares = [
        100 * sum(one[2] is None for one in some) / len(some) if some else None for some in each
    ]
    loss.step(seconds, shares, where='post', color=colour)


def _draw_worth(run: Run, quality: Mapping[str, Quality], axis: Any) -> None:
    from msfc.evaluation.plots import COLOURS

    arrived = [[size for _, size, late in some if late is not None] for some in by_second(run)]
    for place, (name, curve) in enumerate(quality.items()):
        if not run.loop and name in IMAGES:
            continue
        values = [worth(run, sizes, curve) for sizes in arrived]
        if name in IMAGES:
            style = {'color': COLOURS[place + 1], 'label': f'{name} image of the bytes (loop on)'}
        else:
            style = {'color': COLOURS[0 if run.loop else 1]}
        axis.step(range(len(values)), values, where='post', **style)


def plot_sharings(sharings: Sequence[Sharing], path: Path) -> None:
    """Draw what each edge sends over time, a column a condition.

    Args:
        sharings: as long as each other.
        path: of the picture.
    """
    from matplotlib import pyplot

    from msfc.evaluation.plots import COLOURS, STYLE

    step = max(1, round(sharings[0].end / 40))
    seconds = range(0, int(sharings[0].end), step)
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(
            1, len(sharings), figsize=(3.4 * len(sharings), 2.8), sharey='row', squeeze=False
        )
        for axis, sharing in zip(axes[0], sharings, strict=True):
            told = [sharing.sent(begin, begin + step) for begin in seconds]
            for index in range(len(sharing.edges)):
                bits = [sent[index] / 1e3 for sent in told]
                label = f'edge {index + 1}, weight {WEIGHTS[index]:g}'
                style = {'color': COLOURS[index], 'label': label, 'linewidth': 1}
                axis.step(seconds, bits, where='post', **style)
            axis.set_title(sharing.name)
            axis.set_xlabel('seconds')
            axis.set_ylim(bottom=0)
        axes[0, 0].set_ylabel('kbit/s')
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc='outside lower center', ncols=len(labels))
        figure.savefig(path)
        pyplot.close(figure)


def describe(run: Run) -> dict[str, Any]:
    """Return a run as JSON data: what happened in each second of it."""
    seconds = []
    for some in by_second(run):
        arrived = [(size, late) for _, size, late in some if late is not None]
        seconds.append(
            {
                'sent': len(some),
                'arrived': len(arrived),
                'bytes': sum(size for size, _ in arrived),
                'p50_ms': round(1e3 * median(late for _, late in arrived), 2) if arrived else None,
            }
        )
    return {
        'conditions': run.name,
        'loop': run.loop,
        'load': run.load,
        'scenario': asdict(run.scenario),
        'seconds': seconds,
    }


def by_second(run: Run) -> list[list[tuple[int | float, int, float | None]]]:
    """Return the messages of a run by the second in which they were sent."""
    seconds = range(int(run.scenario.end))
    return [[one for one in run.messages if s <= one[0] < s + 1] for s in seconds]


# -- the command --


def measure(options: argparse.Namespace, console: Console) -> harness.Figures:
    """Make all runs and return the figures."""
    if options.plot:
        check_output_file(options.plot)
    known = read_quality(options.quality) if options.quality.exists() else {}
    quality = {name: known[name] for name in (MODEL, *IMAGES) if name in known}
    runs, sharings = make_runs(options, console)
    shares = [summarise_sharing(sharing) for sharing in sharings]
    rows = [row for run in runs for row in summarise(run, quality)]
    if rows:
        show_runs(rows, console)
    if shares:
        show('four edges: what each sends / its part by weight', shares, console)
    if options.plot and runs:
        plot(runs, quality, options.plot)
    if options.plot and sharings:
        name = f'{options.plot.stem}-shares{options.plot.suffix}'
        plot_sharings(sharings, options.plot.with_name(name))
    return {
        'link': 'two network namespaces' if options.hosts else 'simulated',
        'sizes': list(options.sizes),
        'fixed': options.fixed,
        'one_edge': rows,
        'four_edges': shares,
        'goal': GOAL,
        'quality': {name: vars(curve) for name, curve in quality.items()},
        'runs': [describe(run) for run in runs],
    }


def make_runs(options: argparse.Namespace, console: Console) -> tuple[list[Run], list[Sharing]]:
    """Make those runs that are asked for; return the ones with one edge, and with four."""

    def asked(what: Run | Sharing) -> bool:
        name = SHARES if isinstance(what, Sharing) else what.name
        return not options.only or name in options.only

    if options.hosts:
        from link_hosts import run_on_hosts, share_on_hosts

        runs = list(filter(asked, conditions(True, HOSTS_SCENARIO)))
        sharings = list(filter(asked, HOSTS_SHARINGS))
        return run_on_hosts(runs, console), share_on_hosts(sharings, WEIGHTS, console)
    simulated = [simulate(run, options.sizes, options.fixed) for run in conditions() if asked(run)]
    return simulated, [sharing.simulate() for sharing in SHARINGS if asked(sharing)]


def main() -> int:
    """Run from the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument('--plot', type=Path, help='draw the runs into this file')
    parser.add_argument(
        '--sizes',
        type=int,
        nargs='+',
        default=SIZES,
        help=f'bytes of a message at each rate, smallest first, simulated ({SIZES})',
    )
    parser.add_argument(
        '--fixed',
        type=int,
        default=FIXED,
        help=f'bytes of a message without the loop, simulated ({FIXED})',
    )
    parser.add_argument(
        '--hosts',
        action='store_true',
        help='the nodes in two network namespaces, as root',
    )
    names = [*dict.fromkeys(run.name for run in conditions()), SHARES]
    parser.add_argument(
        '--only',
        action='append',
        choices=names,
        metavar='CONDITIONS',
        help=f'only these, may be given again: {"; ".join(names)}',
    )
    parser.add_argument(
        '--quality',
        type=Path,
        default=QUALITY,
        help='what benchmarks/link_quality.py wrote (docs/results/link/quality.json)',
    )
    options = parser.parse_args()
    return 0 if harness.run_benchmark(options, measure) is not None else 1


if __name__ == '__main__':
    sys.exit(main())

"""A fleet on Ray Serve: what Ray adds, what a replica takes, and how many robots are served.

Measured in one run, on this machine, with a service that is started for it:

1. what a replica takes, without Ray: the time of a batch at each size, from request to answer;
2. what Ray adds for one camera: the same packets by turns in this process and through the service;
3. the proxy: empty requests a second, so many at once;
4. throughput and age of simulated robots, each with one request under way at most and always its
   newest frame, with one replica and more; beside each what the queueing model of
   msfc.serving.capacity makes of 1 and 2.

At the end, the model says what a fleet of --fleet robots at --rate Hz needs. Robots are threads of
this process, which send the shipped clip's packets over HTTP as a gateway does; no ROS. They and
the proxy take part of the cores: with more replicas than cores left for them, the measured rates
fall short of the model's.

    python benchmarks/fleet.py --json fleet.json --markdown fleet.md
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import harness
from msfc.model_file import load_model
from msfc.output import check_output_file
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline
from msfc.serving.capacity import Replica, fit_replica, predict, replicas_for
from msfc.serving.messages import request_bytes
from msfc.serving.remote import EngineError, RemotePipeline
from msfc.serving.replica import OK, Request, answer_batch
from msfc.serving.settings import ServeSettings
from msfc.wire.packet import FeaturePacket
from msfc.zoo import DEFAULT_MODEL

WARM_UP = 2.0
"""Seconds at least before a measurement in which robots send as well."""

ROUNDS, WARM_ROUNDS = 5, 2
"""Times that an answer takes by the model: so long is measured at least, and waited before."""

LATE = 120.0
"""Seconds that an answer is waited for: what is measured is how long it takes."""


@dataclass
class Robot:
    """What a robot sent and got.

    Attributes:
        ages: seconds from a frame's stamp to its answer.
        lost: requests without a result, by reason.
    """

    ages: list[float] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)


def measure_batches(
    pipeline: CloudPipeline, packets: list[FeaturePacket], options: argparse.Namespace
) -> dict[int, float]:
    """Return the median seconds of a replica's batch by its size."""
    bodies = [request_bytes(pipeline.validate(packet), None) for packet in packets]
    found = {}
    for size in options.batches:
        times = []
        for turn in range(options.repeats + 1):
            now = time.monotonic()
            batch = [Request(bodies[(turn + k) % len(bodies)], now) for k in range(size)]
            answers = answer_batch(pipeline, batch, LATE)
            times.append(time.monotonic() - now)
            if any(answer.status != OK for answer in answers):
                raise ValueError(f'a batch of {size} failed: {answers[0].body[:200]!r}')
        found[size] = statistics.median(times[1:])  # the first warms up
    return found


def measure_overhead(
    local: CloudPipeline, remote: RemotePipeline, packets: list[FeaturePacket], repeats: int
) -> dict[str, Any]:
    """Return the times of the same packets here and through the service, by turns."""
    here, there, within = [], [], []
    for turn in range(repeats + 1):
        packet = packets[turn % len(packets)]
        begin = time.perf_counter()
        local.decode(packet)
        middle = time.perf_counter()
        answer = remote.decode(packet)
        end = time.perf_counter()
        here.append(middle - begin)
        there.append(end - middle)
        within.append(end - middle - sum(answer.durations.values()))
    return {
        'local_s': statistics.median(here[1:]),
        'ray_s': statistics.median(there[1:]),
        # Ray, HTTP and what becomes of bytes; independent of how long the decoding took.
        'outside_decoding_s': statistics.median(within[1:]),
    }


def measure_proxy(url: str, seconds: float, at_once: int) -> float:
    """Return the requests a second that say who answers, so many at once."""
    numbers, end = count(), time.monotonic() + seconds

    def ask() -> None:
        while time.monotonic() < end:
            with urllib.request.urlopen(url, timeout=LATE) as answer:
                answer.read()
            next(numbers)

    begin = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        for future in [pool.submit(ask) for _ in range(at_once)]:
            future.result()
    return next(numbers) / (time.monotonic() - begin)


def play(
    remote: RemotePipeline, packets: list[FeaturePacket], robots: int, rate: float,
    seconds: float, warm_up: float,
) -> dict[str, Any]:
    """Let robots send for a while; return what became of their frames.

    Every robot has frames at a steady rate and a phase of its own. It sends the newest one as soon
    as the answer before has come; frames between are replaced.
    """
    start = time.monotonic() + 0.5
    begin, end = start + warm_up, start + warm_up + seconds
    found = [Robot() for _ in range(robots)]

    def run(index: int) -> None:
        first = start + index / (rate * robots)
        sent = -1
        while True:
            newest = int((time.monotonic() - first) * rate) if time.monotonic() >= first else 0
            frame = max(newest, sent + 1)
            stamp = first + frame / rate
            if stamp >= end:
                return
            time.sleep(max(0.0, stamp - time.monotonic()))
            sent, reason = frame, ''
            try:
                remote.decode(packets[(index + frame) % len(packets)])
            except EngineError as error:
                reason = error.reason
            now = time.monotonic()
            if not begin <= now < end:
                continue
            if reason:
                found[index].lost[reason] = found[index].lost.get(reason, 0) + 1
            else:
                found[index].ages.append(now - stamp)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(robots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return summarise(found, rate, seconds)


def summarise(robots: list[Robot], rate: float, seconds: float) -> dict[str, Any]:
    """Return the figures of one setting."""
    ages = sorted(age for robot in robots for age in robot.ages)
    lost: dict[str, int] = {}
    for robot in robots:
        for reason, number in robot.lost.items():
            lost[reason] = lost.get(reason, 0) + number
    return {
        'robots': len(robots),
        'seconds': seconds,
        'offered_hz': len(robots) * rate,
        'answered_hz': len(ages) / seconds,
        'least_hz': min(len(robot.ages) for robot in robots) / seconds,
        'age_mean_s': statistics.mean(ages) if ages else None,
        'age_p50_s': statistics.median(ages) if ages else None,
        'age_p95_s': ages[int(0.95 * (len(ages) - 1))] if ages else None,
        'lost': lost,
    }


class Service:
    """A service that runs.

    Args:
        settings: of it.

    Attributes:
        address: that it answers at.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._deployed = 0.0
        self.address = f'http://127.0.0.1:{settings.port}'

    def scale(self, replicas: int) -> None:
        """Start it with so many replicas, or give it so many; return when all are there."""
        from msfc.serving.application import start

        self._deployed = start(replace(self._settings, replicas=replicas))

    def stop(self) -> None:
        """End it, and the cluster if it was started here."""
        from msfc.serving.application import stop

        stop(self._deployed)


@contextmanager
def service(options: argparse.Namespace) -> Iterator[Service]:
    """Run a service with one replica on this machine, or on the cluster of ``--ray-address``."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = options.port or free.getsockname()[1]
    settings = ServeSettings(
        model=options.model, device=options.device, cpus=options.cpus, gpus=options.gpus,
        threads=options.threads, max_batch=max(options.batches),
        max_ongoing=max(options.batches), max_queued=100_000, patience=LATE, port=port,
        ray_address=options.ray_address,
    )
    running = Service(settings)
    running.scale(1)
    try:
        yield running
    finally:
        running.stop()


def measure_fleet(
    options: argparse.Namespace, running: Service, packets: list[FeaturePacket],
    remote: RemotePipeline, replica: Replica, overhead: float, console: Console,
) -> list[dict[str, Any]]:
    """Let fleets play with each number of replicas; return figures and predictions."""
    results = []
    for replicas in options.replicas:
        running.scale(replicas)
        for robots in options.robots:
            expected = predict(robots, options.rate, replicas, replica, overhead)
            seconds = max(options.seconds, ROUNDS * expected.age)
            warm_up = max(WARM_UP, WARM_ROUNDS * expected.age)
            console.print(
                f'{robots} robots, {replicas} replicas: {warm_up + seconds:.0f} s'
            )
            found = play(remote, packets, robots, options.rate, seconds, warm_up)
            results.append({'replicas': replicas, **found, 'model': asdict(expected)})
    return results


def show(figures: dict[str, Any], console: Console) -> None:
    """Print the figures."""
    table = Table(title='What one replica takes')
    for title in ('batch', 's', 'requests/s', 'line'):
        table.add_column(title, justify='right')
    replica = Replica(**figures['replica'])
    for size, seconds in figures['batches'].items():
        table.add_row(
            str(size), f'{seconds:.3g}', f'{size / seconds:.3g}', f'{replica.seconds(size):.3g}'
        )
    console.print(table)
    table = Table(title='Simulated robots')
    for title in (
        'robots', 'replicas', 'Hz in', 'Hz out', 'model', 'age s', 'model', 'p95 s', 'lost'
    ):
        table.add_column(title, justify='right')
    for row in figures['fleets']:
        ages = ('' if row[k] is None else f'{row[k]:.3g}' for k in ('age_mean_s', 'age_p95_s'))
        mean, worst = ages
        table.add_row(
            str(row['robots']), str(row['replicas']), f'{row["offered_hz"]:.3g}',
            f'{row["answered_hz"]:.3g}', f'{row["model"]["answered"]:.3g}', mean,
            f'{row["model"]["age"]:.3g}', worst, str(sum(row['lost'].values())),
        )
    console.print(table)
    overhead = figures['overhead']
    console.print(
        f'one camera: {overhead["ray_s"] / overhead["local_s"]:.2f} of the local time, '
        f'{overhead["outside_decoding_s"] * 1e3:.1f} ms outside of the decoding; proxy: '
        f'{figures["proxy_hz"]:.0f} empty requests/s'
    )
    need = figures['need']
    console.print(
        f'{need["robots"]} robots at {need["rate_hz"]:g} Hz: {need["replicas"]} replicas like '
        f'this one at 70 %, {need["proxies"]} proxies'
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure everything.

    Raises:
        ValueError: if model or clip cannot be read, or Ray does not start.
    """
    if options.markdown:
        check_output_file(options.markdown)
    if options.threads:
        torch.set_num_threads(options.threads)
    model = load_model(options.model, options.device)
    edge = edge_pipeline(model)
    packets = [edge.encode(frame, index) for index, frame in
               enumerate(harness.clip_frames(options.frames), 1)]
    local = CloudPipeline(model)
    batches = measure_batches(local, packets, options)
    replica = fit_replica(batches)
    try:
        with service(options) as running:
            remote = RemotePipeline(model, address=running.address, timeout=LATE)
            overhead = measure_overhead(local, remote, packets, options.repeats)
            proxy = measure_proxy(running.address, options.seconds / 2, max(options.batches))
            fleets = measure_fleet(
                options, running, packets, remote, replica, overhead['outside_decoding_s'],
                console,
            )
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    figures = {
        'model': model.fingerprint,
        'device': str(model.detector.device),
        'threads': options.threads,
        **harness.describe_machine(),
        'rate_hz': options.rate,
        'seconds': options.seconds,
        'batches': batches,
        'replica': asdict(replica),
        'overhead': overhead,
        'proxy_hz': proxy,
        'fleets': fleets,
        'need': {
            'robots': options.fleet,
            'rate_hz': options.rate,
            'replicas': replicas_for(options.fleet, options.rate, replica),
            'proxies': -int(-options.fleet * options.rate // (0.7 * proxy)),
        },
    }
    show(figures, console)
    if options.markdown:
        options.markdown.write_text(page(figures), encoding='utf-8')
    return figures


def page(figures: dict[str, Any]) -> str:
    """Return the figures as the tables of docs/fleet.md."""
    replica = Replica(**figures['replica'])
    overhead, need = figures['overhead'], figures['need']
    lines = [
        f'Model {figures["model"]}, {figures["device"]}, {figures["threads"]} threads a replica, '
        f'{figures["cores"]} cores, torch {figures["torch"]}.',
        '', '| batch | ms | the line, ms | requests a second |', '|---:|---:|---:|---:|',
    ]
    for size, seconds in figures['batches'].items():
        lines.append(
            f'| {size} | {seconds * 1e3:.0f} | {replica.seconds(int(size)) * 1e3:.0f} | '
            f'{int(size) / seconds:.1f} |'
        )
    lines += [
        '', f'One camera: {overhead["local_s"] * 1e3:.0f} ms in this process, '
        f'{overhead["ray_s"] * 1e3:.0f} ms through the service, of which '
        f'{overhead["outside_decoding_s"] * 1e3:.1f} ms are not decoding. The proxy answers '
        f'{figures["proxy_hz"]:.0f} empty requests a second.', '',
        '| robots | replicas | frames a second, offered | answered | model | age, s | model | '
        'p95, s | lost |', '|---:|---:|---:|---:|---:|---:|---:|---:|---:|',
    ]
    for row in figures['fleets']:
        age, late = (
            '' if row[name] is None else f'{row[name]:.2f}'
            for name in ('age_mean_s', 'age_p95_s')
        )
        lines.append(
            f'| {row["robots"]} | {row["replicas"]} | {row["offered_hz"]:.0f} | '
            f'{row["answered_hz"]:.1f} | {row["model"]["answered"]:.1f} | {age} | '
            f'{row["model"]["age"]:.2f} | {late} | {sum(row["lost"].values())} |'
        )
    lines += [
        '', f'{need["robots"]:,} robots at {need["rate_hz"]:g} Hz: {need["replicas"]:,} such '
        f'replicas, each busy 70 % of the time, and {need["proxies"]} proxies.', '',
    ]
    return '\n'.join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of a command line."""
    parser = harness.make_parser(__doc__)
    harness.add_node_options(parser, DEFAULT_MODEL, threads=1)
    numbers = {'type': int, 'nargs': '+'}
    parser.add_argument('--robots', default=[1, 8, 64], help='default 1 8 64', **numbers)
    parser.add_argument('--replicas', default=[1, 2], help='default 1 2', **numbers)
    parser.add_argument('--batches', default=[1, 2, 4, 8, 16], help='sizes to measure', **numbers)
    parser.add_argument('--rate', type=float, default=5.0, help='Hz of a robot (default 5)')
    parser.add_argument(
        '--seconds', type=float, default=20.0, help='of each setting at least (default 20)'
    )
    parser.add_argument('--repeats', type=int, default=20, help='of each batch (default 20)')
    parser.add_argument('--frames', type=int, default=30, help='of the clip (default 30)')
    parser.add_argument('--fleet', type=int, default=1000, help='robots to plan for')
    parser.add_argument('--cpus', type=float, default=1.0, help='of each replica (default 1)')
    parser.add_argument('--gpus', type=float, default=0.0, help='of each replica (default 0)')
    parser.add_argument('--ray-address', default='', help='of a cluster that is there')
    parser.add_argument('--markdown', type=Path, help='write the tables of docs/fleet.md here')
    parser.add_argument('--port', type=int, default=0, help='of the service; a free one if 0')
    return parser.parse_args(arguments)


if __name__ == '__main__':
    sys.exit(harness.run_benchmark(parse(), run) is None)

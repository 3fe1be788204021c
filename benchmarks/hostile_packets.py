"""How a receiver stands a million hostile packets: what it refuses, how fast, and its memory.

Every packet goes through the checks that a receiver makes, which read key frames; one in
``--decode-every`` goes through the whole pipeline: codec and heads of a small Mask R-CNN with
random weights, whose results are checked too. The packets are those of the tests,
``src/msfc_core/test/hostile.py``.

    python benchmarks/hostile_packets.py --count 20000

Exits with 1 if a packet raised anything but a refusal, or had an outcome that it must not have.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

_LIBRARY = Path(__file__).resolve().parents[1] / 'src' / 'msfc_core'
sys.path[:0] = [str(_LIBRARY), str(_LIBRARY / 'test')]

import harness  # noqa: E402
from hostile import (  # noqa: E402
    LIMITS,
    Forged,
    Outcome,
    PacketForge,
    check_instances,
    small_model,
)
from msfc.pipeline.cloud import CloudPipeline  # noqa: E402
from msfc.pipeline.references import KeyStore  # noqa: E402
from msfc.wire.packet import PacketError  # noqa: E402

CHUNK = 1000
"""Packets that are forged ahead, so that forging is not timed."""

WARM_UP = 3 * CHUNK
"""Packets before memory is compared: caches and allocators reach their size."""

SHOWN = 5
"""Failures that are kept in full."""

DECODED = 'decoded'
ACCEPTED = 'accepted'


class Attacked:
    """A receiver under attack, and the books on it.

    Args:
        seed: of the packets.
        decode_every: one packet in so many goes through the whole pipeline.
        codec: ``msfc`` for packed bits, ``learned`` for range-coded symbols.
    """

    def __init__(self, seed: int, decode_every: int, codec: str) -> None:
        model = small_model(codec=codec)
        self._cloud = CloudPipeline(model, LIMITS)
        self._classes = len(model.class_names)
        self._forge = PacketForge(model.packet_spec(), LIMITS, seed)
        self._decode_every = decode_every
        self._keys = KeyStore()
        self.outcomes = Counter[str]()
        self.attacks = Counter[str]()
        self.failures: list[str] = []
        self.failed = self.packets = self.instances = 0
        self.check_seconds = self.check_cpu_seconds = self.decode_seconds = 0.0
        self.checked = 0

    def receive(self, count: int) -> None:
        """Forge and receive that many packets."""
        forged = []
        for _ in range(count):
            item = self._forge.draw()
            forged.append((item, self._forge.new_keys()))
            self.attacks.update(item.attacks)
        start = time.perf_counter(), time.process_time()
        for item, keys in forged:
            # Key frames of an honest sender, beside what is hostile.
            for key in keys:
                self._cloud.validate(key, self._keys)
            if self.packets % self._decode_every:
                self._try(item, self._check)
                self.checked += 1
            else:
                self._lap(*start)
                self._try(item, self._decode)
                start = time.perf_counter(), time.process_time()
            self.packets += 1
        self._lap(*start)

    def _lap(self, start: float, cpu_start: float) -> None:
        """Count the time since ``start`` as that of checks."""
        self.check_cpu_seconds += time.process_time() - cpu_start
        self.check_seconds += time.perf_counter() - start

    def _try(self, forged: Forged, act: Callable[[Forged], str]) -> None:
        outcome: Outcome = None
        try:
            word = act(forged)
        except PacketError as error:
            outcome, word = error.reason, str(error.reason)
        except Exception as error:  # the benchmark is about finding these
            self._fail(f'{type(error).__name__}: {error}; {forged.attacks} made {forged.packet}')
            return
        self.outcomes[word] += 1
        if outcome not in forged.outcomes:
            self._fail(f'{word}; {forged.attacks} made {forged.packet}')

    def _fail(self, what: str) -> None:
        self.failed += 1
        if len(self.failures) < SHOWN:
            self.failures.append(what)

    def _check(self, forged: Forged) -> str:
        self._cloud.validate(forged.packet, self._keys)
        return ACCEPTED

    def _decode(self, forged: Forged) -> str:
        start = time.perf_counter()
        instances = self._cloud.decode(forged.packet, self._keys).instances
        self.decode_seconds += time.perf_counter() - start
        check_instances(instances, forged.packet.image_size, self._classes)
        self.instances += len(instances)
        return DECODED


def resident_bytes() -> int:
    """Return the memory of this process now."""
    pages = int(Path('/proc/self/statm').read_text(encoding='ascii').split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE')


def peak_bytes() -> int:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(
    count: int, seed: int, decode_every: int, codec: str, console: Console
) -> dict[str, Any]:
    """Attack a receiver.

    Args:
        count: packets that are counted; a few thousand go before them.
        seed: of the packets.
        decode_every: one packet in so many goes through the whole pipeline.
        codec: ``msfc`` for packed bits, ``learned`` for range-coded symbols.
        console: where progress is shown.

    Returns:
        The figures, JSON-serialisable.
    """
    warm = Attacked(seed + 1, decode_every=CHUNK // 20, codec=codec)
    for _ in range(WARM_UP // CHUNK):
        warm.receive(CHUNK)
    attacked = Attacked(seed, decode_every, codec)
    resident, peak = resident_bytes(), peak_bytes()
    start, cpu_start = time.perf_counter(), time.process_time()
    columns = (
        TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task('packets', total=count)
        while attacked.packets < count:
            attacked.receive(min(CHUNK, count - attacked.packets))
            progress.update(task, completed=attacked.packets)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    decoded = attacked.outcomes[DECODED]
    return {
        'packets': attacked.packets,
        'seed': seed,
        'codec': codec,
        'outcomes': dict(attacked.outcomes.most_common()),
        'attacks': dict(sorted(attacked.attacks.items())),
        'instances': attacked.instances,
        'failed': attacked.failed + warm.failed,
        'failures': (warm.failures + attacked.failures)[:SHOWN],
        'seconds': seconds,
        'cpu_seconds': cpu_seconds,
        'checks_per_second': attacked.checked / attacked.check_seconds,
        'checks_per_cpu_second': attacked.checked / attacked.check_cpu_seconds,
        'packets_per_second': attacked.packets / seconds,
        'decode_milliseconds': attacked.decode_seconds / decoded * 1e3 if decoded else None,
        'memory_growth_bytes': resident_bytes() - resident,
        'peak_growth_bytes': peak_bytes() - peak,
    }


def show(figures: dict[str, Any], console: Console) -> None:
    """Print the figures."""
    table = Table('outcome', 'packets', 'share', title=f'{figures["packets"]:,} hostile packets')
    for column in table.columns[1:]:
        column.justify = 'right'
    for word, number in figures['outcomes'].items():
        table.add_row(word, f'{number:,}', f'{number / figures["packets"]:.2%}')
    console.print(table)
    decode = figures['decode_milliseconds']
    console.print(
        f'{figures["checks_per_second"]:,.0f} checks a second '
        f'({figures["checks_per_cpu_second"]:,.0f} a second of processor time), '
        f'{figures["packets_per_second"]:,.0f} packets a second with forging and decoding '
        f'({figures["packets"] / figures["cpu_seconds"]:,.0f})'
    )
    if decode is not None:
        console.print(f'{decode:.1f} ms a decode, {figures["instances"]:,} instances')
    console.print(
        f'memory: {figures["memory_growth_bytes"] / 2**20:+.1f} MiB, '
        f'peak {figures["peak_growth_bytes"] / 2**20:+.1f} MiB after warm-up'
    )
    console.print(f'{figures["failed"]} failures')
    for failure in figures['failures']:
        console.print(f'  {failure}', markup=False)


def run(options: argparse.Namespace, console: Console) -> harness.Figures:
    """Attack a receiver, and show what came of it."""
    figures = measure(
        options.count, options.seed, options.decode_every, options.codec, console
    )
    show(figures, console)
    return figures


def main() -> int:
    """Run from the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument('--count', type=int, default=10**6, help='packets (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the packets (default: 0)')
    parser.add_argument(
        '--codec',
        choices=('msfc', 'learned'),
        default='msfc',
        help='whose coding is attacked (default: %(default)s)',
    )
    parser.add_argument(
        '--decode-every',
        type=int,
        default=100,
        help='one packet in so many goes through the whole pipeline (default: %(default)s)',
    )
    options = parser.parse_args()
    if min(options.count, options.decode_every) < 1:
        parser.error('--count and --decode-every must be at least 1')
    figures = harness.run_benchmark(options, run)
    return 1 if figures is None or figures['failed'] else 0


if __name__ == '__main__':
    sys.exit(main())

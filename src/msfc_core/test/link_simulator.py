"""A link in a computer's time: a queue that is drained at a rate, packets lost, what competes.

Deterministic: events in their order, one seed.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from msfc.link.bottleneck import Bottleneck
from msfc.link.control import LinkLimits
from msfc.link.estimator import FURTHER_PACKET, LinkEstimator, packets
from msfc.link.receiver import LinkReceiver
from msfc.link.shares import SharedLink
from msfc.pipeline.rate_control import Budget, RateController
from msfc.wire.message_size import PACKET_BYTES, compressed_feature_bytes

OVERHEAD = 150
"""Bytes around the first packet of a message on the network; 20 around the others."""


@dataclass
class Sample:
    """What became of a message.

    Attributes:
        at: when it was sent, in seconds.
        size: its bytes.
        target: what the sender's estimator said to send, in bit/s.
        arrived: when it arrived; None if it was lost.
    """

    at: float
    size: int
    target: float
    arrived: float | None = None

    @property
    def delay(self) -> float:
        assert self.arrived is not None
        return self.arrived - self.at


class Frame:
    """A frame whose messages have given sizes, one for each rate, for the rate controller.

    Args:
        sizes: bytes of the whole message at each rate.
    """

    fixed_length = True

    def __init__(self, sizes: Sequence[int]) -> None:
        self._payloads = [size - compressed_feature_bytes(0, '') for size in sizes]

    def expected_bytes(self, rate: int) -> float:
        """Return the bytes of the payload at a rate."""
        return self._payloads[rate]

    def payload_bytes(self, rate: int) -> int:
        """Return the bytes of the payload at a rate."""
        return self._payloads[rate]


@dataclass
class Edge:
    """A camera's sender.

    Attributes:
        fps: frames per second.
        sizes: bytes of a message that it can have, smallest first.
        adaptive: whether it listens to reports; else it sends the size that is largest.
        weight: among the edges.
        begin, end: when it sends, in seconds.
        jitter: seconds that a frame is late at most.
        limits: of its estimator.
    """

    fps: float = 10.0
    sizes: tuple[int, ...] = (300, 600, 1200, 2400, 4800, 9600)
    adaptive: bool = True
    weight: float = 1.0
    begin: float = 0.0
    end: float = float('inf')
    jitter: float = 0.005
    limits: LinkLimits = field(default_factory=LinkLimits)
    samples: list[Sample] = field(default_factory=list)
    skipped: list[float] = field(default_factory=list)
    estimates: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.estimator = LinkEstimator(self.limits)
        self.receiver = LinkReceiver(0.2)
        self.newest = -1
        self._now = 0.0
        self._controller = RateController(lambda: self._now, Budget(max_message_bytes=0))
        self._frame = Frame(self.sizes)

    def choose(self, now: float) -> int:
        """Return the bytes of the message to send; 0 to skip the frame."""
        if not self.adaptive:
            return self.sizes[-1]
        if not self.estimator.admits(now):
            return 0
        self._now = now
        self._controller.link_bitrate = self.estimator.bitrate(now)
        self._controller.link_message_bytes = self.estimator.message_bytes()
        choice = self._controller.choose(self._frame, range(len(self.sizes)))
        if choice.rate is None:
            return 0
        self._controller.spend(choice.message_bytes)
        return choice.message_bytes


class World:
    """A link with its ends.

    Args:
        edges: that send over it.
        rates: when, in seconds, it takes how much, in bit/s; the first at 0.
        delay: seconds that a packet travels, each way.
        limit: bytes of the queue in front of it.
        loss: share of the packets that is lost on it, both ways.
        period: seconds between two reports.
        budget: bit/s shared by the edges; 0 for none.
        seed: of losses and jitter.
        deaf: says at what times no report comes through.
        fair: whether flows have a queue each and take turns.
    """

    def __init__(
        self,
        edges: list[Edge],
        rates: list[tuple[float, float]],
        delay: float = 0.02,
        limit: int = 60_000,
        loss: float = 0.0,
        period: float = 0.2,
        budget: float = 0.0,
        seed: int = 0,
        deaf: Callable[[float], bool] = lambda now: False,
        fair: bool = False,
    ) -> None:
        self.edges = edges
        self.now = 0.0
        self.link: Bottleneck[Callable[[], None]] = Bottleneck(rates[0][1], limit)
        self.delay = delay
        self.loss = loss
        self.lost_packets = 0
        self.shared = SharedLink[int](budget) if budget else None
        self._period = period
        self._deaf = deaf
        self._fair = fair
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.queue: list[tuple[float, float]] = []
        for at, rate in rates[1:]:
            self.at(at, lambda rate=rate: self.link.set_rate(rate, self.now))
        for edge in edges:
            edge.receiver = LinkReceiver(period)
            self.at(
                edge.begin + self._random.random() / edge.fps, lambda e=edge: self._frame(e, 0)
            )
        self.at(self._random.random() * period, self._report)

    def at(self, time: float, event: Callable[[], None]) -> None:
        """Let something happen at a time."""
        heapq.heappush(self._events, (time, next(self._order), event))

    def run(self, until: float) -> None:
        """Let time pass."""
        while True:
            upcoming = self._events[0][0] if self._events else float('inf')
            passing = self.link.due()
            if min(upcoming, passing) > until:
                break
            self.now = min(upcoming, passing)
            if passing <= upcoming:
                for arrive, _ in self.link.take(self.now):
                    self.at(self.now + self.delay, arrive)
            else:
                heapq.heappop(self._events)[2]()
        self.now = until

    def send(self, size: int, arrive: Callable[[], None], flow: Hashable) -> None:
        """Put a packet of a flow on the link; it may be dropped or lost."""
        if self.loss and self._random.random() < self.loss:
            self.lost_packets += 1
            arrive = _nothing
        self.link.offer(arrive, size, self.now, flow if self._fair else None)

    def _frame(self, edge: Edge, number: int) -> None:
        if self.now >= edge.end:
            return
        late = self._random.random() * edge.jitter
        self.at(edge.begin + (number + 1) / edge.fps + late, lambda: self._frame(edge, number + 1))
        size = edge.choose(self.now)
        edge.estimates.append((self.now, edge.estimator.bitrate(self.now)))
        self.queue.append((self.now, 8 * self.link.queued / self.link.rate))
        if not size:
            edge.skipped.append(self.now)
            return
        sequence = len(edge.samples)
        sample = Sample(self.now, size, edge.estimator.bitrate(self.now))
        edge.samples.append(sample)
        edge.estimator.sent(sequence, size, self.now)
        whole = packets(size)
        missing = [whole]

        def arrive() -> None:
            missing[0] -= 1
            if not missing[0]:
                sample.arrived = self.now
                self._note(edge, sequence, sample)

        for index in range(whole):
            part = min(FURTHER_PACKET if index else PACKET_BYTES, size)
            size -= part
            self.send(part + (20 if index else OVERHEAD), arrive, id(edge))

    def _note(self, edge: Edge, sequence: int, sample: Sample) -> None:
        lost = sequence - edge.newest - 1
        if lost < 0:
            edge.receiver.note_late(-1)
            return
        edge.newest = sequence
        # The clocks differ by any amount.
        edge.receiver.note(sequence, sample.at + 1e6, self.now, sample.size, lost)

    def _report(self) -> None:
        self.at(self.now + self._period, self._report)
        here = {
            index: edge
            for index, edge in enumerate(self.edges)
            if edge.adaptive and edge.begin <= self.now < edge.end
        }
        reports = {i: e.receiver.report(self.now, weight=e.weight) for i, e in here.items()}
        if self.shared is not None:
            sizes = {i: e.receiver.mean_size() for i, e in here.items()}
            reports = self.shared.share(reports, sizes, self.now)
        for index, report in reports.items():
            if self._random.random() < self.loss or self._deaf(self.now):
                continue
            estimator = here[index].estimator
            self.at(
                self.now + self.delay,
                lambda e=estimator, r=report: e.note(r, self.now),  # type: ignore[misc]
            )


class Tcp:
    """A flow that fills the queue until it overflows: TCP Reno's (RFC 5681), without its details.

    Args:
        world: whose link it shares.
        begin: when it begins, in seconds.
        end: when it ends.
        size: bytes of a packet.
    """

    def __init__(
        self, world: World, begin: float, end: float = float('inf'), size: int = 1500
    ) -> None:
        self._world = world
        self._end = end
        self._size = size
        self._window, self._threshold = 10.0, float('inf')
        self._flight = 0
        self._next = 0
        self._cut_at = -1
        self.delivered: list[tuple[float, int]] = []
        world.at(begin, self._fill)

    def _fill(self) -> None:
        while self._flight < self._window and self._world.now < self._end:
            number, self._next = self._next, self._next + 1
            self._flight += 1
            self._send(number)

    def _send(self, number: int) -> None:
        world, sent = self._world, self._world.now
        fate = [False]

        def arrive() -> None:
            fate[0] = True
            self.delivered.append((world.now, self._size))
            world.at(world.now + world.delay, lambda: self._acknowledged(number))

        world.send(self._size, arrive, 'tcp')
        world.at(sent + self._patience(), lambda: None if fate[0] else self._lost(number))

    def _patience(self) -> float:
        link = self._world.link
        return 3 * self._world.delay + 8 * (link.queued + self._size) / link.rate + 0.05

    def _acknowledged(self, number: int) -> None:
        self._flight -= 1
        self._window += 1.0 if self._window < self._threshold else 1.0 / self._window
        self._fill()

    def _lost(self, number: int) -> None:
        self._flight -= 1
        if number > self._cut_at:
            self._cut_at = self._next
            self._threshold = max(self._window / 2, 2.0)
            self._window = self._threshold
        self._fill()


def _nothing() -> None:
    """Arrive nowhere."""

"""A link between two hosts that is as narrow, slow and lossy as it is told to be.

In the place of the cable each host has a TUN device, and a process carries every packet from one
to the other: into a queue that is drained at a rate, then some milliseconds on its way, and now
and then lost. It needs no queueing discipline of the kernel, of which few have those that delay,
and it counts what it does with each packet.

Run as a program it is the process that carries them: ``python -m msfc_demo.shaped_link PID PID``,
those of two processes in the network namespaces. It takes a question a line,
``["method", {arguments}]``, and prints an answer a line, both JSON.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import itertools
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from msfc.link.bottleneck import Bottleneck
from msfc_demo.two_hosts import CABLE, MTU, HostError, TwoHosts

TUN = '/dev/net/tun'
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
CLONE_NEWNET = 0x40000000

TCP, UDP = 6, 17
"""Protocol numbers in an IP header, in its tenth byte."""

WIDE = 1e9
"""Bit/s of a link that is not narrow."""

SAMPLING = 0.05
"""Seconds between two looks at the queue."""

HEAD = 400
"""Bytes of a datagram that are kept, to tell by what is in it."""


def tun_obstacle() -> str:
    """Return why there can be no TUN devices here, in words; nothing if there can."""
    if not os.access(TUN, os.R_OK | os.W_OK):
        return f'{TUN} is not there, or not ours'
    return ''


class Datagrams:
    """What becomes of whole datagrams, of whose packets each has its own fate."""

    def __init__(self) -> None:
        self._open: dict[int, _Datagram] = {}
        self._closed: list[_Datagram] = []

    def begin(self, packet: bytes, now: float, lost: bool) -> None:
        """Take note of a packet that was sent."""
        number, offset, more = fragment(packet)
        if not offset:
            self._open[number] = _Datagram(time.time(), now, packet[:HEAD])
        datagram = self._open.get(number)
        if datagram is None:
            return
        datagram.size += len(packet)
        datagram.lost |= lost
        if not more and datagram.lost:
            self._closed.append(self._open.pop(number))

    def end(self, packet: bytes, now: float) -> None:
        """Take note of a packet that has arrived."""
        number, _, more = fragment(packet)
        datagram = self._open.get(number)
        # They are in order: with the last one all are there, unless one was lost.
        if datagram is not None and not more and not datagram.lost:
            datagram.delay = now - datagram.begun
            self._closed.append(self._open.pop(number))

    def take(self, least: int) -> list[tuple[float, int, float | None, str]]:
        """Return time sent, bytes, delay and head of those of some bytes or more; forget them."""
        closed, self._closed = self._closed, []
        return [
            (one.at, one.size, one.delay, one.head.hex()) for one in closed if one.size >= least
        ]


@dataclass
class _Datagram:
    """When it was sent, by both clocks, and what is known of it."""

    at: float
    begun: float
    head: bytes
    size: int = 0
    lost: bool = False
    delay: float | None = None


def flow_of(packet: bytes) -> bytes:
    """Return what tells the flow that a packet belongs to: protocol, addresses and ports.

    As in Linux all fragments between two addresses are one flow, as most of them have no ports.
    """
    if packet[0] >> 4 != 4:
        return b''
    _, offset, more = fragment(packet)
    begin = 4 * (packet[0] & 15)
    ports = b'' if offset or more else packet[begin : begin + 4]
    return packet[9:10] + packet[12:20] + ports


def fragment(packet: bytes) -> tuple[int, int, bool]:
    """Return what an IPv4 header says: identification, offset, whether more fragments follow."""
    number, flags = struct.unpack_from('!HH', packet, 4)
    return number, flags & 0x1FFF, bool(flags & 0x2000)


class Direction:
    """One way over the link.

    Args:
        source: descriptor of the TUN device that packets come from.
        sink: descriptor of the one that they go to.
        limit: bytes that the queue holds at most.
        seed: of what is lost.
    """

    def __init__(self, source: int, sink: int, limit: int, seed: int) -> None:
        self.source, self._sink = source, sink
        self.queue: Bottleneck[bytes] = Bottleneck(WIDE, limit)
        self.loss, self.delay, self.fair = 0.0, 0.0, False
        self.counts = {'offered': 0, 'lost': 0, 'dropped': 0, 'delivered': 0}
        self.delivered_bytes = {'tcp': 0, 'other': 0}
        self.datagrams = Datagrams()
        self._random = random.Random(seed)
        self._travelling: list[tuple[float, int, bytes]] = []
        self._order = itertools.count()

    def take_in(self, now: float) -> None:
        """Take the packets that have come."""
        while True:
            try:
                packet = os.read(self.source, 65_536)
            except BlockingIOError:
                return
            self.counts['offered'] += 1
            # Lost on the radio: it takes its place in the queue all the same.
            lost = self.loss and self._random.random() < self.loss
            flow = flow_of(packet) if self.fair else None
            fits = self.queue.offer(b'' if lost else packet, len(packet), now, flow)
            self.counts['lost'] += bool(lost and fits)
            self.counts['dropped'] += not fits
            if packet[0] >> 4 == 4 and packet[9] == UDP:
                self.datagrams.begin(packet, now, bool(lost) or not fits)

    def let_out(self, now: float) -> None:
        """Hand over the packets that have arrived."""
        for packet, at in self.queue.take(now):
            if packet:
                heapq.heappush(self._travelling, (at + self.delay, next(self._order), packet))
        while self._travelling and self._travelling[0][0] <= now:
            at, _, packet = heapq.heappop(self._travelling)
            if packet[0] >> 4 == 4 and packet[9] == UDP:
                self.datagrams.end(packet, at)
            try:
                os.write(self._sink, packet)
            except OSError:  # the device is not up yet
                continue
            self.counts['delivered'] += 1
            kind = 'tcp' if packet[9] == TCP else 'other'
            self.delivered_bytes[kind] += len(packet)

    def due(self) -> float:
        """Return when there is something to do."""
        arrival = self._travelling[0][0] if self._travelling else float('inf')
        return min(arrival, self.queue.due())


class Carrier:
    """Carries the packets; every public method answers a question.

    Args:
        pids: of a process in the network namespace of each host.
        limit: bytes that each queue holds at most.
    """

    def __init__(self, pids: tuple[int, int], limit: int = 60_000) -> None:
        here, there = (open_tun(pid) for pid in pids)
        self._directions = Direction(here, there, limit, 1), Direction(there, here, limit, 2)
        self._samples: list[dict[str, float]] = []

    def shape(self, rate: float, loss: float, delay: float, limit: int, fair: bool) -> bool:
        """Shape the link.

        Args:
            rate: bit/s towards the cloud; the other way is wide.
            loss: share of the packets that is lost, both ways.
            delay: seconds that a packet travels, each way.
            limit: bytes of the queue towards the cloud.
            fair: whether each flow has such a queue and they take turns, see
                :class:`msfc.link.bottleneck.Bottleneck`; else all wait in one.
        """
        now = time.monotonic()
        there = self._directions[0]
        there.let_out(now)
        there.queue.set_rate(rate, now)
        there.queue.limit, there.fair = limit, fair
        for direction in self._directions:
            direction.loss, direction.delay = loss, delay
        return True

    def counts(self) -> dict[str, int]:
        """Return what became of the packets to the cloud."""
        return dict(self._directions[0].counts)

    def datagrams(self, least: int) -> list[tuple[float, int, float | None, str]]:
        """Return the datagrams of some bytes or more to the cloud, since it was last asked.

        Each is the time that it was sent, since 1970, its bytes, its delay in seconds, None if it
        or a part of it was lost or dropped, and its first :data:`HEAD` bytes in hexadecimal.
        """
        return self._directions[0].datagrams.take(least)

    def samples(self, start: int = 0) -> list[dict[str, float]]:
        """Return how it was now and then, from a sample on.

        Each has the time since 1970, bytes in the queue to the cloud, its bit/s, and the bytes
        that were delivered there by then over TCP and otherwise.
        """
        return self._samples[start:]

    def run(self) -> None:
        """Carry packets until there are no more questions."""
        looked = 0.0
        poll = select.poll()
        watched = {direction.source: direction for direction in self._directions}
        for source in (*watched, sys.stdin.fileno()):
            poll.register(source, select.POLLIN)
        while True:
            now = time.monotonic()
            for direction in self._directions:
                direction.let_out(now)
            if now - looked >= SAMPLING:
                looked, there = now, self._directions[0]
                queue = there.queue
                self._samples.append(
                    {
                        'time': time.time(),
                        'queued': queue.queued,
                        'rate': queue.rate,
                        **there.delivered_bytes,
                    }
                )
            due = min(direction.due() for direction in self._directions)
            pause = min(max(due - time.monotonic(), 0.0), SAMPLING)
            for source, _ in poll.poll(pause * 1e3):
                if source in watched:
                    watched[source].take_in(time.monotonic())
                    continue
                line = sys.stdin.readline()
                if not line:
                    return
                what, arguments = json.loads(line)
                print(json.dumps(getattr(self, what)(**arguments)), flush=True)


def open_tun(pid: int) -> int:
    """Return the descriptor of a new TUN device in the network namespace of a process."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open('/proc/self/ns/net') as own, open(f'/proc/{pid}/ns/net') as theirs:
        if libc.setns(theirs.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f'the namespace of {pid} cannot be entered')
        try:
            device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
            request = struct.pack('16sH', CABLE.encode(), IFF_TUN | IFF_NO_PI)
            fcntl.ioctl(device, TUNSETIFF, request)
        finally:
            libc.setns(own.fileno(), CLONE_NEWNET)
    return device


class Crossing(NamedTuple):
    """A datagram to the cloud."""

    at: float
    """When it was sent, in seconds since 1970."""

    size: int
    """Its bytes on the link."""

    delay: float | None
    """Seconds until it had arrived whole; None if it never did."""

    head: bytes
    """Its first :data:`HEAD` bytes."""


class ShapedHosts(TwoHosts):
    """A robot and a cloud, joined by a link that :meth:`shape` shapes; a context manager."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._carrier: subprocess.Popen[str] | None = None
        super().__init__(environment)

    def _join(self) -> None:
        # It has to be in time, however busy the machine is; in a session of its own, as the kernel
        # shares cores between sessions first (autogroup), and niceness counts only within one.
        self._carrier = subprocess.Popen(
            [*('setpriv', '--pdeathsig', 'KILL', 'nice', '-n', '-15')]
            + [sys.executable, '-m', 'msfc_demo.shaped_link']
            + [str(self.robot.pid), str(self.cloud.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        self.shape(delay=0.0)
        for host in (self.robot, self.cloud):
            host.run('ip', 'address', 'add', f'{host.address}/24', 'dev', CABLE)
            host.run('ip', 'link', 'set', CABLE, 'mtu', str(MTU), 'multicast', 'on', 'up')
            host.run('ip', 'route', 'add', 'default', 'dev', CABLE)

    def _ask(self, what: str, **arguments: Any) -> Any:
        carrier = self._carrier
        assert carrier is not None
        assert carrier.stdin is not None
        assert carrier.stdout is not None
        carrier.stdin.write(json.dumps([what, arguments]) + '\n')
        answer = carrier.stdout.readline()
        if not answer:
            raise HostError('what carries the packets has ended')
        return json.loads(answer)

    def shape(
        self,
        rate: float = WIDE,
        loss: float = 0.0,
        delay: float = 0.02,
        limit: int = 60_000,
        fair: bool = False,
    ) -> None:
        """Shape the link, see :meth:`Carrier.shape`."""
        self._ask('shape', rate=rate, loss=loss, delay=delay, limit=limit, fair=fair)

    def carried(self) -> dict[str, int]:
        """Return what became of the packets to the cloud: offered, lost, dropped, delivered."""
        return dict(self._ask('counts'))

    def samples(self) -> list[dict[str, float]]:
        """Return what :meth:`Carrier.samples` does."""
        return list(self._ask('samples'))

    def datagrams(self, least: int) -> list[list[Any]]:
        """Return what :meth:`Carrier.datagrams` does, but the heads."""
        return [one[:3] for one in self._ask('datagrams', least=least)]

    def crossings(self) -> list[Crossing]:
        """Return what became of all datagrams to the cloud, since this or that was last asked."""
        return [
            Crossing(at, size, delay, bytes.fromhex(head))
            for at, size, delay, head in self._ask('datagrams', least=0)
        ]

    def close(self) -> None:
        """End both hosts and what is between them."""
        carrier, self._carrier = self._carrier, None
        if carrier is not None:
            carrier.kill()
            carrier.wait()
            for stream in (carrier.stdin, carrier.stdout):
                if stream is not None:
                    stream.close()
        super().close()


def main() -> None:
    """Carry packets between two hosts until standard input ends."""
    here, there = map(int, sys.argv[1:])
    Carrier((here, there)).run()


if __name__ == '__main__':
    main()

"""Two hosts on one machine: network namespaces joined by a virtual cable, and faults in it.

A host is a network namespace with a ``/dev/shm`` of its own, so that nothing but the cable joins
the two: a pair of veth interfaces with an MTU of 1,500 bytes. The namespaces have no names. They
end with the processes inside, and these end with the process that made them, even if that was
killed: nothing can be left over.

Needs root and, of Debian's packages, ``iproute2`` and ``util-linux``; loss needs ``nftables``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

CABLE = 'cable'
"""Name of the network interface at both ends."""

MTU = 1500

TOOLS = ('ip', 'nsenter', 'setpriv', 'unshare')

# Before the kernel puts fragments together, so that each is dropped or not for itself.
LOSS_RULES = """
table ip faults {{
    chain loss {{
        type filter hook prerouting priority -450;
        iifname "{cable}" ip protocol udp ip length {full} {chance} counter drop
        iifname "{cable}" ip protocol udp ip length != {full} {chance} counter drop
    }}
}}
"""

_SIDES: dict[str, tuple[str, str]] = {
    'robot': ('10.77.0.1', '10.77.0.2'),
    'cloud': ('10.77.0.2', '10.77.0.1'),
}

_HOLD = 'mount -t tmpfs shm /dev/shm && ip link set lo up && echo ready && exec cat'
"""What keeps a namespace: it ends when its standard input is closed."""


class HostError(RuntimeError):
    """Something in a host did not work; the message says what."""


_TRY = f'mount -t tmpfs shm /dev/shm && ip link add {CABLE} type veth peer name other'
_TRY_QUEUE = f'ip link add {CABLE} type veth peer name other && tc qdisc add dev {CABLE} root'


def obstacle(*tools: str) -> str:
    """Return why there can be no two hosts here, in words; nothing if there can.

    Args:
        *tools: programs that are needed beside :data:`TOOLS`.
    """
    if not sys.platform.startswith('linux'):
        return 'two hosts on one machine are network namespaces, which only Linux has'
    if os.geteuid() != 0:
        return 'two hosts on one machine are network namespaces, which only root can make'
    missing = [tool for tool in (*TOOLS, *tools) if shutil.which(tool) is None]
    if missing:
        return f'two hosts on one machine need {", ".join(missing)}, not installed here'
    tried = subprocess.run(
        ['unshare', '--net', '--mount', '--propagation', 'private', 'sh', '-c', _TRY],
        capture_output=True,
        text=True,
    )
    if tried.returncode:
        return f'network namespaces cannot be made here: {tried.stderr.strip()}'
    return ''


def queue_obstacle(*options: str) -> str:
    """Return why the kernel cannot do this queueing discipline, in words; nothing if it can.

    Args:
        *options: of ``tc qdisc add dev DEVICE root``.
    """
    if shutil.which('tc') is None:
        return f'tc {options[0]} needs tc, not installed here'
    tried = subprocess.run(
        ['unshare', '--net', 'sh', '-c', f'{_TRY_QUEUE} {" ".join(options)}'],
        capture_output=True,
        text=True,
    )
    if tried.returncode:
        return f'this kernel has no tc {options[0]}: {" ".join(tried.stderr.split())}'
    return ''


class Host:
    """One of the two hosts.

    Args:
        name: ``robot`` or ``cloud``.
        environment: variables for everything that runs there.
    """

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.address, self.gateway = _SIDES[name]
        self._environment = dict(environment)
        self._holder = subprocess.Popen(
            ['setpriv', '--pdeathsig', 'KILL', 'unshare', '--net', '--mount', '--propagation']
            + ['private', 'sh', '-c', _HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._holder.stdout is not None
        line = self._holder.stdout.readline()
        if line != 'ready\n':
            self.close()
            raise HostError(f'cannot make host {name}: {line.strip()}')

    @property
    def pid(self) -> int:
        """Process id of what keeps the namespace."""
        return self._holder.pid

    @property
    def prefix(self) -> list[str]:
        """What to put before a command for it to run here; it ends with this process."""
        return [
            *('setpriv', '--pdeathsig', 'KILL', '--'),
            *('nsenter', f'--target={self.pid}', '--net', '--mount', f'--wd={Path.cwd()}', '--'),
            *('env', *(f'{key}={value}' for key, value in self._environment.items())),
        ]

    def run(self, *command: str, text: str | None = None) -> str:
        """Run a command here and return what it printed.

        Args:
            *command: the command.
            text: its standard input.

        Raises:
            HostError: if it failed.
        """
        done = subprocess.run(
            [*self.prefix, *command], input=text, capture_output=True, text=True, timeout=20
        )
        if done.returncode:
            raise HostError(f'{self.name}: {" ".join(command)}: {done.stderr.strip()}')
        return done.stdout

    def close(self) -> None:
        """End the namespace, unless a process is still inside."""
        self._holder.kill()
        self._holder.wait()
        for stream in (self._holder.stdin, self._holder.stdout):
            if stream is not None:
                stream.close()


class Dropped(NamedTuple):
    """Packets that a host did not get."""

    packets: int
    full: int
    """Those of them that were as large as the MTU: all of a message but its last packet."""


class TwoHosts:
    """A robot and a cloud, joined by a cable; a context manager.

    Args:
        environment: variables for everything that runs on either.

    Attributes:
        robot: the host of the edge node.
        cloud: the host of the cloud node.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        environment = {
            **environment,
            'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET',
            'ROS_STATIC_PEERS': '',
        }
        self.robot = Host('robot', environment)
        try:
            self.cloud = Host('cloud', environment)
        except HostError:
            self.robot.close()
            raise
        try:
            self._join()
        except HostError:
            self.close()
            raise

    def _join(self) -> None:
        self.robot.run(
            *('ip', 'link', 'add', CABLE, 'mtu', str(MTU), 'type', 'veth'),
            *('peer', 'name', CABLE, 'mtu', str(MTU), 'netns', str(self.cloud.pid)),
        )
        for host in (self.robot, self.cloud):
            host.run('ip', 'address', 'add', f'{host.address}/24', 'dev', CABLE)
        for host in (self.robot, self.cloud):
            host.run('ip', 'link', 'set', CABLE, 'up')
        for host in (self.robot, self.cloud):
            host.run('ip', 'route', 'add', 'default', 'via', host.gateway)

    def __enter__(self) -> TwoHosts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End both hosts; what runs there has to end before."""
        self.robot.close()
        self.cloud.close()

    # -- faults --

    def lose(self, share: float) -> None:
        """Drop UDP packets at random, each fragment for itself, in both directions.

        Args:
            share: of the packets, 0 to 1, in steps of 0.001.
        """
        self.heal_loss()
        per_mille = round(share * 1000)
        chance = f'numgen random mod 1000 < {per_mille}' if per_mille < 1000 else ''
        rules = LOSS_RULES.format(cable=CABLE, full=MTU, chance=chance)
        for host in (self.robot, self.cloud):
            host.run('nft', '-f', '-', text=rules)

    def dropped(self) -> Dropped:
        """Return how many packets to the cloud were dropped since :meth:`lose`."""
        rules = json.loads(self.cloud.run('nft', '-j', 'list', 'ruleset'))
        counters = [
            expression['counter']['packets']
            for item in rules['nftables']
            for expression in item.get('rule', {}).get('expr', ())
            if 'counter' in expression
        ]
        return Dropped(sum(counters), sum(counters[:1]))

    def heal_loss(self) -> None:
        """Drop nothing any more."""
        for host in (self.robot, self.cloud):
            host.run('nft', 'flush', 'ruleset')

    def queue(self, *options: str) -> None:
        """Put a queueing discipline at both ends of the cable.

        Args:
            *options: of ``tc qdisc replace dev DEVICE root``.
        """
        for host in (self.robot, self.cloud):
            host.run('tc', 'qdisc', 'replace', 'dev', CABLE, 'root', *options)

    def heal_queue(self) -> None:
        """Take the queueing discipline out again."""
        for host in (self.robot, self.cloud):
            host.run('tc', 'qdisc', 'delete', 'dev', CABLE, 'root')

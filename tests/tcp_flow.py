"""A TCP flow from the robot to the cloud, of two hosts, that takes what it can get.

By CUBIC (RFC 9438), the default of most systems, whatever that of this machine is.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from msfc_demo.two_hosts import HostError, TwoHosts

PORT = 5001


@contextmanager
def tcp_flow(hosts: TwoHosts, segment: int | None = None) -> Iterator[None]:
    """Let a TCP flow send to the cloud as much as it can.

    Args:
        hosts: between which it is.
        segment: bytes of data and options in a packet at most (TCP_MAXSEG); None for what the
            link takes.
    """
    command = [sys.executable, __file__]
    taker = subprocess.Popen(
        [*hosts.cloud.prefix, *command, 'take'], stdout=subprocess.PIPE, text=True
    )
    processes = [taker]
    try:
        assert taker.stdout is not None
        if taker.stdout.readline() != 'ready\n':
            raise HostError('nobody takes what TCP sends')
        sender = [*hosts.robot.prefix, *command, 'send', hosts.cloud.address]
        processes.append(subprocess.Popen([*sender, *([str(segment)] if segment else [])]))
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
        if taker.stdout is not None:
            taker.stdout.close()


def take() -> None:
    """Take what comes over TCP."""
    with socket.create_server(('', PORT)) as server:
        print('ready', flush=True)
        connection, _ = server.accept()
        with connection:
            while connection.recv(65_536):
                pass


def send(address: str, segment: str | None = None) -> None:
    """Send zeros over TCP for ever, see :func:`tcp_flow`."""
    with socket.socket() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b'cubic')
        if segment is not None:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, int(segment))
        connection.connect((address, PORT))
        while True:
            connection.sendall(bytes(65_536))


if __name__ == '__main__':
    action, *arguments = sys.argv[1:]
    {'take': take, 'send': send}[action](*arguments)

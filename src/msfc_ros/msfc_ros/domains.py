"""ROS 2 domains that nobody else on this machine uses, for tests and demo."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from msfc_ros.fast_dds_queues import ports_of

DOMAINS = range(1, 101)
"""ROS 2 domains whose ports lie below those that Linux gives to clients."""


@contextmanager
def held_domain() -> Iterator[int]:
    """Choose a ROS 2 domain that nobody on this machine uses, and keep it from others' choice.

    The port of a domain's first participant (DDSI-RTPS 9.6.2) tells who has it; participants
    take the next one where it is in use.
    """
    domains = random.sample(DOMAINS, len(DOMAINS))
    for domain in domains:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
            try:
                held.bind(('', ports_of(domain, 0)[0]))
            except OSError:
                continue
            yield domain
            return
    yield domains[0]


def free_domain() -> int:
    """Return a ROS 2 domain that nobody on this machine uses."""
    with held_domain() as domain:
        return domain

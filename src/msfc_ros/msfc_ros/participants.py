"""Numbers of DDS participants, so that a restarted node does not get a killed one's ports.

Ports follow from the domain and the participant's number (DDSI-RTPS 9.6.2); by default a
participant takes the first number that is free, which is that of the process just killed. In Fast
DDS each unicast port is a queue in shared memory too. A new process makes the queue anew, while
whoever sent to the killed one still fills the old queue, which it keeps open: nothing arrives for
up to 3 s, or for good: the senders' own looks at the queues may have removed the old one by then.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msfc_ros.fast_dds import SHARED_MEMORY
from msfc_ros.fast_dds_queues import domain_of_environment, ports_of, queue_of, queues_released

NUMBERS = range(31, 0, -1)
"""Numbers in the order in which they are tried.

Others take theirs from 0 upwards. Static peers and ``ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST`` are
looked for at 0 to 31.
"""


@contextmanager
def held_participant() -> Iterator[int | None]:
    """Choose a number that no process of this domain uses, and keep it from others' choice.

    Numbers of processes that were killed come last, the latest of them after all others: an empty
    file beside the queues keeps each until its process ends in order. Gives ``None`` if every
    number is taken, or the domain in the environment is none. Meanwhile senders are kept from
    hanging on killed processes, see :mod:`msfc_ros.fast_dds_queues`.
    """
    domain = domain_of_environment()
    if domain is None:
        yield None  # rclpy says what is wrong
        return
    with queues_released(domain):
        for number in sorted(NUMBERS, key=lambda number: _left(domain, number)):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as held:
                try:
                    # A name without a file: it ends with the process, however that ends.
                    held.bind(f'\0msfc-participant-{domain}-{number}')
                    _check_unused(domain, number)
                except (OSError, OverflowError):
                    continue
                with _noted(domain, number):
                    yield number
                return
        yield None


def _check_unused(domain: int, number: int) -> None:
    """Raise OSError if a process of this machine uses a participant's ports."""
    for port in ports_of(domain, number):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(('', port))


def _note_of(domain: int, number: int) -> Path:
    return SHARED_MEMORY / f'msfc_participant_{domain}_{number}'


@contextmanager
def _noted(domain: int, number: int) -> Iterator[None]:
    """Keep note of a number until this process ends in order."""
    note = _note_of(domain, number)
    with suppress(OSError):
        note.unlink(missing_ok=True)
        os.close(os.open(note, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    try:
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)


def _left(domain: int, number: int) -> float:
    """Return when a process that was killed took a number, or made its queue of messages; else 0.

    The queue alone does not tell: senders that find it dead remove it, and have it open all the
    same.
    """
    times = [0.0]
    for path in (_note_of(domain, number), queue_of(ports_of(domain, number)[1])):
        with suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(times)

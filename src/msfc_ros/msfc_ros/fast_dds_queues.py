"""Queues of Fast DDS in shared memory, and what killed processes leave of them.

Each unicast port of a process is a queue there, ``fastrtps_port<port>``; the process keeps a file,
``fastrtps_port<port>_el``, locked. If it is killed while it takes a message out, whoever sends to
it finds the file unlocked a second or two later and tries to put the message's memory right. In
Fast DDS 2.14 that never ends: the function takes a lock that it already holds, waits for a second
in vain, and begins again. The sender, a camera say, hangs for good. Where the file is gone it
makes the queue anew and goes on; it lacks the memory of that one message.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from msfc_ros.fast_dds import SHARED_MEMORY

PERIOD = 0.3
"""Seconds between two looks: senders notice a killed process after one second at the earliest."""

PAUSE = 0.02
"""Seconds in which a process locks a file that it has made."""

GRAPH_PORTS = range(7000, 7400)
"""Ports of which each participant takes one, in whatever domain, for ``ros_discovery_info``."""

FORGOTTEN = 30.0
"""Seconds after which others no longer send to a killed process: 10 more than the lease of DDS."""

LOCKS = Path('/proc/locks')
"""Where Linux lists the locks of files."""


def domain_of_environment() -> int | None:
    """Return this process's ROS 2 domain; ``None`` if its variable is no number."""
    try:
        return int(os.environ.get('ROS_DOMAIN_ID') or 0)
    except ValueError:
        return None


def ports_of(domain: int, number: int) -> tuple[int, int]:
    """Return a participant's ports for discovery and for messages (DDSI-RTPS 9.6.2)."""
    first = 7400 + 250 * domain + 10 + 2 * number
    return first, first + 1


def queue_of(port: int) -> Path:
    """Return the file of a port's queue."""
    return SHARED_MEMORY / f'fastrtps_port{port}'


def release_queues(domain: int) -> list[int]:
    """Remove the lock files that killed processes of a domain have left; return their ports.

    Living processes keep theirs, also those of other containers on the same shared memory.
    """
    suspects = _unlocked(domain)
    if not suspects:
        return []
    time.sleep(PAUSE)
    still = _unlocked(domain)
    return [port for port in suspects if still.get(port) == suspects[port] and _release(port)]


@contextmanager
def queues_released(domain: int) -> Iterator[None]:
    """Look for lock files of killed processes all the time."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(PERIOD):
            release_queues(domain)

    thread = threading.Thread(target=watch, name='msfc_queues', daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def dead_graph_ports_avoided() -> Iterator[None]:
    """Keep the participant that is made meanwhile from graph ports of processes killed just now.

    Fast DDS takes the first of these ports whose lock file is not locked. If a queue is there it
    waits up to a second for its reader, then makes it anew, while others may still fill the old
    one.
    """
    with ExitStack() as stack:
        for port in GRAPH_PORTS:
            with suppress(OSError):
                killed = _note_of(port).stat().st_mtime
                lock = _locked(_lock_file(port))
                if time.time() - killed < FORGOTTEN:
                    stack.enter_context(lock)
                    continue
                _note_of(port).unlink()
                with lock:
                    queue_of(port).unlink()
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Make and lock a file, and remove it at the end; OSError if somebody else has locked it."""
    with path.open('ab') as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _note_of(port: int) -> Path:
    """Return the empty file that tells when the process of a graph port was found to be killed."""
    return SHARED_MEMORY / f'msfc_killed_port{port}'


def _lock_file(port: int) -> Path:
    return queue_of(port).with_name(f'{queue_of(port).name}_el')


def _is_looked_at(port: int, domain: int) -> bool:
    """Whether a port may be of a participant of the domain, or of what it hears of the graph."""
    return port in GRAPH_PORTS or port in range(ports_of(domain, 0)[0], 7400 + 250 * (domain + 1))


def _unlocked(domain: int) -> dict[int, int]:
    """Return the ports whose lock files no process seems to hold, and the files' inodes."""
    found = {}
    with suppress(OSError):
        for path in SHARED_MEMORY.glob('fastrtps_port*_el'):
            number = path.name.removeprefix('fastrtps_port').removesuffix('_el')
            if number.isdecimal() and _is_looked_at(int(number), domain):
                with suppress(OSError):
                    found[int(number)] = path.stat()
    held = _locked_files() if found else set()
    return {
        port: stat.st_ino
        for port, stat in found.items()
        if f'{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}' not in held
    }


def _locked_files() -> set[str]:
    """Return device and inode of the files that processes of this container have locked."""
    try:
        lines = LOCKS.read_text().splitlines()
    except OSError:
        return set()
    return {field for line in lines for field in line.split() if field.count(':') == 2}


def _release(port: int) -> bool:
    """Remove a lock file unless somebody holds it; return whether it is gone."""
    path = _lock_file(port)
    try:
        with path.open('rb') as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if port in GRAPH_PORTS:
                # It may be another user's.
                with suppress(OSError):
                    _note_of(port).touch()
            path.unlink()
    except OSError:
        return False
    return True

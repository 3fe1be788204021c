"""Nodes as processes that leave nothing behind, in a ROS 2 graph of their own."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix

from msfc_ros.domains import free_domain

STOP_PATIENCE = 10.0
"""Seconds that the nodes get to end by themselves."""

TAIL_LINES = 15
"""Lines of a dead node's log that are shown."""

PR_SET_PDEATHSIG = 1
"""Of prctl(2)."""

# Opened here: between fork and exec a process should do next to nothing.
_LIBC = ctypes.CDLL(None)


class NodeError(RuntimeError):
    """A node that could not be started, or died; the message says which, and why if it did."""


def private_environment(logs: Path) -> dict[str, str]:
    """Return environment variables that keep a ROS 2 graph to this machine and to itself.

    Args:
        logs: folder of the log files that ROS 2 writes.
    """
    return {
        'ROS_DOMAIN_ID': str(free_domain()),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'ROS_STATIC_PEERS': '',
        'ROS_LOG_DIR': str(logs / 'ros'),
        'PYTHONUNBUFFERED': '1',
    }


class NodeProcesses:
    """Nodes as processes; as a context manager it ends them all on leaving.

    Args:
        logs: folder of their output, a file each.
        environment: variables in addition to this process's.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        self._environment = {**os.environ, **environment}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> NodeProcesses:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def log(self, name: str) -> Path:
        """Return the file of a node's output."""
        return self._logs / f'{name}.log'

    def pid(self, name: str) -> int:
        """Return a node's process id."""
        return self._processes[name].pid

    def start(
        self,
        name: str,
        package: str,
        executable: str,
        params_file: Path,
        parameters: Mapping[str, object],
        prefix: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a node, as ``ros2 run`` would.

        Args:
            name: for messages and the log.
            package: its package.
            executable: of the package.
            params_file: its parameter file.
            parameters: parameters that replace those of the file.
            prefix: what stands before the command, for it to run elsewhere.

        Returns:
            Its process, which :meth:`stop` ends.

        Raises:
            NodeError: if the workspace has no such executable.
        """
        try:
            path = Path(get_package_prefix(package)) / 'lib' / package / executable
        except PackageNotFoundError as error:
            raise NodeError(
                f'package {package} is not in the sourced workspace: run scripts/setup.sh, then '
                'source scripts/env.sh'
            ) from error
        arguments = ['--ros-args', '--params-file', str(params_file)]
        for key, value in parameters.items():
            arguments += ['-p', f'{key}:={_yaml(value)}']
        try:
            with self.log(name).open('wb') as output:
                process = subprocess.Popen(
                    [*prefix, str(path), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    # A group of its own: a Ctrl-C in the terminal is for this process to handle.
                    start_new_session=True,
                    preexec_fn=_die_with_parent,
                )
        except OSError as error:
            raise NodeError(f'cannot start the {name}: {error}') from error
        self._processes[name] = process
        return process

    def check(self) -> None:
        """Raise a :exc:`NodeError` with the end of its log if a node has ended."""
        for name, process in self._processes.items():
            status = process.poll()
            if status is not None:
                raise NodeError(f'the {name} ended {_status_in_words(status)}\n{self.tail(name)}')

    def tail(self, name: str) -> str:
        """Return the end of a node's log, with a line that says what it is."""
        path = self.log(name)
        lines = path.read_text(errors='replace').splitlines()[-TAIL_LINES:]
        return '\n'.join([f'The end of {path}:', *(f'  {line}' for line in lines)])

    def stop(self) -> None:
        """End all nodes and whatever they started: ask first, then kill."""
        for process in self._processes.values():
            _signal_group(process, signal.SIGINT)
        deadline = time.monotonic() + STOP_PATIENCE
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0))
            _signal_group(process, signal.SIGKILL)
            process.wait()
        self._processes.clear()


def _yaml(value: object) -> str:
    # JSON is YAML, and quotes: a model named 1 would be a number otherwise.
    return json.dumps(value)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # The group outlives its leader if that left children behind.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _die_with_parent() -> None:
    """End this process, when its parent is killed without a chance to end it (Linux)."""
    if sys.platform == 'linux':
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _status_in_words(status: int) -> str:
    if status < 0:
        return f'by signal {signal.Signals(-status).name}'
    return f'with status {status}'

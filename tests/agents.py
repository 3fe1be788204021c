"""This process's hands on two hosts, and waiting for what they tell."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msfc_demo.two_hosts import Host, HostError


class Agent:
    """This process's hand on a host: ``host_agent.py``, run there.

    Args:
        host: the host.
        log: file of what it says.
        *arguments: of its command line.
        prefix: what to put before its command there.
    """

    def __init__(self, host: Host, log: Path, *arguments: str, prefix: Sequence[str] = ()) -> None:
        self._log = log
        script = Path(__file__).with_name('host_agent.py')
        with log.open('a') as errors:
            self._process = subprocess.Popen(
                [*host.prefix, *prefix, sys.executable, str(script), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                bufsize=1,
            )

    def ask(self, what: str, **arguments: Any) -> Any:
        """Ask for something and return the answer.

        Args:
            what: name of a method of ``host_agent.Agent``.
            **arguments: for it.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([what, arguments]) + '\n')
        answer = self._process.stdout.readline()
        if not answer:
            raise HostError(f'the agent has ended: {self._log.read_text()[-2000:]}')
        return json.loads(answer)

    def kill(self) -> None:
        """End it without a chance to say good-bye."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def wait_until(
    condition: Callable[[], Any], what: str | Callable[[], str], timeout: float, pause: float
) -> Any:
    """Wait until a condition holds and return its value.

    Args:
        condition: is asked again and again.
        what: is waited for, in words.
        timeout: seconds after which the wait has failed.
        pause: seconds between two questions.
    """
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            words = what if isinstance(what, str) else what()
            raise AssertionError(f'waited {timeout:.0f} s in vain for {words}')
        time.sleep(pause)
    return value

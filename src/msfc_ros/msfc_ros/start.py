"""Starting a node's process.

This module imports little, and what it starts is named by text: while torch is imported, which
takes seconds, an interrupt has to end the process without a page of traceback.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence

WAITING = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')
"""Variables by which a user says how OpenMP's threads wait."""

SPIN_COUNT = 10_000
"""How often such a thread looks for work before it sleeps: tens of microseconds."""


def wait_briefly() -> None:
    """Let the threads of OpenMP (GNU's, which PyTorch comes with) leave the cores to others soon.

    By default they keep a core busy for milliseconds after each frame. Where edge and cloud
    share a machine, the other one needs it just then. Call before torch is imported.
    """
    if not any(map(os.environ.get, WAITING)):
        os.environ['GOMP_SPINCOUNT'] = str(SPIN_COUNT)


def start(module: str, node: str, args: Sequence[str] | None = None) -> None:
    """Run a node until SIGINT or SIGTERM, then exit.

    Args:
        module: name of the module that it is in.
        node: name of its class, a :class:`msfc_ros.node.ManagedNode`.
        args: command line; by default the process's.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    wait_briefly()
    node_type = getattr(importlib.import_module(module), node)
    from msfc_ros.node import run

    sys.exit(run(node_type, args))

"""Starting a node's process.

This module imports little, and what it starts is named by text: while torch is imported, which
takes seconds, an interrupt has to end the process without a page of traceback.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence


def start(module: str, node: str, args: Sequence[str] | None = None) -> None:
    """Run a node until SIGINT or SIGTERM, then exit.

    Args:
        module: name of the module that it is in.
        node: name of its class, a :class:`msfc_ros.node.ManagedNode`.
        args: command line; by default the process's.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    node_type = getattr(importlib.import_module(module), node)
    from msfc_ros.node import run

    sys.exit(run(node_type, args))

"""Programs that are interrupted, or miss a module, while they import: no page of traceback."""

from __future__ import annotations

import importlib
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msfc.missing import missing_modules_told


@contextmanager
def silent_interrupts() -> Iterator[None]:
    """Let SIGINT end the process at once, as long as there is nothing to put in order.

    Imports take seconds, and Python would raise in the midst of them, where some libraries even
    make another error of it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        # None: a handler that is not Python's.
        if before is not None:
            signal.signal(signal.SIGINT, before)


def run_program(module: str, function: str = 'main') -> Any:
    """Import a module and call a function of it; an interrupt ends the program with status 130.

    A module that is missing ends it with a sentence that says what to install.

    Args:
        module: name of the module.
        function: name of the function; it is called without arguments.

    Returns:
        What the function returns.
    """
    try:
        with missing_modules_told(), silent_interrupts():
            program = getattr(importlib.import_module(module), function)
        return program()
    except KeyboardInterrupt:
        sys.exit(130)

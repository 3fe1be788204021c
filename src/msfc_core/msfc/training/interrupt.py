"""Ctrl-C as a request, so that training stops between two iterations."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE = 1.0
"""Seconds within which a further Ctrl-C counts as the same one: torchrun passes it on twice."""


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C sets, in place of an exception in the midst of an iteration.

    A second Ctrl-C, more than :data:`PATIENCE` later, interrupts at once. Only the main thread
    can handle signals; in another one the event is never set.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return
    first = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if requested.is_set() and time.monotonic() - first > PATIENCE:
            raise KeyboardInterrupt
        if not requested.is_set():
            first = time.monotonic()
            requested.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield requested
    finally:
        signal.signal(signal.SIGINT, before)

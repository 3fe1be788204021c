"""What command line tools that talk with ROS 2 share: a context that ends on a signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import rclpy
from rclpy.signals import SignalHandlerOptions


@contextmanager
def tool_context() -> Iterator[threading.Event]:
    """Start rclpy; the event is set by SIGINT or SIGTERM, and a second signal ends the process."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield stop
    finally:
        rclpy.try_shutdown()
        for number, handler in before.items():
            signal.signal(number, handler)

"""What command line tools that talk with ROS 2 share: a context that ends on a signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.exceptions import NameValidationException
from rclpy.signals import SignalHandlerOptions

from msfc_ros.fast_dds import use_profile
from msfc_ros.participants import held_participant
from msfc_ros.security import check_security
from msfc_ros.signals import StopSignals


@contextmanager
def tool_context() -> Iterator[threading.Event]:
    """Start rclpy; the event is set by SIGINT or SIGTERM, see :mod:`msfc_ros.signals`.

    Raises:
        ValueError: if ROS 2 cannot start or, inside the context, cannot do what it is asked to: a
            topic has no valid name, say, or security has no keys.
    """
    check_security()
    stop = threading.Event()
    signals = StopSignals((signal.SIGINT, signal.SIGTERM), lambda number: stop.set())
    try:
        with held_participant() as participant:
            use_profile(participant=participant)
            rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
            yield stop
    except (RCLError, NameValidationException) as error:
        raise ValueError(f'ROS 2 refuses this: {error}') from error
    finally:
        rclpy.try_shutdown()
        signals.restore()

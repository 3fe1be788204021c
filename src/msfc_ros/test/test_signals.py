import signal
import subprocess
import sys

import pytest

from msfc_ros.signals import GRACE, StopSignals
from ros_fixtures import ManualClock


@pytest.fixture
def before():
    handler = signal.getsignal(signal.SIGUSR1)
    yield handler
    signal.signal(signal.SIGUSR1, handler)


def test_the_same_request_again_changes_nothing(before):
    clock, requests = ManualClock(), []
    signals = StopSignals((signal.SIGUSR1,), requests.append, clock)
    assert not signals.came
    signal.raise_signal(signal.SIGUSR1)
    clock.now += GRACE
    signal.raise_signal(signal.SIGUSR1)
    assert requests == [signal.SIGUSR1]
    # What ends the process is sent to a tool that has ended, too.
    signals.restore()
    signal.raise_signal(signal.SIGUSR1)
    assert signals.came


def test_without_a_request_all_is_as_before(before):
    StopSignals((signal.SIGUSR1,), print).restore()
    assert signal.getsignal(signal.SIGUSR1) == before


def test_who_asks_again_later_does_not_want_to_wait():
    code = f"""
import signal
from msfc_ros.signals import GRACE, StopSignals
times = [0.0, GRACE, GRACE + 1]
StopSignals((signal.SIGINT, signal.SIGTERM), lambda n: print(n, flush=True), lambda: times.pop(0))
signal.raise_signal(signal.SIGINT)
signal.raise_signal(signal.SIGINT)
signal.raise_signal(signal.SIGTERM)  # another kind: the launch system's next step
times[:] = [{2 * GRACE} + 1]
signal.raise_signal(signal.SIGINT)
print('still there')
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGINT
    assert done.stdout.split() == ['2', '15']
    assert not done.stderr

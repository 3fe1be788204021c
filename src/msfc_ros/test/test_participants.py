import os
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_ros import fast_dds_queues, participants
from msfc_ros.participants import NUMBERS, held_participant

DOMAIN = 99
LISTENER = """
import sys
from msfc_ros.fast_dds import use_profile
from msfc_ros.participants import held_participant
with held_participant() as number:
    use_profile(participant=number)
    import rclpy
    from std_msgs.msg import Empty
    rclpy.init()
    node = rclpy.create_node('listener')
    node.create_subscription(Empty, 'nothing', print, 1)
    print(number, flush=True)
    sys.stdin.read()
    node.destroy_node()
    rclpy.shutdown()
"""


@pytest.fixture
def queues(monkeypatch, tmp_path):
    """Work in a domain where nobody was killed; return the folder of the queues."""
    monkeypatch.setenv('ROS_DOMAIN_ID', str(DOMAIN))
    monkeypatch.setattr(fast_dds_queues, 'SHARED_MEMORY', tmp_path)
    monkeypatch.setattr(participants, 'SHARED_MEMORY', tmp_path)
    return tmp_path


def queue(number):
    """The queue of a participant's messages by DDSI-RTPS 9.6.2."""
    return f'fastrtps_port{7400 + 250 * DOMAIN + 11 + 2 * number}'


def held():
    with held_participant() as number:
        return number


def test_number_is_kept_from_others(queues):
    with ExitStack() as stack:
        numbers = [stack.enter_context(held_participant()) for _ in NUMBERS]
        assert numbers == list(NUMBERS)
        assert held() is None
    assert held() == NUMBERS[0]


@pytest.mark.parametrize('offset', [0, 1], ids=['discovery', 'messages'])
def test_ports_in_use(queues, offset):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(('', 7400 + 250 * DOMAIN + 10 + 2 * NUMBERS[0] + offset))
        assert held() == NUMBERS[1]
    assert held() == NUMBERS[0]


def test_queues_of_killed_processes_come_last(queues):
    for age, number in enumerate(NUMBERS[:-1]):
        queue_path = queues / queue(number)
        queue_path.touch()
        os.utime(queue_path, (1000 - age, 1000 - age))
    assert held() == NUMBERS[-1]
    # When there is no other, that which was made the longest ago.
    (queues / queue(NUMBERS[-1])).touch()
    assert held() == NUMBERS[-2]


def test_number_of_a_killed_process_comes_last_without_its_queue(queues):
    """Senders remove a dead queue and go on to fill it."""
    script = (
        'from msfc_ros import participants; import os, pathlib\n'
        f'participants.SHARED_MEMORY = pathlib.Path({str(queues)!r})\n'
        'with participants.held_participant() as number:\n'
        '    print(number, flush=True)\n'
        '    os.kill(os.getpid(), 9)\n'
    )
    killed = [
        int(subprocess.run([sys.executable, '-c', script], capture_output=True, text=True).stdout)
        for _ in range(2)
    ]
    assert killed == [NUMBERS[0], NUMBERS[1]]
    with ExitStack() as stack:
        others = [stack.enter_context(held_participant()) for _ in NUMBERS]
    assert others == [*NUMBERS[2:], *killed]
    # Those have ended in order.
    assert held() == NUMBERS[0]


@pytest.mark.parametrize('domain', ['', '0'])
def test_default_domain(monkeypatch, domain):
    monkeypatch.setenv('ROS_DOMAIN_ID', domain)
    assert held() in NUMBERS


@pytest.mark.parametrize('domain', ['mine', '4000', '9' * 30])
def test_domain_that_is_none(monkeypatch, domain):
    monkeypatch.setenv('ROS_DOMAIN_ID', domain)
    assert held() is None


@pytest.mark.dds
def test_killed_process_leaves_its_number_behind(ros_environment):
    """Others may still fill the queue that it has left."""

    def start():
        process = subprocess.Popen(
            [sys.executable, '-c', LISTENER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return process, int(process.stdout.readline())

    killed, number = start()
    # Fast DDS took the number that it was given.
    port = 7400 + 250 * int(ros_environment['ROS_DOMAIN_ID']) + 11 + 2 * number
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken,
        pytest.raises(OSError, match='in use'),
    ):
        taken.bind(('', port))
    killed.kill()
    killed.communicate()
    successor, another = start()
    assert another != number
    assert successor.communicate('', timeout=60)
    assert successor.returncode == 0

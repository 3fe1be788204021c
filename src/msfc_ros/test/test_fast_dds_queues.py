import fcntl
import os
import subprocess
import sys
import time

import pytest

from msfc_ros import fast_dds_queues as queues
from msfc_ros.fast_dds_queues import (
    FORGOTTEN,
    dead_graph_ports_avoided,
    domain_of_environment,
    ports_of,
    queue_of,
    queues_released,
    release_queues,
)

DOMAIN = 3


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(queues, 'SHARED_MEMORY', tmp_path)
    return tmp_path


def lock_file(folder, number, domain=DOMAIN):
    return folder / f'fastrtps_port{ports_of(domain, number)[1]}_el'


@pytest.fixture
def hold():
    """Return a function by which another process holds a file until it is killed."""
    processes = []

    def hold(path):
        code = (
            'import fcntl, sys; file = open(sys.argv[1], "wb"); '
            'fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()'
        )
        process = subprocess.Popen(
            [sys.executable, '-c', code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        processes.append(process)
        process.stdout.readline()
        return process

    yield hold
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(('text', 'domain'), [('', 0), ('7', 7), ('mine', None)])
def test_domain(monkeypatch, text, domain):
    monkeypatch.setenv('ROS_DOMAIN_ID', text)
    assert domain_of_environment() == domain


def test_ports():
    """DDSI-RTPS 9.6.2: PB + DG * domain + d1 or d3 + PG * number."""
    assert ports_of(0, 0) == (7410, 7411)
    assert ports_of(2, 3) == (7400 + 500 + 16, 7400 + 500 + 17)
    assert queue_of(7411).name == 'fastrtps_port7411'


@pytest.mark.parametrize('listed', [True, False], ids=['own container', 'another container'])
def test_living_processes_keep_their_files(folder, hold, monkeypatch, tmp_path, listed):
    if not listed:
        monkeypatch.setattr(queues, 'LOCKS', tmp_path / 'missing')
    path = lock_file(folder, 1)
    queue = queue_of(ports_of(DOMAIN, 1)[1])
    queue.touch()
    process = hold(path)
    assert release_queues(DOMAIN) == []
    assert path.exists()
    process.kill()
    process.wait()
    assert release_queues(DOMAIN) == [ports_of(DOMAIN, 1)[1]]
    assert not path.exists()
    # The queue stays: without it a reader on the same port gets its first message later.
    assert queue.exists()


def test_other_domains_are_left_alone(folder):
    other = [lock_file(folder, 119, DOMAIN - 1), lock_file(folder, 0, DOMAIN + 1)]
    for path in other:
        path.touch()
    lock_file(folder, 119).touch()
    assert release_queues(DOMAIN) == [ports_of(DOMAIN, 119)[1]]
    assert all(path.exists() for path in other)


def test_what_is_heard_of_the_graph(folder):
    for name in ('fastrtps_port7000_el', 'fastrtps_port7399_el', 'fastrtps_port6999_el'):
        (folder / name).touch()
    (folder / 'fastrtps_portal_el').touch()
    assert sorted(release_queues(DOMAIN)) == [7000, 7399]


def test_file_that_is_locked_in_a_moment(folder, monkeypatch):
    """A process makes its file and locks it then."""
    path = lock_file(folder, 0)
    path.touch()
    with path.open('rb') as file:
        monkeypatch.setattr(queues.time, 'sleep', lambda s: fcntl.flock(file, fcntl.LOCK_EX))
        assert release_queues(DOMAIN) == []
    assert path.exists()


def test_watch(folder, monkeypatch):
    monkeypatch.setattr(queues, 'PERIOD', 0.01)
    path = lock_file(folder, 2)
    with queues_released(DOMAIN):
        path.touch()
        end = time.monotonic() + 60
        while path.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
    path.touch()
    time.sleep(0.1)
    assert path.exists()


def test_folder_without_shared_memory(folder):
    os.rmdir(folder)
    assert release_queues(DOMAIN) == []


def test_graph_ports_of_processes_killed_just_now_are_avoided(folder, hold):
    for port in (7001, 7002, 7005):
        (folder / f'fastrtps_port{port}').touch()
        (folder / f'fastrtps_port{port}_el').touch()
    assert sorted(release_queues(DOMAIN)) == [7001, 7002, 7005]
    # In the meantime somebody else has taken one of them.
    hold(folder / 'fastrtps_port7002_el')
    held_elsewhere = pytest.raises(BlockingIOError)
    long_ago = time.time() - 2 * FORGOTTEN
    os.utime(folder / 'msfc_killed_port7005', (long_ago, long_ago))
    for _ in range(2):
        with dead_graph_ports_avoided():
            locks = {path.name for path in folder.glob('*_el')}
            with (folder / 'fastrtps_port7001_el').open('rb') as file, held_elsewhere:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert locks == {'fastrtps_port7001_el', 'fastrtps_port7002_el'}
        assert [path.name for path in folder.glob('*_el')] == ['fastrtps_port7002_el']
    assert sorted(path.name for path in folder.iterdir()) == [
        'fastrtps_port7001', 'fastrtps_port7002', 'fastrtps_port7002_el',
        'msfc_killed_port7001', 'msfc_killed_port7002',
    ]  # fmt: skip


def test_lock_file_goes_where_no_note_can_be_taken(folder):
    (folder / 'fastrtps_port7003_el').touch()
    (folder / 'msfc_killed_port7003').symlink_to(folder / 'missing' / 'file')
    assert release_queues(DOMAIN) == [7003]
    assert not (folder / 'fastrtps_port7003_el').exists()


PARTICIPANT = """
import sys
from msfc_ros import fast_dds_queues as queues
import rclpy
queues.release_queues(queues.domain_of_environment())
rclpy.init()
with queues.dead_graph_ports_avoided():
    node = rclpy.create_node('killed')
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.dds
def test_a_new_participant_does_not_take_the_place_of_a_killed_one(ros_environment):
    def start():
        process = subprocess.Popen(
            [sys.executable, '-c', PARTICIPANT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        process.stdout.readline()
        return process, locked_graph_ports(process.pid)

    first, ports = start()
    assert len(ports) == 1
    first.kill()
    first.communicate()
    second, others = start()
    second.kill()
    second.communicate()
    assert len(others) == 1
    assert others != ports


def locked_graph_ports(pid):
    """Return the graph ports of a process, by the files that it has locked."""
    inodes = {
        int(fields[5].rpartition(':')[2])
        for fields in map(str.split, queues.LOCKS.read_text().splitlines())
        if fields[1] == 'FLOCK' and fields[4] == str(pid)
    }
    return {
        port
        for port in queues.GRAPH_PORTS
        if (path := queue_of(port).with_name(f'fastrtps_port{port}_el')).exists()
        and path.stat().st_ino in inodes
    }

import fcntl
import os
import subprocess
import sys
import time

import pytest

from msfc_ros import fast_dds_queues as queues
from msfc_ros.fast_dds_queues import (
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
    # The queue stays: it tells the next one which ports to leave alone.
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

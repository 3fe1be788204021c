import os
import signal
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_demo import processes as module
from msfc_demo.processes import (
    NodeError,
    NodeProcesses,
    private_environment,
)

NODE = f"""#!{sys.executable} -u
import os, signal, subprocess, sys, time
arguments = ' '.join(sys.argv[1:])
print('arguments:', arguments, flush=True)
print('domain:', os.environ['ROS_DOMAIN_ID'], flush=True)
if 'stubborn' in arguments:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
if 'parent' in arguments:
    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])
    print('child:', child.pid, flush=True)
if 'fails' in arguments:
    sys.exit('this is why')
print('ready', flush=True)
time.sleep(1000)
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    executable = tmp_path / 'lib' / 'a_package' / 'node'
    executable.parent.mkdir(parents=True)
    executable.write_text(NODE)
    executable.chmod(0o755)
    monkeypatch.setattr(module, 'get_package_prefix', lambda package: str(tmp_path))

    def start(nodes, name, **parameters):
        return nodes.start(name, 'a_package', 'node', Path('file.yaml'), parameters)

    return start


@pytest.fixture
def nodes(tmp_path):
    return NodeProcesses(tmp_path / 'logs', {'ROS_DOMAIN_ID': '42'})


def wait_for(nodes, name, words):
    end = time.monotonic() + 20
    while words not in nodes.log(name).read_text():
        assert time.monotonic() < end, nodes.log(name).read_text()
        time.sleep(0.02)
    return nodes.log(name).read_text()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody has waited for is as good as gone.
    return '\nState:\tZ' not in Path(f'/proc/{pid}/status').read_text()


def test_arguments_and_environment(start, nodes):
    with nodes:
        start(nodes, 'edge', model='1', loop=True, rate=0.0)
        log = wait_for(nodes, 'edge', 'ready')
        nodes.check()
    assert (
        'arguments: --ros-args --params-file file.yaml -p model:="1" -p loop:=true -p rate:=0.0'
        in log
    )
    assert 'domain: 42' in log


def test_whole_groups_are_ended(start, nodes, monkeypatch):
    monkeypatch.setattr(module, 'STOP_PATIENCE', 0.5)
    with nodes:
        start(nodes, 'edge', kind='stubborn')
        start(nodes, 'cloud', kind='parent')
        wait_for(nodes, 'edge', 'ready')
        log = wait_for(nodes, 'cloud', 'ready')
        child = int(log.split('child: ')[1].split()[0])
        assert alive(child)
        nodes.check()
    end = time.monotonic() + 5
    while alive(child) and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive(child)
    nodes.check()


def test_ended_on_errors_too(start, nodes):
    def fail():
        with nodes:
            pids.append(start(nodes, 'edge').pid)
            wait_for(nodes, 'edge', 'ready')
            raise ZeroDivisionError

    pids = []
    with pytest.raises(ZeroDivisionError):
        fail()
    assert not alive(pids[0])


def test_death_is_told_with_the_log(start, nodes):
    with nodes:
        start(nodes, 'cloud', kind='fails').wait(20)
        with pytest.raises(NodeError, match='the cloud ended with status 1') as error:
            nodes.check()
        assert 'this is why' in str(error.value)


def test_death_by_a_signal_is_told(start, nodes):
    with nodes:
        edge = start(nodes, 'edge')
        wait_for(nodes, 'edge', 'ready')
        edge.send_signal(signal.SIGKILL)
        edge.wait(20)
        with pytest.raises(NodeError, match='the edge ended by signal SIGKILL'):
            nodes.check()


def test_what_is_not_there(nodes, tmp_path, monkeypatch):
    with nodes, pytest.raises(NodeError, match=r'package no_such_package .* scripts/setup\.sh'):
        nodes.start('edge', 'no_such_package', 'node', Path('file.yaml'), {})
    monkeypatch.setattr(module, 'get_package_prefix', lambda package: str(tmp_path))
    with nodes, pytest.raises(NodeError, match='cannot start the edge'):
        nodes.start('edge', 'a_package', 'no_such_node', Path('file.yaml'), {})


def test_graph_stays_on_this_machine(tmp_path):
    environment = private_environment(tmp_path)
    assert environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    assert 1 <= int(environment['ROS_DOMAIN_ID']) <= 100

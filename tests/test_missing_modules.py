"""Executables where a Python module is missing: one sentence that says what to install."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from ament_index_python.packages import get_package_prefix


@pytest.fixture
def run(tmp_path, ros_environment):
    """Return a function that runs an executable of ours without a module."""

    def without(module, package, executable, *arguments):
        (tmp_path / f'{module}.py').write_text(
            f'raise ModuleNotFoundError("No module named {module!r}", name={module!r})\n'
        )
        path = os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])
        return subprocess.run(
            [Path(get_package_prefix(package), *executable.split('/')), *arguments],
            env={**os.environ, 'PYTHONPATH': path},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return without


@pytest.mark.parametrize(
    ('module', 'package', 'executable', 'arguments'),
    [
        ('torchvision', 'msfc_edge', 'lib/msfc_edge/edge_node', ()),
        ('safetensors', 'msfc_cloud', 'lib/msfc_cloud/cloud_node', ()),
        ('rosbags', 'msfc_sim', 'lib/msfc_sim/clip_player', ()),
        ('rerun', 'msfc_viewer', 'lib/msfc_viewer/viewer_node', ()),
        ('rich', 'msfc_demo', 'lib/msfc_demo/demo', ()),
        ('typer', 'msfc_core', 'bin/msfc', ('--help',)),
        ('safetensors', 'msfc_core', 'bin/msfc', ('info', 'tabletop_msfc')),
    ],
)
def test_what_to_install_is_told(run, module, package, executable, arguments):
    done = run(module, package, executable, *arguments)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    # The edge loads what its model needs when it is configured, and logs what went wrong.
    loads = package == 'msfc_edge'
    begin = rf'\[ERROR\] \[[\d.]+\] \[{package}\]: cannot configure' if loads else 'error'
    assert re.match(f'{begin}: the Python module {module} is not installed', line)
    package = {'rerun': 'rerun-sdk'}.get(module, module)
    assert line.endswith(f'{sys.executable} -m pip install {package}')


def test_messages_that_are_not_built_are_told(run):
    done = run('msfc_msgs', 'msfc_edge', 'lib/msfc_edge/edge_node')
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        'error: msfc_msgs is not in the sourced workspace: run scripts/setup.sh'
    )


def test_the_live_camera_without_a_simulator(run):
    done = run('mujoco', 'msfc_sim', 'lib/msfc_sim/camera_node')
    assert done.returncode == 1
    assert 'the Python module mujoco is not installed' in done.stderr
    assert 'Traceback' not in done.stderr
    assert 'EGL' not in done.stderr

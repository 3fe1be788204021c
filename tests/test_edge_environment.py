"""The environment of a robot alone: its lock, what the edge imports of it, its two scripts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from locked_imports import beyond_an_edge, locked

ROOT = Path(__file__).parent.parent
SETUP = ROOT / 'scripts' / 'setup.sh'

MODULES = (
    'msfc.edge_bundle',
    'msfc.pipeline.graph_network',
    'msfc.pipeline.onnxruntime_graph',
    'msfc.pipeline.openvino_graph',
)


def test_the_lock_is_small_and_that_of_all():
    edge, base = locked('edge'), locked('base')
    assert {name: base[name] for name in edge} == edge
    assert {'numpy', 'opencv-python-headless', 'constriction', 'openvino', 'onnxruntime'} <= set(
        edge
    )
    large = ('torch', 'torchvision', 'triton', 'nvidia', 'scipy', 'matplotlib', 'sympy', 'onnx')
    assert [name for name in edge if name.partition('-')[0] in large] == []


def test_what_all_have_more():
    assert {'torch', 'torchvision', 'typer', 'rich', 'matplotlib', 'onnx'} <= beyond_an_edge()
    assert not {'numpy', 'cv2', 'PIL', 'yaml', 'rosbags'} & beyond_an_edge()


@pytest.mark.parametrize('ros', [False, True], ids=['library', 'node'])
def test_the_edge_imports_what_is_locked_alone(ros):
    if ros:
        pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')
    modules = (*MODULES, 'msfc_edge.main', 'msfc_edge.edge_node') if ros else MODULES
    code = f'import locked_imports\nlocked_imports.leave_an_edge()\nimport {", ".join(modules)}'
    path = os.pathsep.join([str(ROOT / 'tests'), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'PYTHONPATH': path}, capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr


# -- setup.sh --


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (('--edge', 'tflite'), "'tflite' is no runtime of edge bundles: choose openvino or onnx"),
        (('--edge', '--detectron2'), '--edge and --detectron2 exclude each other'),
        (('--robot',), "unknown argument '--robot'"),
    ],
)
def test_arguments_that_do_not_go(arguments, words):
    done = subprocess.run(['bash', SETUP, *arguments], capture_output=True, text=True)
    assert done.returncode == 1
    assert words in done.stderr
    assert '[--detectron2 [SOURCE] | --edge [RUNTIME]]' in done.stderr


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ((), '3 GB left, and .venv needs 8 GB'),
        (('--edge',), '0 GB left, and .venv-edge needs 1 GB'),
    ],
    ids=['all', 'edge'],
)
def test_a_full_disk_is_told_before_anything_is_installed(tmp_path, arguments, words):
    for folder in ('scripts', 'requirements'):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    free = int(words.split()[0]) * 1024**2 + 700_000
    (tmp_path / 'df').write_text(f'#!/bin/sh\necho heading\necho /dev/disk 99 9 {free} 9% /\n')
    (tmp_path / 'df').chmod(0o755)
    done = subprocess.run(
        ['bash', tmp_path / 'scripts' / 'setup.sh', *arguments],
        env={**os.environ, 'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'},
        capture_output=True, text=True,
    )
    assert done.returncode == 1
    assert words in done.stderr
    assert 'Make room' in done.stderr
    assert not (tmp_path / f'.venv{"-edge" if arguments else ""}' / 'bin').exists()


# -- env.sh --


@pytest.fixture
def sourced(tmp_path):
    """Return a function that makes environments and tells which one env.sh takes."""
    (tmp_path / 'scripts').mkdir()
    shutil.copy(ROOT / 'scripts' / 'env.sh', tmp_path / 'scripts')

    def run(*made, **variables):
        for name in ('.venv', '.venv-edge'):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
        for suffix in made:
            (tmp_path / f'.venv{suffix}' / 'bin').mkdir(parents=True)
            (tmp_path / f'.venv{suffix}' / 'bin' / 'python').symlink_to(sys.executable)
            install = tmp_path / f'install{suffix}'
            install.mkdir(exist_ok=True)
            (install / 'local_setup.bash').write_text(f'echo "packages: install{suffix}"\n')
        command = f'source {tmp_path}/scripts/env.sh && echo "libraries: $VIRTUAL_ENV"'
        done = subprocess.run(
            ['bash', '-uc', command],
            env={'PATH': os.environ['PATH'], **variables}, capture_output=True, text=True,
        )
        return done.returncode, (done.stdout + done.stderr).replace(f'{tmp_path}/', '')

    return run


def test_the_environment_that_is_there_is_taken(sourced):
    whole = (0, 'packages: install\nlibraries: .venv\n')
    edge = (0, 'packages: install-edge\nlibraries: .venv-edge\n')
    assert sourced('') == whole
    assert sourced('-edge') == edge
    assert sourced('', '-edge') == whole
    assert sourced('', '-edge', MSFC_EDGE='1') == edge
    assert sourced() == (1, 'There is no .venv yet: run  bash scripts/setup.sh\n')
    missing = 'There is no .venv-edge yet: run  bash scripts/setup.sh --edge\n'
    assert sourced('', MSFC_EDGE='1') == (1, missing)

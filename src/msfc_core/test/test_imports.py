"""The library stands without ROS 2: no module of it imports any of its packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msfc

ROS_MODULES = (
    'rclpy', 'msfc_ros', 'msfc_edge', 'msfc_cloud', 'msfc_sim', 'msfc_demo', 'msfc_msgs',
    'sensor_msgs', 'std_msgs', 'vision_msgs', 'diagnostic_msgs', 'lifecycle_msgs',
    'ament_index_python', 'cv_bridge', 'launch', 'launch_ros',
)

DYNAMIC_IMPORTS = {'__import__', 'import_module'}
MAY_IMPORT_DYNAMICALLY = {
    'detectron2_config.py',  # Detectron2's own classes, by name
    'programs.py',  # what its caller names
}

OPTIONAL_MODULES = (
    'detectron2', 'fvcore', 'mujoco', 'onnx', 'onnxruntime', 'openvino', 'pyarrow', 'ray',
    'starlette',
)  # fmt: skip

SCRIPT = """
import importlib, importlib.abc, pkgutil, sys

blocked, optional = (set(names.split(',')) for names in sys.argv[1:])

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in blocked:
            raise ModuleNotFoundError(f'blocked: {name}', name='ros')

sys.meta_path.insert(0, Blocker())
import msfc
failed = {}
count = 0
for module in pkgutil.walk_packages(msfc.__path__, 'msfc.'):
    try:
        importlib.import_module(module.name)
        count += 1
    except ModuleNotFoundError as error:
        if (error.name or '').partition('.')[0] not in optional:
            failed[module.name] = str(error)
print(failed or 'none failed')
sys.exit(bool(failed) or count < 60)
"""


def test_every_module_imports_without_ros() -> None:
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT, ','.join(ROS_MODULES), ','.join(OPTIONAL_MODULES)],
        capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the names of all modules that a file imports, inside its functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ''
        elif isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in DYNAMIC_IMPORTS:
                yield name


def test_no_function_imports_ros_or_what_is_not_written_out() -> None:
    files = list(Path(msfc.__file__).parent.rglob('*.py'))
    assert len(files) > 60
    for path in files:
        names = {name.partition('.')[0] for name in imported(ast.parse(path.read_text()))}
        if path.name in MAY_IMPORT_DYNAMICALLY:
            names -= DYNAMIC_IMPORTS
        assert not names & {*ROS_MODULES, *DYNAMIC_IMPORTS}, path

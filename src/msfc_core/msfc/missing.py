"""What to install where a Python module is missing, in one sentence.

This module imports nothing that could be missing itself.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PIP = {
    'PIL': 'pillow',
    'cv2': 'opencv-python-headless',
    'lightning_fabric': 'lightning-fabric',
    'rerun': 'rerun-sdk',
    'yaml': 'pyyaml',
}
"""Names of packages on PyPI that are not those of their modules."""

ROS = ('ament_index_python', 'builtin_interfaces', 'rcl_interfaces', 'rclpy')
"""Modules of ROS 2, beside messages."""


def missing_in_words(error: ModuleNotFoundError) -> str:
    """Return what to do about a module that is not there.

    Args:
        error: what an import raised.

    Returns:
        A sentence; empty if it is no matter of installing, but a fault of ours.
    """
    module, _, inside = (error.name or '').partition('.')
    ours = module == 'msfc' or module.startswith('msfc_')
    if not module or (ours and inside and importlib.util.find_spec(module)):
        return ''
    if ours:
        return (
            f'{module} is not in the sourced workspace: run scripts/setup.sh and source '
            'scripts/env.sh, or run  colcon build --packages-up-to msfc  and source '
            'install/setup.bash'
        )
    if module in ROS or module.endswith('_msgs'):
        return (
            f'{module} of ROS 2 is not here: source scripts/env.sh, or source '
            '/opt/ros/jazzy/setup.bash before your workspace'
        )
    if module == 'rosbags' and inside.startswith('image'):
        module = 'rosbags-image'
    return (
        f'the Python module {error.name} is not installed: run scripts/setup.sh and source '
        f'scripts/env.sh, or run  {sys.executable} -m pip install {PIP.get(module, module)}'
    )


@contextmanager
def missing_modules_told() -> Iterator[None]:
    """End the program with one sentence and status 1 where a module is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        sentence = missing_in_words(error)
        if not sentence:
            raise
        sys.exit(f'error: {sentence}')

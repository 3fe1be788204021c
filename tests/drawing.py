"""The fixture ``drawing``, for tests that render with MuJoCo."""

from __future__ import annotations

import os

import pytest

NEEDS_DRAWING = pytest.mark.skipif(
    'MUJOCO_GL' not in os.environ,
    reason='MuJoCo cannot draw without a screen here: setup.sh found neither EGL nor OSMesa',
)


@pytest.fixture(scope='session')
def drawing() -> None:
    """Ask for MuJoCo's renderer; where setup.sh found a way to draw, it must work."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that draw where MuJoCo cannot."""
    for item in items:
        if 'drawing' in getattr(item, 'fixturenames', ()):
            item.add_marker(NEEDS_DRAWING)

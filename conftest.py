"""Plugins of all tests: fixtures with ROS 2, suites that must not skip, pytest in a folder."""

from contextlib import suppress

# Before pytest makes a module of the folder launch, for the tests in there.
with suppress(ImportError):
    import launch.actions  # noqa: F401

pytest_plugins = ['drawing', 'ros_fixtures', 'suites', 'pytester']

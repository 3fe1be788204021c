"""Makes fixtures of tests/ known to all packages' tests."""

from contextlib import suppress

# Before pytest makes a module of the folder launch, for the tests in there.
with suppress(ImportError):
    import launch.actions  # noqa: F401

pytest_plugins = ['drawing', 'ros_fixtures']

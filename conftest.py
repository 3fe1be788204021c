"""Makes the fixtures of tests/ros_fixtures.py known to all packages' tests."""

pytest_plugins = ['ros_fixtures']

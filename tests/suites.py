"""Suites that need something of the machine, and how to insist on them.

Where it is not there they skip and say why. The variable ``MSFC_REQUIRE`` names suites, with
commas in between, that must not: a skip in them is a failure then, and so is a suite of which no
test ran.
"""

import os
from collections import Counter
from fnmatch import fnmatch

import pytest

PATTERNS = {
    'dds': ['tests/test_pair.py::*'],
    'faults': [
        'tests/test_faults.py::*', 'tests/test_link_loop.py::*',
        'tests/test_demo.py::test_link_between_namespaces*',
    ],
    'netem': ['tests/test_faults.py::test_slow_link*'],
    'h264': ['*/test_image_codecs.py::*[[]H.264*'],
    'h265': ['*/test_image_codecs.py::*[[]H.265*'],
    'workspace': ['tests/test_workspace.py::*'],
    'ray': ['tests/test_ray.py::*', 'tests/test_ray_bags.py::*'],
    'launch': ['tests/test_launch.py::*', 'launch/test/test_arguments.py::*'],
}
"""Tests of each suite, the last that fits; ``simulator`` has those that draw."""


def suite_of(item):
    """Return the suite that a test is in, or None."""
    if 'drawing' in getattr(item, 'fixturenames', ()):
        return 'simulator'
    found = [
        suite
        for suite, patterns in PATTERNS.items()
        if any(fnmatch(item.nodeid, pattern) for pattern in patterns)
    ]
    return found[-1] if found else None


class Required:
    """Fails what was to run and did not.

    Args:
        suites: names of the suites.
    """

    def __init__(self, suites):
        self._ran = Counter(dict.fromkeys(suites, 0))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item, call):
        """Turn a skip into a failure."""
        outcome = yield
        report, suite = outcome.get_result(), suite_of(item)
        if suite not in self._ran:
            return
        if report.skipped and not hasattr(report, 'wasxfail'):
            reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else 'skipped'
            report.outcome = 'failed'
            report.longrepr = f'MSFC_REQUIRE asks for {suite}, and this did not run: {reason}'
        elif report.when == 'call':
            self._ran[suite] += 1

    def _missing(self):
        return [suite for suite, count in self._ran.items() if not count]

    def pytest_sessionfinish(self, session):
        """Fail the run if a suite has not run at all."""
        if self._missing() and not session.config.option.collectonly:
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        """Say which suites have not run."""
        if self._missing() and not terminalreporter.config.option.collectonly:
            terminalreporter.section('required suites', red=True)
            for suite in self._missing():
                terminalreporter.line(f'MSFC_REQUIRE asks for {suite}, and none of its tests ran')


def pytest_configure(config):
    """Take up what is required."""
    asked = [name.strip() for name in os.environ.get('MSFC_REQUIRE', '').split(',')]
    asked = [name for name in asked if name]
    known = [*PATTERNS, 'simulator']
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise pytest.UsageError(
            f'MSFC_REQUIRE: no suite {", ".join(unknown)}; known are {", ".join(known)}'
        )
    if asked:
        config.pluginmanager.register(Required(asked))

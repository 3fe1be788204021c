"""Insisting on suites with ``MSFC_REQUIRE``."""

import pytest

TESTS = """
import pytest

@pytest.mark.skip(reason='no link here')
def test_slow_link():
    pass

{other}
"""
SKIPS = "@pytest.mark.skip(reason='no nft here')\ndef test_loss():\n    pass\n"
PASSES = 'def test_loss():\n    pass\n'
FAILS_TO_IMPORT = "pytest.importorskip('no_such_module', reason='no ROS here')\n"
DRAWS = "@pytest.mark.usefixtures('drawing')\ndef test_drawing():\n    pass\n"


@pytest.fixture
def outcome(pytester, monkeypatch):
    """Return a function that runs pytest in a folder of its own; it returns status and output."""

    def run(other, require):
        pytester.mkdir('tests').joinpath('test_faults.py').write_text(TESTS.format(other=other))
        monkeypatch.setenv('MSFC_REQUIRE', require)
        options = ['-p', 'no:launch_testing', '-p', 'no:launch_ros', '-p', 'no:launch_pytest']
        found = pytester.runpytest_inprocess('-p', 'drawing', '-p', 'suites', *options, 'tests')
        return found.ret, found.stdout.str() + found.stderr.str()

    return run


def test_a_skip_is_none_where_nothing_is_required(outcome):
    status, output = outcome(SKIPS, '')
    assert status == 0
    assert '2 skipped' in output


def test_a_skip_in_a_required_suite_fails(outcome):
    status, output = outcome(SKIPS, 'faults')
    assert status == 1
    assert 'MSFC_REQUIRE asks for faults, and this did not run' in output
    assert 'no nft here' in output
    assert '1 skipped, 1 error' in output


def test_a_suite_that_ran_is_enough_and_others_may_skip(outcome):
    status, output = outcome(PASSES, 'faults')
    assert status == 0
    assert '1 passed, 1 skipped' in output


def test_a_suite_of_which_nothing_ran_fails(outcome):
    status, output = outcome(PASSES, 'faults, dds')
    assert status == 1
    assert 'MSFC_REQUIRE asks for dds, and none of its tests ran' in output
    assert 'asks for faults' not in output


def test_a_file_that_skips_as_a_whole_fails(outcome):
    status, output = outcome(FAILS_TO_IMPORT, 'faults')
    assert status != 0
    assert 'MSFC_REQUIRE asks for faults, and none of its tests ran' in output


def test_drawing_is_required_where_nothing_can_draw(outcome, monkeypatch):
    monkeypatch.setattr('drawing.NEEDS_DRAWING', pytest.mark.skip(reason='no EGL here'))
    status, output = outcome(DRAWS, 'simulator')
    assert status == 1
    assert 'MSFC_REQUIRE asks for simulator, and this did not run' in output
    assert 'no EGL here' in output


def test_an_unknown_suite_is_told(outcome):
    status, output = outcome(PASSES, 'fault')
    assert status == pytest.ExitCode.USAGE_ERROR
    assert 'MSFC_REQUIRE: no suite fault; known are dds, faults' in output

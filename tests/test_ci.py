"""What continuous integration does before the tests."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parent.parent / '.ci' / 'run'

PROGRAMS = {
    # The package that the file "missing" names is not there.
    'dpkg-query': 'grep -qx "${!#}" "$HERE/missing" || printf "install ok installed"',
    'apt-get': 'echo "apt-get $*" >>"$HERE/calls"; [ ! -e "$HERE/offline" ] || ! echo "E: no"',
}


@pytest.fixture
def ci(tmp_path):
    """Return a function that runs the script in a folder of its own, with pretended programs."""
    (tmp_path / '.ci').mkdir()
    shutil.copy(RUN, tmp_path / '.ci')
    (tmp_path / 'scripts').mkdir()
    (tmp_path / 'scripts' / 'test.sh').write_text('echo "tests with $MSFC_REQUIRE"\n')
    (tmp_path / 'bin').mkdir()
    for name, text in PROGRAMS.items():
        program = tmp_path / 'bin' / name
        program.write_text(f'#!/bin/bash\n{text}\n')
        program.chmod(0o755)
    (tmp_path / 'calls').touch()

    def run(missing='', **environment):
        (tmp_path / 'missing').write_text(missing)
        done = subprocess.run(
            [tmp_path / '.ci' / 'run'],
            env={
                'PATH': f'{tmp_path / "bin"}{os.pathsep}{os.environ["PATH"]}',
                'HERE': str(tmp_path),
                **environment,
            },
            capture_output=True,
            text=True,
        )
        return done, (tmp_path / 'calls').read_text()

    return run


def test_nothing_is_installed_where_all_is_there(ci):
    done, calls = ci()
    assert done.returncode == 0
    assert calls == ''
    assert done.stdout == 'tests with dds,faults,h264,h265,simulator\n'


@pytest.mark.skipif(os.geteuid() != 0, reason='only root installs packages')
def test_what_is_missing_is_installed(ci):
    done, calls = ci('nftables\n')
    assert done.returncode == 0
    update, install = calls.splitlines()
    assert update == 'apt-get update -qq'
    assert install.startswith('apt-get install -y')
    assert install.endswith('--no-install-recommends nftables')
    assert done.stdout.startswith('[ci] installing nftables\ntests with ')


@pytest.mark.skipif(os.geteuid() != 0, reason='only root installs packages')
def test_an_install_that_fails_is_told(ci, tmp_path):
    (tmp_path / 'offline').touch()
    done, _ = ci('nftables\n')
    assert done.returncode == 1
    assert 'E: no' in done.stderr
    assert 'apt-get failed; its whole output is in log/ci-apt.log' in done.stderr
    assert 'tests' not in done.stdout


def test_the_required_suites_can_be_chosen(ci):
    done, _ = ci(MSFC_REQUIRE='')
    assert done.stdout == 'tests with \n'

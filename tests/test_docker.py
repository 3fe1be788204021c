"""The images' files, which no test can build."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / 'docker'


@pytest.mark.skipif(shutil.which('hadolint') is None, reason='hadolint is not installed')
@pytest.mark.parametrize('half', ['edge', 'cloud'])
def test_dockerfiles_pass_the_linter(half):
    done = subprocess.run(
        ['hadolint', DOCKER / f'{half}.Dockerfile'], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize('half', ['edge', 'cloud'])
def test_what_is_copied_is_there_and_no_one_is_root(half):
    lines = (DOCKER / f'{half}.Dockerfile').read_text().splitlines()
    copied = [line.split() for line in lines if line.startswith('COPY')]
    for _, *words, _ in copied:
        for source in (word for word in words if not word.startswith('--')):
            assert (ROOT / source).exists()
    assert 'USER $UID' in lines


def test_compose_file_is_of_these_files():
    compose = yaml.safe_load((DOCKER / 'compose.yaml').read_text())
    assert set(compose['services']) == {'edge', 'cloud'}
    for name, service in compose['services'].items():
        assert service['profiles'] == [name]
        assert (DOCKER / service['build']['context'] / service['build']['dockerfile']).is_file()
        assert service['network_mode'] == service['ipc'] == 'host'
        assert service['environment']['ROS_STATIC_PEERS'] == '${MSFC_PEER:-}'
        launch_file = service['command'][service['command'].index('msfc') + 1]
        assert (ROOT / 'launch' / launch_file).is_file()
        given = [argument.partition(':=')[0] for argument in service['command'][4:]]
        text = (ROOT / 'launch/msfc_launch/arguments.py').read_text()
        assert all(f"'{argument}':" in text for argument in given)

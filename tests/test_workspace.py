"""A workspace of a user's own: the repository under ``src``, plain ``colcon build``.

It takes a minute or two and builds nothing that the other tests use, so it runs where it is asked
for: ``MSFC_REQUIRE=workspace bash scripts/test.sh tests/test_workspace.py``.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PATHS = ('AMENT_PREFIX_PATH', 'CMAKE_PREFIX_PATH', 'PYTHONPATH', 'LD_LIBRARY_PATH', 'PATH')
PACKAGES = {'msfc', *(path.parent.name for path in (ROOT / 'src').glob('*/package.xml'))}

pytestmark = [
    pytest.mark.skipif(
        'workspace' not in os.environ.get('MSFC_REQUIRE', '').split(','),
        reason='takes minutes: MSFC_REQUIRE=workspace runs it',
    ),
    pytest.mark.timeout(1200),
]


def environment():
    """Return this environment without the workspace that the tests run in."""
    kept = dict(os.environ)
    built = str(Path(kept.get('COLCON_PREFIX_PATH', '') or ROOT / 'install'))
    ours = (built, str(ROOT / 'src'), str(ROOT / 'launch'))
    for name in PATHS:
        paths = kept.get(name, '').split(os.pathsep)
        kept[name] = os.pathsep.join(path for path in paths if not path.startswith(ours))
    kept.pop('COLCON_PREFIX_PATH', None)
    # colcon's own choice would wait while the machine is busy.
    kept['MAKEFLAGS'] = f'-j{os.cpu_count()}'
    if shutil.which('make') is None:
        kept['CMAKE_GENERATOR'] = 'Ninja'
    return kept


def run(workspace, *command):
    done = subprocess.run(
        command, cwd=workspace, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def workspace(tmp_path_factory):
    """Return a workspace that was built with the repository's files in it."""
    folder = tmp_path_factory.mktemp('ws')
    listed = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split('\0')):
        if (ROOT / name).is_file():
            (folder / 'src/repository' / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / 'src/repository' / name)
    run(folder, sys.executable, '-m', 'colcon', 'build', '--executor', 'sequential')
    return folder


def test_all_packages_are_built(workspace):
    built = {path.name for path in (workspace / 'install').iterdir() if path.is_dir()}
    assert built == PACKAGES
    for package, program in [
        ('msfc_edge', 'edge_node'),
        ('msfc_cloud', 'cloud_node'),
        ('msfc_sim', 'clip_player'),
    ]:
        assert os.access(workspace / 'install' / package / 'lib' / package / program, os.X_OK)
    assert (workspace / 'install/msfc/share/msfc/launch/edge.launch.py').is_file()


def test_a_sourced_workspace_works(workspace):
    source = 'source install/setup.bash && '
    where = run(workspace, 'bash', '-c', source + 'python -c "import msfc; print(msfc.__file__)"')
    assert str(workspace) in where
    assert 'fingerprint' in run(workspace, 'bash', '-c', source + 'msfc info tabletop_msfc')
    nodes = (
        'import msfc_edge.edge_node, msfc_cloud.cloud_node, msfc_msgs; print(msfc_msgs.__file__)'
    )
    assert str(workspace) in run(workspace, 'bash', '-c', f'{source} python -c "{nodes}"')

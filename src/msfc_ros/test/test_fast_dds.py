import os
import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_ros import fast_dds
from msfc_ros.fast_dds import (
    IMAGES_PROFILE,
    NODE_IMAGES_PROFILE,
    NODE_PROFILE,
    OWN_CHOICES,
    OWN_FILES,
    OWN_TRANSPORTS,
    PARTICIPANT,
    PROFILE,
    VARIABLES,
    use_profile,
)

pytestmark = pytest.mark.dds


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """Work in an empty folder, in an environment without choices of a user."""
    for name in (*OWN_CHOICES, OWN_TRANSPORTS):
        monkeypatch.setenv(name, '')  # so that it is as before when the test is over
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def choices():
    return {name: os.environ[name] for name in OWN_CHOICES if name in os.environ}


def test_profile_is_used(bare):
    use_profile()
    assert choices() == dict.fromkeys(VARIABLES, str(PROFILE))


@pytest.mark.parametrize('name', OWN_CHOICES)
def test_choice_of_a_user_stays(bare, name):
    bare.setenv(name, 'mine')
    use_profile()
    assert choices() == {name: 'mine'}


@pytest.mark.parametrize('name', OWN_FILES)
def test_file_of_a_user_stays(bare, tmp_path, name):
    (tmp_path / name).touch()
    use_profile()
    assert choices() == {}


def test_camera_has_room_for_images(bare, tmp_path):
    bare.setattr(fast_dds, 'SHARED_MEMORY', tmp_path)
    use_profile(sends_images=True)
    assert choices() == dict.fromkeys(VARIABLES, str(IMAGES_PROFILE))
    # What is started from there is no camera.
    use_profile()
    assert choices() == dict.fromkeys(VARIABLES, str(PROFILE))
    bare.setenv(OWN_TRANSPORTS, 'UDPv4')
    use_profile(sends_images=True)
    assert choices() == dict.fromkeys(VARIABLES, str(PROFILE))


def test_participant_with_a_number(bare):
    use_profile(participant=7)
    assert choices() == dict.fromkeys(VARIABLES, str(NODE_PROFILE))
    assert os.environ[PARTICIPANT] == '7'
    use_profile(sends_images=True, participant=8)
    assert choices() == dict.fromkeys(VARIABLES, str(NODE_IMAGES_PROFILE))
    assert os.environ[PARTICIPANT] == '8'
    # What is started from there takes its own.
    use_profile()
    assert choices() == dict.fromkeys(VARIABLES, str(PROFILE))


@pytest.mark.parametrize(
    ('profile', 'node_profile'), [(PROFILE, NODE_PROFILE), (IMAGES_PROFILE, NODE_IMAGES_PROFILE)]
)
def test_profiles_differ_by_the_number_alone(profile, node_profile):
    number = f'      <participantID>${{{PARTICIPANT}}}</participantID>\n'
    assert node_profile.read_text().replace(number, '') == profile.read_text()
    assert number in node_profile.read_text()


@pytest.mark.parametrize('folder', ['small', 'missing'])
def test_camera_without_room_for_images(bare, tmp_path, folder):
    if folder == 'small':
        bare.setattr(fast_dds, 'IMAGES_NEED', 1 << 60)
    else:
        bare.setattr(fast_dds, 'SHARED_MEMORY', tmp_path / 'missing')
    use_profile(sends_images=True)
    assert choices() == dict.fromkeys(VARIABLES, str(PROFILE))


@pytest.mark.parametrize(
    'profile', [PROFILE, IMAGES_PROFILE, NODE_PROFILE, NODE_IMAGES_PROFILE], ids=lambda p: p.stem
)
@pytest.mark.parametrize('text', ['as it is', 'broken'])
def test_fast_dds_reads_the_profile(bare, tmp_path, text, profile):
    for name in VARIABLES:
        bare.setenv(name, str(profile))
    bare.setenv(PARTICIPANT, '31')
    if text == 'broken':
        broken = tmp_path / 'broken.xml'
        broken.write_text(profile.read_text().replace('leaseAnnouncement', 'leaseAnnounced'))
        for name in VARIABLES:
            bare.setenv(name, str(broken))
    result = subprocess.run(
        [
            sys.executable,
            '-c',
            # Its log is written by a thread, and lost if the process ends at once.
            'import rclpy, time; rclpy.init(); node = rclpy.create_node("n"); time.sleep(2); '
            'node.destroy_node()',
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ('XMLPARSER' in result.stdout + result.stderr) == (text == 'broken')
    assert result.returncode == 0, result.stderr

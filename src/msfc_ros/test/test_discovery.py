import os
import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_ros.discovery import OWN_CHOICES, OWN_FILES, PROFILE, VARIABLES, announce_often


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """Work in an empty folder, in an environment without choices of a user."""
    for name in OWN_CHOICES:
        monkeypatch.setenv(name, '')  # so that it is as before when the test is over
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def choices():
    return {name: os.environ[name] for name in OWN_CHOICES if name in os.environ}


def test_profile_is_used(bare):
    announce_often()
    assert choices() == dict.fromkeys(VARIABLES, str(PROFILE))


@pytest.mark.parametrize('name', OWN_CHOICES)
def test_choice_of_a_user_stays(bare, name):
    bare.setenv(name, 'mine')
    announce_often()
    assert choices() == {name: 'mine'}


@pytest.mark.parametrize('name', OWN_FILES)
def test_file_of_a_user_stays(bare, tmp_path, name):
    (tmp_path / name).touch()
    announce_often()
    assert choices() == {}


@pytest.mark.parametrize('text', ['as it is', 'broken'])
def test_fast_dds_reads_the_profile(bare, tmp_path, text):
    if text == 'broken':
        profile = tmp_path / 'broken.xml'
        profile.write_text(PROFILE.read_text().replace('leaseAnnouncement', 'leaseAnnounced'))
        for name in VARIABLES:
            bare.setenv(name, str(profile))
    result = subprocess.run(
        [
            sys.executable,
            '-c',
            # Its log is written by a thread, and lost if the process ends at once.
            'import rclpy, time; from msfc_ros.discovery import announce_often; announce_often(); '
            'rclpy.init(); node = rclpy.create_node("n"); time.sleep(2); node.destroy_node()',
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ('XMLPARSER' in result.stdout + result.stderr) == (text == 'broken')
    assert result.returncode == 0, result.stderr

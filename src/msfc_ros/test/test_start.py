import os

import pytest

from msfc_ros.start import SPIN_COUNT, WAITING, wait_briefly


@pytest.fixture
def bare(monkeypatch):
    """Work in an environment without choices of a user."""
    for name in WAITING:
        monkeypatch.setenv(name, '')  # so that it is as before when the test is over
        monkeypatch.delenv(name)
    return monkeypatch


def test_threads_wait_briefly(bare):
    wait_briefly()
    assert os.environ['GOMP_SPINCOUNT'] == str(SPIN_COUNT)
    assert 'OMP_WAIT_POLICY' not in os.environ


@pytest.mark.parametrize('name', WAITING)
def test_choice_of_a_user_stays(bare, name):
    bare.setenv(name, 'active')
    wait_briefly()
    assert {key: os.environ[key] for key in WAITING if key in os.environ} == {name: 'active'}

"""The arithmetic of ``benchmarks/soak.py``, and that it reads a process's memory."""

import importlib.util
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

MIB = 2**20


@pytest.fixture(scope='module')
def soak():
    path = Path(__file__).parent.parent / 'benchmarks' / 'soak.py'
    spec = importlib.util.spec_from_file_location('soak', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def samples(growth, noise=0.0):
    """Return samples of a process that has 100 MiB and grows, in MiB per 10,000 frames."""
    rng = np.random.default_rng(0)
    return [
        {'frames': n, 'rss': MIB * (100 + growth * n / 10_000 + noise * rng.normal())}
        for n in range(2000, 20_000, 100)
    ]


@pytest.mark.parametrize('growth', [-1.0, 0.0, 2.5])
def test_line(soak, growth):
    fit = soak.fit_growth(samples(growth), 'rss')
    assert fit['bytes_per_10000_frames'] == pytest.approx(growth * MIB, abs=1)
    assert fit['offset_bytes'] == pytest.approx(100 * MIB)
    assert fit['standard_error'] == pytest.approx(0, abs=1)


def test_growth_beyond_a_limit_is_told_from_noise(soak):
    for growth, told in ((0.0, []), (3.0, ['RSS memory of the edge grows'])):
        fit = soak.fit_growth(samples(growth, noise=0.5), 'rss')
        assert 0 < fit['standard_error'] < 0.2 * MIB
        assert soak.grows({'growth': {'edge': {'rss': fit}}}, limit=1.0) == told


def test_too_short_a_run(soak):
    with pytest.raises(ValueError, match='run for longer'):
        soak.fit_growth(samples(0.0)[:2], 'rss')


def test_memory_of_a_process(soak):
    before = soak.read_memory(os.getpid())
    # Mapped anew: an array might take what this process has freed but not given back.
    with mmap.mmap(-1, 50 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as kept:
        kept[:] = bytes([1]) * len(kept)
        after = soak.read_memory(os.getpid())
    for name in ('rss', 'pss', 'anonymous'):
        assert after[name] - before[name] > 45 * MIB
    assert before['pss'] <= before['rss']
    assert after['threads'] >= 1
    assert after['files'] >= 3

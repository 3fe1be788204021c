"""The arithmetic of the benchmarks, and that a day of features is counted from real bytes."""

import argparse
import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

BENCHMARKS = Path(__file__).resolve().parents[1] / 'benchmarks'


def load(name):
    """Import a benchmark, which is no package's."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_ratios_are_of_medians():
    pipeline = load('pipeline')
    samples = pipeline.Samples()
    values = {
        'unsplit': (100, 90, 400), 'pair': (104, 110, 103), 'in one process': (102, 102, 102),
        'pair backbone': (50, 50, 90), 'pair encode': (1, 1, 9), 'pair pack': (0.5, 0.5, 0.5),
        'in one process unpack': (1, 1, 1), 'in one process decode': (2, 2, 2),
        'echo empty': (1, 1, 1), 'echo feature': (1.5, 1.5, 9), 'echo jpeg': (2, 2, 2),
        'echo raw': (4.5, 4.5, 4.5), 'feature bytes': (1000, 1000, 1000),
        'raw bytes': (100_000,) * 3, 'jpeg bytes': (10_000,) * 3,
    }  # fmt: skip
    for name, row in values.items():
        for value in row:
            samples.add(name, value)
    found = pipeline.ratios(samples)
    assert found['pair / unsplit'] == pytest.approx(1.04)
    assert found['pair from its camera image on / unsplit'] == pytest.approx(1.0)
    assert found['edge codec / backbone'] == pytest.approx(0.03)
    assert found['cloud codec / unsplit'] == pytest.approx(0.03)
    assert found['feature serialised, sent, deserialised, ms'] == pytest.approx(1.0)
    assert found['feature bytes / raw bytes'] == pytest.approx(0.01)
    assert samples.summary('unsplit')['minimum'] == 90


def test_what_a_model_is_sure_of_is_counted():
    faults = load('camera_faults')
    count = faults.Count()
    count.add(torch.tensor([0.9, 0.5, 0.4]), 3)
    count.add(torch.tensor([]), 0)
    count.add(torch.tensor([0.2]), 1)
    assert count == faults.Count(
        images=3, visible=4, with_instances=1, instances=2, highest=pytest.approx(0.9)
    )
    assert list(faults.spread(range(200), 20)) == list(range(0, 200, 10))
    assert list(faults.spread(range(3), 20)) == [0, 1, 2]


def test_choosing_is_compared_with_writing_once():
    choice = load('rate_choice')
    costs = choice.Costs([0.2, 0.4], [0.1, 0.2], [2, 3], 1)
    found = {'skipped': 1, 'writes': 2.5, 'choosing / writing': pytest.approx(2.0)}
    assert costs.summary() == found
    assert choice.Costs(skipped=4).summary() == {'skipped': 4}


def test_summary_of_several_cameras():
    cameras = load('cameras')
    counts = [
        cameras.CameraCount(sent=100, answered=40, latencies=[10.0, 20.0]),
        cameras.CameraCount(sent=100, answered=50, disordered=1, foreign=2, latencies=[30.0]),
    ]
    found = cameras.summarise(counts, 10.0, 8)
    assert found['cameras'] == 2
    assert found['offered_hz'] == 20
    assert found['answered_hz'] == 9
    assert (found['least_hz'], found['most_hz']) == (4, 5)
    assert found['latency_ms'] == {'p50': 20, 'p95': 29}
    assert (found['disordered'], found['foreign_headers']) == (1, 2)
    assert cameras.summarise([cameras.CameraCount()], 1.0, 1)['latency_ms']['p50'] is None


def test_summary_of_a_load():
    overload = load('overload')
    player = argparse.Namespace(latencies=[10.0, 20.0, 30.0, 80.0], answered=5)
    found = overload.summarise('2 x', 8.0, player, 2.0)
    assert found['answered_hz'] == 2.5
    assert found['latency_ms']['p50'] == 25
    assert found['latency_ms']['max'] == 80
    assert found['p50_first_half_ms'] == 20
    assert found['p50_second_half_ms'] == 55
    assert found['frames'] == 4


def test_space_of_a_day(model_directory, monkeypatch):
    bag_space = load('bag_space')
    frames = bag_space.read_frames(bag_space.CLIP)[:4]
    assert frames[0].dtype == np.uint8
    monkeypatch.setattr(bag_space, 'read_frames', lambda path: frames)
    options = argparse.Namespace(
        model=str(model_directory), clip=bag_space.CLIP, rate=5.0, crf=[30], jpeg=[50]
    )
    spaces = {s.name: s for s in bag_space.measure(options, Console(quiet=True))}
    raw, features = spaces['raw images'], spaces['features']
    assert raw.frame_bytes == frames[0].nbytes
    assert raw.day_bytes == raw.frame_bytes * 5 * 86400
    assert features.minutes == pytest.approx(24 * 60)
    assert raw.minutes == pytest.approx(24 * 60 * features.frame_bytes / raw.frame_bytes)
    assert features.frame_bytes < spaces['JPEG, quality 50'].frame_bytes < raw.frame_bytes
    if shutil.which('ffmpeg'):
        assert 0 < spaces['H.264 video, CRF 30'].frame_bytes < raw.frame_bytes

"""``msfc bag infer --engine ray`` on a real Ray cluster: the same bytes as without."""

import os
from dataclasses import replace

import pytest

pytest.importorskip('ray', reason="needs Ray: pip install 'ray[data]'")
pytest.importorskip('pyarrow', reason="needs what Ray Data needs: pip install 'ray[data]'")

import ray
import torch
from rosbags.rosbag2 import Reader
from typer.testing import CliRunner

from bag_files import feature_bytes, packets, write_features
from msfc.bags.inference import infer_bag
from msfc.cli.main import app
from msfc.model_file import load_model
from msfc.wire.packet import DecodeLimits

THRESHOLD = 0.05

pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures('ray_here')]


@pytest.fixture
def ray_here(monkeypatch):
    """Let Ray start where the machine is busy, and end with the test."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, value in {
        'RAY_AUTH_MODE': 'disabled',
        'RAY_enable_metrics_collection': '0',
        'RAY_enable_worker_prestart': '0',
        'RAY_agent_register_timeout_ms': '600000',
        'RAY_worker_register_timeout_seconds': '600',
        'OMP_NUM_THREADS': '1',
    }.items():
        monkeypatch.setenv(name, value)
    yield
    ray.shutdown()
    torch.set_num_threads(threads)


def messages(path):
    with Reader(path) as reader:
        return [(c.topic, time, bytes(data)) for c, time, data in reader.messages()]


def run(*arguments):
    result = CliRunner().invoke(app, ['bag', 'infer', *(str(argument) for argument in arguments)])
    return result.exit_code, result.output


def test_bags_on_ray_are_those_of_one_process(model_directory, tmp_path, monkeypatch):
    """Two bags, of one of which not all can be decoded; broken off, and gone on with."""
    model = load_model(model_directory)
    sent = packets(model, 5)
    good = [feature_bytes(packet, index) for index, packet in enumerate(sent)]
    short = feature_bytes(replace(sent[2], data=bytes(sent[2].data)[:-1]), 2)
    bags = [
        write_features(tmp_path / 'plain', good),
        write_features(tmp_path / 'mixed', [good[0], short, good[1]]),
    ]
    for bag in bags:
        infer_bag(bag, tmp_path / 'alone' / bag.name, model, score_threshold=THRESHOLD)
    options = (
        '--model', model_directory, '--score-threshold', THRESHOLD, '--engine', 'ray',
        '--workers', 2, '--ray-address', os.environ.get('MSFC_RAY', ''),
    )
    with monkeypatch.context() as patch:
        patch.setattr('msfc.cli.bag.Bar.__call__', broken_off_at(4))
        status, output = run(*bags, tmp_path / 'out', *options)
    assert status == 130, output
    status, output = run(*bags, tmp_path / 'out', *options)
    assert status == 0, output
    assert f'{bags[0]}: 5 messages decoded' in output
    # One of the four was refused when it was read.
    assert f'{bags[0]}: 3 of them were done by a run before' in output
    assert 'Dataset' not in output
    assert f'{bags[1]}: 1 refused (bad_payload_length)' in output
    for bag in bags:
        assert messages(tmp_path / 'out' / bag.name) == messages(tmp_path / 'alone' / bag.name)
    assert not (tmp_path / 'out.partial').exists()


def broken_off_at(number):
    def stop(bar, done, total):
        if done == number:
            raise KeyboardInterrupt

    return stop


def test_another_model_on_the_machines(model_directory):
    """Workers refuse to begin: each of their messages would be refused."""
    from msfc.bags.on_ray import _Worker

    with pytest.raises(ValueError, match='put the same model on every machine'):
        _Worker(str(model_directory), 'cpu', '0' * 16, DecodeLimits(), THRESHOLD)

"""Training in two processes (DDP, gloo) is training in one with the whole batch."""

from __future__ import annotations

import pytest
import torch

from msfc.training.experiment import load_experiment
from msfc.training.trainer import build_model
from ranks import train_in_processes
from tiny_data import CLASS_NAMES, write_data, write_experiment

ITERATIONS = 4


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def runs(data, tmp_path_factory):
    """Runs in one process and in two, of a detector whose losses know no random choice."""
    folder = tmp_path_factory.mktemp('tiny')
    step = {'name': 'one', 'trains': 'detector', 'iterations': ITERATIONS, 'batch_size': 4}
    plan = write_experiment(folder / 'plan.yaml', steps=[step], val_images=0)
    return [
        train_in_processes(count, plan, data, folder / f'of_{count}', tiny=True)
        for count in (1, 2)
    ]


def test_losses_are_those_of_the_whole_batch(runs):
    (alone,), both = runs
    assert len(alone.losses) == ITERATIONS
    assert both[0].losses != both[1].losses
    means = [(one + other) / 2 for one, other in zip(*(r.losses for r in both), strict=True)]
    assert means == pytest.approx(alone.losses, rel=1e-5)


def test_weights_are_those_of_the_whole_batch(runs):
    (alone,), both = runs
    trained = [name for name in alone.weights if name.startswith('detector.')]
    assert trained
    for name in trained:
        torch.testing.assert_close(
            both[0].weights[name], alone.weights[name], rtol=1e-4, atol=1e-6
        )
        assert torch.equal(both[0].weights[name], both[1].weights[name])


def test_both_processes_end_three_steps_of_mask_rcnn_with_equal_weights(data, tmp_path):
    plan = write_experiment(tmp_path / 'plan.yaml', val_images=0)
    one, other = train_in_processes(2, plan, data, tmp_path / 'both')
    start = dict(build_model(load_experiment(plan), CLASS_NAMES).named_parameters())
    assert one.weights.keys() == other.weights.keys() == start.keys()
    assert [k for k, v in one.weights.items() if not torch.equal(v, other.weights[k])] == []
    changed = [k for k, v in one.weights.items() if not torch.equal(v, start[k])]
    assert len(changed) > 0.95 * len(start)
    # Each has its own images.
    assert one.losses != other.losses

"""The training loop on a tiny data set: steps, freezing, resuming, several processes."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch.utils.data import ConcatDataset

from msfc.data import CocoDataset
from msfc.model import SplitModel
from msfc.model_file import describe_model, load_model, save_model
from msfc.training.augmentation import Augmentation
from msfc.training.batches import TrainingBatches
from msfc.training.checkpoint import read_progress
from msfc.training.experiment import Experiment, Step, load_experiment
from msfc.training.interrupt import deferred_interrupt
from msfc.training.log import append_log, plot_curves, read_log, rewind_log
from msfc.training.trainer import (
    Trainer,
    TrainingObjective,
    build_model,
    feature_distance,
    learning_rate,
    make_optimizer,
    prepare,
)
from tiny_data import CLASS_NAMES, SPLITS, experiment_values, write_data, write_experiment

HERE = Path(__file__).parent
STEPS = ('detector', 'msfc', 'joint')

# Trains with a checkpoint after each iteration, and hangs where it is told to.
SCRIPT = """
import sys, time
from pathlib import Path
import torch
from lightning_fabric import Fabric
from msfc.training.experiment import load_experiment
from msfc.training.trainer import Trainer

def hang(step, done, total, losses):
    while (step, done) == ('joint', 3):
        time.sleep(1)

if __name__ == '__main__':
    torch.set_num_threads(1)
    experiment, data, output = map(Path, sys.argv[1:])
    fabric = Fabric(accelerator='cpu', devices=1)
    Trainer(load_experiment(experiment), data, output, fabric, 1, 0.0, hang, log_every=1).run()
"""


pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def plan(tmp_path_factory):
    path = tmp_path_factory.mktemp('plan') / 'tiny.yaml'
    return write_experiment(path, augment={'faults': 0.3, 'colour': 0.2, 'zoom': 1.2})


def train(plan, data, output, **options):
    """Run an experiment in this process."""
    experiment = plan if isinstance(plan, Experiment) else load_experiment(plan)
    fabric = Fabric(accelerator='cpu', devices=1, precision=experiment.precision)
    options = {'workers': 0, 'log_every': 1, **options}
    trainer = Trainer(experiment, data, output, fabric, **options)
    return trainer, trainer.run()


@pytest.fixture(scope='module')
def finished(plan, data, tmp_path_factory):
    """The folder of an uninterrupted run, and the figures that it reported."""
    output, reports = tmp_path_factory.mktemp('finished'), {}
    train(plan, data, output, report=reports.__setitem__)
    return output, reports


@pytest.fixture(scope='module')
def interrupted(plan, data, tmp_path_factory):
    """The folder of a run that Ctrl-C stopped after the first iteration of the second step."""
    output = tmp_path_factory.mktemp('interrupted')

    def press(step, done, total, losses):
        if step == 'msfc':
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(plan, data, output, progress=press)
    return output


def weights(folder):
    return load_file(folder / 'model.safetensors')


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def snapshot(folder):
    """Return size and time of change of every file."""
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob('*'))
    }


def snapshot_of_results(folder):
    """Return the same but for what is only noted of pictures."""
    return {
        path: state for path, state in snapshot(folder).items()
        if path.name != '.journal.jsonl' and path != folder
    }


class TestSteps:
    def test_all_iterations_are_logged_with_finite_losses(self, finished):
        log = read_log(finished[0] / 'log.jsonl')
        counts = zip(STEPS, (2, 2, 3), strict=True)
        expected = [(step, k) for step, count in counts for k in range(count)]
        assert [(entry['step'], entry['iteration']) for entry in log] == expected
        for entry in log:
            values = {key: value for key, value in entry.items() if key != 'step'}
            assert all(np.isfinite(value) for value in values.values())
            losses = [value for key, value in values.items() if key.startswith('loss_')]
            assert entry['loss'] == pytest.approx(sum(losses), rel=1e-5)
            assert ('loss_features' in entry) == (entry['step'] == 'msfc')

    def test_the_first_step_leaves_the_codec_as_it_was(self, finished, plan):
        start = build_model(load_experiment(plan), CLASS_NAMES).state_dict()
        after = weights(finished[0] / 'detector')
        changed = {name for name in start if not torch.equal(start[name], after[name])}
        assert changed
        assert all(name.startswith('detector.') for name in changed)
        assert any('running_mean' in name for name in changed)

    def test_the_second_step_leaves_the_detector_bit_for_bit(self, finished):
        before, after = (weights(finished[0] / step) for step in ('detector', 'msfc'))
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert all(name.startswith('codec.') for name in changed)
        for module in ('analysis.msff', 'analysis.encoder', 'synthesis.decoder', 'synthesis.msfr'):
            assert any(name.startswith(f'codec.{module}.') for name in changed)
        assert 'codec.analysis.encoder.norm.running_mean' in changed

    def test_the_third_step_trains_everything(self, finished):
        before, after = (weights(finished[0] / step) for step in ('msfc', 'joint'))
        same = {name for name in before if torch.equal(before[name], after[name])}
        assert len(same) < len(before) / 20

    def test_each_step_is_measured_on_the_validation_split(self, finished):
        output, reports = finished
        assert list(reports) == list(STEPS)
        for step, variant in zip(STEPS, ('uncompressed', 'n=4', 'n=4'), strict=True):
            (row,) = json.loads((output / step / 'figures.json').read_text())
            assert row == reports[step][0].to_dict()
            assert row['variant'] == variant
            assert row['images'] == 2
            assert (row['payload_bytes'] > 0) == (variant != 'uncompressed')

    def test_models_curves_and_no_checkpoint_are_left(self, finished):
        output, _ = finished
        curves = cv2.imread(str(output / 'curves.png'))
        assert curves.shape[0] == 480
        assert curves.shape[1] == 3 * 600
        names = {path.name for path in output.iterdir()}
        assert names == {*STEPS, 'curves.png', 'log.jsonl', '.journal.jsonl'}
        for step in STEPS:
            assert load_model(output / step).class_names == CLASS_NAMES
            assert describe_model(output / step)['extra']['step'] == step

    def test_mixed_precision_trains_too(self, data, tmp_path):
        values = experiment_values(precision='bf16-mixed', val_images=1)
        values['steps'] = [{**values['steps'][2], 'iterations': 1}]
        path = tmp_path / 'plan.yaml'
        path.write_text(yaml.safe_dump(values))
        _, model = train(path, data, tmp_path / 'out')
        assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
        assert all(p.dtype == torch.float32 for p in model.parameters())


class TestResume:
    def test_a_killed_run_ends_as_an_uninterrupted_one(
        self, interrupted, finished, plan, data, tmp_path
    ):
        output = tmp_path / 'killed'
        shutil.copytree(interrupted, output)
        checkpoint, log = output / 'checkpoint.safetensors', output / 'log.jsonl'
        process = subprocess.Popen(
            [sys.executable, '-c', SCRIPT, str(plan), str(data), str(output)],
            env={**os.environ, 'OMP_NUM_THREADS': '1'}, start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline:
                last = read_log(log)[-1:]
                if last and (last[0]['step'], last[0]['iteration']) == ('joint', 2):
                    break
                time.sleep(0.05)
            assert process.poll() is None
        finally:
            # Not the process that reads data for it: it lives on for seconds.
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        progress = read_progress(checkpoint)
        assert progress['step'] == 'joint'
        assert progress['iteration'] == 2
        # As a kill in the midst of writing leaves it.
        with log.open('a') as file:
            file.write('{"step": "joint", "iterat')
        train(plan, data, output)
        assert read_log(log) == read_log(finished[0] / 'log.jsonl')
        assert len(log.read_text().splitlines()) == len(read_log(log))
        for step in STEPS:
            assert_same(weights(output / step), weights(finished[0] / step))
        assert not checkpoint.exists()

    def test_ctrl_c_writes_a_checkpoint_that_goes_on(
        self, interrupted, finished, plan, data, tmp_path
    ):
        output = tmp_path / 'copy'
        shutil.copytree(interrupted, output)
        progress = read_progress(output / 'checkpoint.safetensors')
        assert (progress['step'], progress['iteration']) == ('msfc', 1)
        train(plan, data, output)
        assert read_log(output / 'log.jsonl') == read_log(finished[0] / 'log.jsonl')
        assert_same(weights(output / 'joint'), weights(finished[0] / 'joint'))

    def test_a_finished_run_started_again_does_nothing(self, finished, plan, data):
        before, calls = snapshot(finished[0]), []
        _, model = train(
            plan, data, finished[0],
            progress=lambda *_: calls.append('progress'), report=lambda *_: calls.append('report'),
        )
        assert calls == []
        assert snapshot(finished[0]) == before
        assert not model.training
        assert_same(model.state_dict(), weights(finished[0] / 'joint'))

    def test_a_checkpoint_of_other_settings_is_refused(self, interrupted, data):
        before = snapshot(interrupted)
        values = experiment_values(seed=4)
        experiment = Experiment(
            **{**values, 'steps': tuple(Step(**step) for step in values['steps'])}
        )
        with pytest.raises(ValueError, match='other settings'):
            train(experiment, data, interrupted)
        longer = [dataclasses.replace(step, iterations=9) for step in experiment.steps]
        other = dataclasses.replace(experiment, seed=3, steps=tuple(longer))
        with pytest.raises(ValueError, match='other settings'):
            train(other, data, interrupted)
        with pytest.raises(ValueError, match='in step msfc, which this experiment does not'):
            train(dataclasses.replace(other, steps=other.steps[:1]), data, interrupted)
        assert snapshot(interrupted) == before

    def test_later_steps_and_what_is_only_measured_may_change(self, plan):
        one = load_experiment(plan)
        later = dataclasses.replace(one.steps[2], iterations=50)
        other = dataclasses.replace(one, steps=(*one.steps[:2], later), val_images=1)
        for step in one.steps[:2]:
            assert one.settings_digest(step) == other.settings_digest(step)
        assert one.settings_digest(one.steps[2]) != other.settings_digest(later)

    def test_a_checkpoint_that_does_not_say_its_settings_is_taken(
        self, interrupted, finished, plan, data, tmp_path
    ):
        from safetensors import safe_open
        from safetensors.torch import save_file

        output = tmp_path / 'copy'
        shutil.copytree(interrupted, output)
        path = output / 'checkpoint.safetensors'
        with safe_open(path, framework='pt') as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        progress = json.dumps({'step': 'msfc', 'iteration': 1})
        save_file(tensors, path, metadata={'progress': progress})
        one = load_experiment(plan)
        two = dataclasses.replace(one, steps=one.steps[:2])
        train(two, data, output)
        assert_same(weights(output / 'msfc'), weights(finished[0] / 'msfc'))

    def test_other_pictures_are_refused(self, interrupted, finished, plan, data, tmp_path):
        other = tmp_path / 'data'
        shutil.copytree(data, other)
        image = cv2.imread(str(other / 'train' / '002.png'))
        cv2.imwrite(str(other / 'train' / '002.png'), 255 - image)
        for output in (interrupted, finished[0]):
            before = snapshot_of_results(output)
            with pytest.raises(ValueError, match='was trained on other data'):
                train(plan, other, output)
            assert snapshot_of_results(output) == before

    def test_other_validation_pictures_are_measured_anew(self, finished, plan, data, tmp_path):
        output, other, reports = tmp_path / 'out', tmp_path / 'data', []
        shutil.copytree(finished[0], output)
        shutil.copytree(data, other)
        for path in (other / 'val').iterdir():
            cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
        train(plan, other, output, report=lambda step, _: reports.append(step))
        train(plan, other, output, report=lambda step, _: reports.append(step))
        assert reports == list(STEPS)
        assert_same(weights(output / 'joint'), weights(finished[0] / 'joint'))

    def test_data_that_moved_are_the_same(self, finished, plan, data, tmp_path):
        output, other = tmp_path / 'out', tmp_path / 'data'
        shutil.copytree(finished[0], output)
        shutil.copytree(data, other)
        calls = []
        train(plan, other, output, report=lambda *_: calls.append('report'))
        assert calls == []

    def test_what_is_only_measured_may_change(self, finished, plan, data, tmp_path):
        output, reports = tmp_path / 'out', []
        shutil.copytree(finished[0], output)
        one = load_experiment(plan)
        other = dataclasses.replace(
            one, val_images=1, detector={**one.detector, 'max_detections': 2}
        )
        train(other, data, output, report=lambda step, _: reports.append(step))
        assert reports == list(STEPS)
        assert_same(weights(output / 'joint'), weights(finished[0] / 'joint'))
        trained = dataclasses.replace(one, detector={**one.detector, 'rpn_batch': 8})
        with pytest.raises(ValueError, match='other settings'):
            train(trained, data, output)

    def test_a_second_run_at_once_is_refused(self, finished, plan, data):
        output = finished[0]
        folder = os.open(output, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            with pytest.raises(ValueError, match='in use by another run'):
                train(plan, data, output)
        finally:
            os.close(folder)

    def test_a_damaged_checkpoint_is_refused(self, plan, data, tmp_path):
        (tmp_path / 'checkpoint.safetensors').write_bytes(b'\x10' * 100)
        with pytest.raises(ValueError, match='not a readable checkpoint'):
            train(plan, data, tmp_path)

    def test_a_step_folder_of_another_architecture_is_refused(self, plan, data, tmp_path):
        one = load_experiment(plan)
        other = dataclasses.replace(one, codec={**one.codec, 'code_channels': 2})
        save_model(build_model(other, CLASS_NAMES), tmp_path / 'detector')
        with pytest.raises(ValueError, match='another architecture'):
            train(one, data, tmp_path)

    def test_training_can_start_from_a_model(self, finished, data, tmp_path):
        values = experiment_values(start_from=str(finished[0] / 'msfc'), val_images=0)
        del values['detector'], values['codec']
        values['steps'] = [{**values['steps'][1], 'iterations': 1}]
        path = tmp_path / 'plan.yaml'
        path.write_text(yaml.safe_dump(values))
        train(path, data, tmp_path / 'out')
        before, after = weights(finished[0] / 'msfc'), weights(tmp_path / 'out' / 'msfc')
        for name, tensor in before.items():
            assert name.startswith('codec.') or torch.equal(tensor, after[name])
        assert not (tmp_path / 'out' / 'msfc' / 'figures.json').exists()

    def test_training_can_start_from_a_model_of_other_classes(self, finished, data, tmp_path):
        other = tmp_path / 'data'
        shutil.copytree(data, other)
        for path in (other / 'annotations').iterdir():
            content = json.loads(path.read_text())
            content['categories'] += [{'id': 9, 'name': 'pen'}]
            path.write_text(json.dumps(content))
        values = experiment_values(start_from=str(finished[0] / 'joint'), val_images=1)
        del values['detector'], values['codec']
        values['steps'] = [{**values['steps'][2], 'iterations': 1}]
        path = tmp_path / 'plan.yaml'
        path.write_text(yaml.safe_dump(values))
        trainer, model = train(path, other, tmp_path / 'out')
        assert model.class_names == (*CLASS_NAMES, 'pen')
        (note,) = trainer.notes
        assert 'knows the classes cup, ball; the data set has cup, ball, pen' in note
        assert 'box_predictor, model.roi_heads.mask_predictor.mask_fcn_logits) begin anew' in note
        assert load_model(tmp_path / 'out' / 'joint').class_names == model.class_names
        values['steps'] = [{**values['steps'][0], 'trains': 'codec'}]
        path.write_text(yaml.safe_dump(values))
        with pytest.raises(ValueError, match='the first step must train them'):
            train(path, other, tmp_path / 'two')


    def start(self, finished, **settings):
        values = {'start_from': str(finished[0] / 'joint'), 'detector': settings}
        experiment = Experiment(**values, steps=(Step('s', 'all', 1),))
        return build_model(experiment, CLASS_NAMES)

    def test_settings_beside_start_from_change_the_detector_but_no_weight(self, finished):
        model = self.start(finished, min_size=96, max_size=128)
        before = load_model(finished[0] / 'joint')
        assert_same(before.state_dict(), model.state_dict())
        config = model.detector.config()
        assert (config.pop('min_size'), config.pop('max_size')) == (96, 128)
        assert config.items() <= before.detector.config().items()
        batch = model.detector.preprocess([torch.zeros(3, 80, 104, dtype=torch.uint8)])
        assert batch.sizes.valid == ((96, 124),)

    def test_settings_beside_start_from_that_do_not_fit_are_refused(self, finished):
        with pytest.raises(ValueError, match=r'start_from do not fit .*box_head_channels'):
            self.start(finished, box_head_channels=8)
        with pytest.raises(ValueError, match=r"unknown settings \['size'\]"):
            self.start(finished, size=8)
        with pytest.raises(ValueError, match='give either detector or start_from'):
            self.start(finished, type='torchvision')


class TestProcesses:
    def test_two_processes_train_together(self, interrupted, finished, plan, data, tmp_path):
        # They take up a finished step and a checkpoint, and run a step from its start.
        output = tmp_path / 'out'
        shutil.copytree(interrupted, output)
        run = subprocess.run(
            [
                sys.executable, '-m', 'torch.distributed.run', '--standalone',
                '--nproc_per_node', '2', '-m', 'msfc.cli.main', 'train', str(plan),
                '--data', str(data), '--output', str(output), '--accelerator', 'cpu',
                '--workers', '0', '--checkpoint-every', '0',
            ],
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240,
        )
        assert run.returncode == 0, run.stdout
        log = read_log(output / 'log.jsonl')
        assert [(entry['step'], entry['iteration']) for entry in log] == [
            ('detector', 0), ('detector', 1), ('msfc', 0), ('msfc', 1), ('joint', 0), ('joint', 2)
        ]
        assert all(np.isfinite(entry['loss']) for entry in log)
        assert run.stdout.count('models and curves') == 1
        before, after = weights(finished[0] / 'detector'), weights(output / 'msfc')
        for name, tensor in before.items():
            assert name.startswith('codec.') or torch.equal(tensor, after[name])
        assert json.loads((output / 'joint' / 'figures.json').read_text())[0]['images'] == 2
        names = {path.name for path in output.iterdir()}
        assert names == {*STEPS, 'curves.png', 'log.jsonl', '.journal.jsonl'}


class TestBatches:
    def ids(self, data, iterations, batch_size=3, step='one', rank=0, world_size=1, seed=1):
        dataset = CocoDataset(data, 'train', only_with_objects=True)
        batches = TrainingBatches(dataset, batch_size, seed, step, rank, world_size)
        return [[example.image_id for example in batches[k].examples] for k in iterations]

    def test_every_image_comes_once_per_epoch(self, data):
        count = SPLITS['train'] - 1
        flat = list(chain(*self.ids(data, range(4), batch_size=count // 2)))
        assert len(set(flat[:count])) == len(set(flat[count:])) == count
        assert flat[:count] != flat[count:]

    def test_epochs_may_end_within_a_batch(self, data):
        count = SPLITS['train'] - 1
        flat = list(chain(*self.ids(data, range(3), batch_size=4)))
        assert len(set(flat[:count])) == len(set(flat[count:])) == count

    def test_batches_follow_from_seed_step_and_iteration_alone(self, data):
        assert self.ids(data, range(6))[4:] == self.ids(data, (4, 5))
        assert self.ids(data, range(6)) != self.ids(data, range(6), step='two')
        assert self.ids(data, range(6)) != self.ids(data, range(6), seed=2)

    def test_processes_share_a_batch_without_overlap(self, data):
        whole = self.ids(data, range(3), batch_size=4)
        shares = [self.ids(data, range(3), 4, rank=rank, world_size=2) for rank in (0, 1)]
        for batch, one, other in zip(whole, *shares, strict=True):
            assert len(one) == len(other) == 2
            assert sorted(one + other) == sorted(batch)

    def test_images_are_mirrored_at_random(self, data):
        dataset = CocoDataset(data, 'train', only_with_objects=True)
        batches = TrainingBatches(dataset, len(dataset), 1, 'one')
        plain = {dataset[k].image_id: dataset[k].image for k in range(len(dataset))}
        mirrored = [
            not torch.equal(example.image, plain[example.image_id])
            for k in range(4) for example in batches[k].examples
        ]
        assert 4 < sum(mirrored) < 20

    def test_images_of_several_sets_are_mixed_and_changed(self, data):
        sets = [CocoDataset(data, 'train', only_with_objects=True), CocoDataset(data, 'val')]
        count = sum(map(len, sets))

        def first(**options):
            batches = TrainingBatches(ConcatDataset(sets), count, 1, 'one', **options)
            return batches[0].examples

        plain, changed = first(), first(augmentation=Augmentation(faults=1.0))
        assert [one.image_id for one in plain] == [one.image_id for one in changed]
        assert not any(
            torch.equal(one.image, other.image) for one, other in zip(plain, changed, strict=True)
        )
        again = first(augmentation=Augmentation(faults=1.0))
        assert all(
            torch.equal(one.image, other.image) for one, other in zip(again, changed, strict=True)
        )

    def test_batches_that_cannot_be_shared_are_refused(self, data):
        with pytest.raises(ValueError, match='2 processes cannot share batches of 3'):
            self.ids(data, (0,), batch_size=3, world_size=2)


class TestSchedule:
    def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine(self):
        step = Step('s', 'all', 200, learning_rate=1.0, warmup=0.1)
        rates = np.array([learning_rate(step, k) for k in range(200)])
        assert rates.max() == pytest.approx(1.0)
        assert rates.argmax() == 20
        assert np.allclose(np.diff(rates[:20]), 1 / 21)
        assert (np.diff(rates[20:]) < 0).all()
        assert rates[110] == pytest.approx(0.5)
        assert 0 < rates[-1] < 1e-3
        assert rates[0] > 0

    @pytest.mark.parametrize(('iterations', 'warmup'), [(1, 0.0), (1, 0.9), (2, 0.5), (5, 0.0)])
    def test_short_steps_have_sensible_rates(self, iterations, warmup):
        step = Step('s', 'all', iterations, learning_rate=0.3, warmup=warmup)
        assert all(0 < learning_rate(step, k) <= 0.3 for k in range(iterations))


class TestParts:
    def test_frozen_layers_use_and_keep_their_statistics(self, plan):
        model = build_model(load_experiment(plan), CLASS_NAMES)
        prepare(model, Step('s', 'codec', 1))
        norms = [m for m in model.detector.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert norms
        assert not any(norm.training for norm in norms)
        assert model.get_submodule('codec.analysis.encoder.norm').training
        assert not any(p.requires_grad for p in model.detector.parameters())
        assert all(p.requires_grad for p in model.codec.parameters())
        prepare(model, Step('s', 'all', 1))
        assert all(norm.training for norm in norms)
        assert all(p.requires_grad for p in model.parameters())
        prepare(model, Step('s', 'all', 1, freeze_norms=True))
        assert not any(norm.training for norm in norms)
        assert not model.get_submodule('codec.analysis.encoder.norm').training
        assert all(p.requires_grad for p in model.parameters())

    def test_named_parameters_stay_as_they_are(self, plan):
        model = build_model(load_experiment(plan), CLASS_NAMES)
        stage = 'detector.model.backbone.body.layer1'
        prepare(model, Step('s', 'all', 1, freeze=[stage]))
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad != name.startswith(stage)
        with pytest.raises(ValueError, match="step s: freeze: no parameter begins with 'body'"):
            prepare(model, Step('s', 'all', 1, freeze=['body']))

    def test_feature_distance_is_relative_to_the_variance_of_a_level(self):
        goal = {'p2': torch.randn(2, 3, 8, 8), 'p3': 10 * torch.randn(2, 3, 4, 4)}
        means = {level: torch.full_like(x, float(x.mean())) for level, x in goal.items()}
        assert float(feature_distance(goal, goal)) == 0
        assert float(feature_distance(means, goal)) == pytest.approx(1.0, abs=0.03)

    def endless(self, plan, data, output, iterations, when, steps=(), **options):
        """Train with losses that are not finite in some iterations; returns the trainer."""
        experiment = dataclasses.replace(
            load_experiment(plan), val_images=0,
            steps=(*steps, Step('s', 'all', iterations, batch_size=2)),
        )
        fabric = Fabric(accelerator='cpu', devices=1)
        trainer = Trainer(experiment, data, output, fabric, workers=0, log_every=1, **options)
        losses, calls = trainer.model.detector.losses, []

        def spoilt(*arguments):
            calls.append(1)
            found = losses(*arguments)
            return {k: v * torch.nan for k, v in found.items()} if when(len(calls)) else found

        trainer.model.detector.losses = spoilt
        return trainer

    def test_iterations_with_endless_losses_are_counted_and_told(self, plan, data, tmp_path):
        trainer = self.endless(plan, data, tmp_path, 4, lambda call: call in (2, 3))
        trainer.run()
        log = read_log(tmp_path / 'log.jsonl')
        assert [entry.get('skipped', 0) for entry in log] == [0, 1, 2, 2]
        (note,) = trainer.notes
        assert note.startswith('step s: 2 of 4 iterations changed no weights')
        assert describe_model(tmp_path / 's')['extra']['notes'] == [note]

    def test_an_iteration_with_endless_losses_changes_no_weight(self, plan, data, tmp_path):
        trainer = self.endless(plan, data, tmp_path, 1, lambda call: True)
        before = {k: v.clone() for k, v in trainer.model.named_parameters()}
        with pytest.raises(ValueError, match=r'1 of 1 iterations.*nothing was trained'):
            trainer.run()
        assert_same(before, dict(trainer.model.named_parameters()))
        assert not (tmp_path / 's').exists()

    def test_the_count_survives_a_break(self, plan, data, tmp_path):
        def press(step, done, total, losses):
            if done == 2:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            self.endless(plan, data, tmp_path, 3, lambda call: call == 1, progress=press).run()
        assert read_progress(tmp_path / 'checkpoint.safetensors')['skipped'] == 1
        trainer = self.endless(plan, data, tmp_path, 3, lambda call: False)
        trainer.run()
        assert trainer.notes[0].startswith('step s: 1 of 3')

    @pytest.mark.parametrize('kind', ['weights', 'statistics', 'optimiser'])
    def test_what_is_not_finite_is_never_saved(self, plan, data, tmp_path, kind):
        def spoil(step, done, total, losses):
            if done != 2:
                return
            with torch.no_grad():
                norm = trainer.model.codec.analysis.encoder.norm
                if kind == 'optimiser':
                    norm.weight.grad = None
                    for group in optimizers[0].param_groups:
                        for parameter in group['params']:
                            optimizers[0].state[parameter]['exp_avg'] *= torch.inf
                else:
                    (norm.weight if kind == 'weights' else norm.running_mean)[0] = torch.nan

        optimizers = []
        trainer = self.endless(
            plan, data, tmp_path, 4, lambda call: False, progress=spoil, checkpoint_every=0.0
        )
        setup = trainer.fabric.setup

        def remember(objective, optimizer):
            optimizers.append(optimizer)
            return setup(objective, optimizer)

        trainer.fabric.setup = remember
        with pytest.raises(ValueError, match=r'is not finite.*last good.*learning_rate') as told:
            trainer.run()
        assert 'step s, iteration' in str(told.value)
        path = tmp_path / 'checkpoint.safetensors'
        assert read_progress(path)['iteration'] == 1
        kept = load_file(path)
        assert all(tensor.isfinite().all() for tensor in kept.values())
        assert not (tmp_path / 's').exists()

    def test_losses_are_weighted(self, plan, data):
        model = build_model(load_experiment(plan), CLASS_NAMES)
        batch = TrainingBatches(CocoDataset(data, 'train', only_with_objects=True), 2, 0, 's')[0]

        def losses(**changes):
            step = Step('s', 'all', 1, **changes)
            prepare(model, step)
            torch.manual_seed(0)
            return TrainingObjective(model, step)(batch)

        plain, weighted = losses(), losses(loss_weights={'loss_mask': 2.0})
        for name, loss in plain.items():
            factor = 2 if name == 'loss_mask' else 1
            assert weighted[name].item() == pytest.approx(factor * loss.item(), rel=1e-4)
        with pytest.raises(ValueError, match=r"no losses \['loss_masks'\] to weight; there are"):
            losses(loss_weights={'loss_masks': 2.0})

    def test_optimisers(self, plan):
        model = build_model(load_experiment(plan), CLASS_NAMES)
        step = Step('s', 'codec', 1, optimizer='sgd', momentum=0.8, weight_decay=0.1)
        prepare(model, step)
        optimizer = make_optimizer(model, step)
        assert isinstance(optimizer, torch.optim.SGD)
        (group,) = optimizer.param_groups
        assert (group['momentum'], group['weight_decay']) == (0.8, 0.1)
        assert len(group['params']) == len(list(model.codec.parameters()))
        assert isinstance(make_optimizer(model, Step('s', 'all', 1)), torch.optim.AdamW)

    def test_new_keys_leave_digests_of_older_runs_valid(self, plan):
        experiment = load_experiment(plan)
        plain = experiment.steps[0].settings()
        assert not {'loss_weights', 'optimizer', 'momentum'} & set(plain)
        step = dataclasses.replace(experiment.steps[0], loss_weights={'loss_mask': 2.0})
        other = dataclasses.replace(experiment, steps=(step,))
        assert other.settings_digest(step) != experiment.settings_digest(experiment.steps[0])

    def test_other_classes_are_refused(self, plan):
        experiment = load_experiment(plan)
        named = {**experiment.detector, 'class_names': ['fork']}
        with pytest.raises(ValueError, match='fork; the data set has cup, ball'):
            build_model(dataclasses.replace(experiment, detector=named), CLASS_NAMES)

    def test_a_missing_validation_split_is_told_before_training(self, plan, data, tmp_path):
        experiment = dataclasses.replace(load_experiment(plan), val_split='none')
        with pytest.raises(FileNotFoundError, match='instances_none'):
            train(experiment, data, tmp_path)

    def test_models_without_codec_can_be_started_from(self, plan, tmp_path):
        experiment = load_experiment(plan)
        start = build_model(experiment, CLASS_NAMES)
        save_model(SplitModel(start.detector), tmp_path / 'model', half=False)
        model = build_model(
            dataclasses.replace(experiment, detector={}, start_from=str(tmp_path / 'model')),
            CLASS_NAMES,
        )
        assert model.codec.code_channels == 4
        assert_same(model.detector.state_dict(), start.detector.state_dict())


class TestInterrupt:
    def test_one_signal_is_a_request_and_a_later_one_interrupts(self, monkeypatch):
        before = signal.getsignal(signal.SIGINT)
        now = [100.0]
        monkeypatch.setattr('msfc.training.interrupt.time.monotonic', lambda: now[0])
        with deferred_interrupt() as requested:
            assert not requested.is_set()
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            assert requested.is_set()
            now[0] += 5
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is before

    def test_other_threads_leave_signals_alone(self):
        before, seen = signal.getsignal(signal.SIGINT), []

        def work():
            with deferred_interrupt() as requested:
                seen.append((signal.getsignal(signal.SIGINT), requested.is_set()))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen == [(before, False)]


class TestLog:
    def test_rewinding_drops_what_is_done_again(self, tmp_path):
        log = tmp_path / 'log.jsonl'
        rewind_log(log, 'one', 0)
        for step in ('one', 'two'):
            for iteration in range(3):
                append_log(log, {'step': step, 'iteration': iteration, 'loss': 1.0})
        rewind_log(log, 'two', 1)
        assert [(entry['step'], entry['iteration']) for entry in read_log(log)] == [
            ('one', 0), ('one', 1), ('one', 2), ('two', 0)
        ]

    def test_an_empty_log_has_no_curves(self, tmp_path):
        plot_curves(tmp_path / 'log.jsonl', tmp_path / 'curves.png')
        assert not (tmp_path / 'curves.png').exists()

    def test_curves_of_many_entries_are_drawn(self, tmp_path):
        log = tmp_path / 'log.jsonl'
        for iteration in range(0, 800, 20):
            loss = float('nan') if iteration == 40 else 2.0
            append_log(log, {'step': 'one', 'iteration': iteration, 'loss': loss})
        plot_curves(log, tmp_path / 'curves.png')
        assert cv2.imread(str(tmp_path / 'curves.png')).std() > 0


class TestExperiment:
    def read(self, tmp_path, text):
        path = tmp_path / 'plan.yaml'
        path.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
        return load_experiment(path)

    def step(self, **changes):
        return experiment_values(
            steps=[{'name': 'one', 'trains': 'all', 'iterations': 1, **changes}]
        )

    @pytest.mark.parametrize(('name', 'first'), [
        ('tabletop_msfc', 'detector'), ('coco_r50_fpn', 'codec'),
        ('coco_tiny_overfit', 'detector'),
    ])
    def test_the_shipped_experiments_are_read(self, name, first):
        experiment = load_experiment(HERE.parents[2] / 'experiments' / f'{name}.yaml')
        names = [step.name for step in experiment.steps]
        assert experiment.steps[0].trains == first
        trains = [step.trains for step in experiment.steps]
        assert trains[names.index('msfc') :][:2] == ['codec', 'all']
        assert set(trains[names.index('joint') :]) == {'all'}

    def test_the_learned_codecs_experiment_is_read(self):
        experiment = load_experiment(HERE.parents[2] / 'experiments' / 'tabletop.yaml')
        assert experiment.start_from == 'tabletop_detector'
        (step,) = experiment.steps
        assert (step.trains, step.objective) == ('codec', 'distill')
        assert step.byte_targets == sorted(step.byte_targets)

    @pytest.mark.parametrize(('name', 'start', 'trains'), [
        ('tabletop_detector', 'runs/tabletop/detector', ['detector'] * 4),
        ('tools_bench', 'tabletop_detector', ['detector', 'codec']),
    ])
    def test_experiments_that_train_a_detector_on_are_read(self, name, start, trains):
        experiment = load_experiment(HERE.parents[2] / 'experiments' / f'{name}.yaml')
        assert experiment.start_from == start
        assert [step.trains for step in experiment.steps] == trains
        assert experiment.augment.faults > 0

    def test_weights_can_be_named_where_the_detector_has_a_file(self, tmp_path):
        values = experiment_values(detector={'type': 'detectron2', 'config_file': 'a.yaml'})
        named = self.read(tmp_path, values).with_weights('b.pkl')
        assert named.detector['weights'] == 'b.pkl'
        assert named.detector['config_file'] == 'a.yaml'
        with pytest.raises(ValueError, match='other experiments take start_from'):
            self.read(tmp_path, experiment_values()).with_weights('b.pkl')

    def test_numbers_may_be_written_without_a_dot(self, tmp_path):
        text = yaml.safe_dump(self.step())
        text = text.replace('iterations: 1', 'iterations: 1\n  learning_rate: 8e-4')
        assert self.read(tmp_path, text).steps[0].learning_rate == 8e-4
        assert self.read(tmp_path, self.step(clip_norm=5)).steps[0].clip_norm == 5.0
        weighted = self.read(tmp_path, self.step(loss_weights={'loss_mask': '5e-1'})).steps[0]
        assert weighted.loss_weights == {'loss_mask': 0.5}

    @pytest.mark.parametrize(('text', 'message'), [
        ('', 'expected keys and values'),
        ('- 1', 'expected keys and values'),
        ('a: [', 'is not YAML'),
        ('a: 1\nseed: 2', r"unknown keys \['a'\]; known are"),
        ('steps: 3', 'steps must be a list'),
        ('steps: [3]', 'step 1: expected keys and values'),
        ('detector: {type: torchvision}', 'no steps'),
        ('detector:', 'detector is None, not keys and values'),
        ('steps: [{name: a, trains: all, iterations: 1}]', 'either detector or start_from'),
    ])
    def test_foreign_files_are_refused_in_words(self, tmp_path, text, message):
        with pytest.raises(ValueError, match=rf'plan\.yaml.*{message}'):
            self.read(tmp_path, text)

    @pytest.mark.parametrize(('changes', 'message'), [
        ({'seed': 'one'}, "seed is 'one', not a whole number"),
        ({'seed': -1}, 'seed must be 0 or more'),
        ({'val_images': True}, 'val_images is True'),
        ({'precision': '16-mixed'}, "precision is '16-mixed', not one of"),
        ({'rate': 'four'}, "rate is 'four', not a whole number"),
        ({'bit_depth': 4}, 'bit_depth is now rate'),
        ({'msfc': {}}, 'msfc is now codec, such as'),
        (
            {'steps': [{'name': 'a', 'trains': 'msfc', 'iterations': 1}]},
            "step a: 'trains: msfc' is now 'trains: codec'",
        ),
        ({'start_from': 'x'}, 'either detector or start_from'),
        ({'train_split': 2017}, 'train_split is 2017, not text'),
        ({'augment': 0.5}, 'augment: expected keys and values, got 0.5'),
        ({'augment': {'rotate': 3}}, r"augment: unknown keys \['rotate'\]"),
        ({'augment': {'zoom': 'much'}}, "augment: zoom is 'much', not a number"),
        ({'augment': {'faults': 2}}, r'augment: faults must be in \[0, 1\]'),
        ({'augment': {'zoom': 0.5}}, r'augment: zoom must be in \[1, 4\]'),
    ])
    def test_impossible_settings_are_refused_in_words(self, tmp_path, changes, message):
        with pytest.raises(ValueError, match=rf'plan\.yaml.*{message}'):
            self.read(tmp_path, experiment_values(**changes))

    @pytest.mark.parametrize(('changes', 'message'), [
        ({'trains': 'head'}, "trains is 'head', not one of"),
        ({'iterations': 0}, 'iterations and batch_size must be 1 or more'),
        ({'iterations': 1.5}, 'iterations is 1.5, not a whole number'),
        ({'learning_rate': 'fast'}, "learning_rate is 'fast', not a number"),
        ({'learning_rate': 0}, 'learning_rate and clip_norm must be more than 0'),
        ({'warmup': 1.0}, 'warmup must be in'),
        ({'weight_decay': -1}, 'weight_decay and feature_weight'),
        ({'feature_weight': '.nan'}, 'not a number'),
        ({'loss_weights': {'loss_mask': -1}}, 'the weight of loss_mask must be 0 or more'),
        ({'loss_weights': {'loss_mask': 'big'}}, "loss_weights: loss_mask is 'big', not a number"),
        ({'loss_weights': 2}, 'loss_weights is 2, not keys and values'),
        ({'optimizer': 'adam'}, "optimizer is 'adam', not one of"),
        ({'momentum': 1.0}, 'momentum must be in'),
        ({'freeze_norms': 1}, 'freeze_norms is 1, not true or false'),
        ({'freeze': 'layer1'}, "freeze is 'layer1', not a list of names"),
        ({'name': '../x'}, 'cannot be the name of a folder'),
        ({'epochs': 3}, r"unknown keys \['epochs'\]"),
    ])
    def test_impossible_steps_are_refused_in_words(self, tmp_path, changes, message):
        with pytest.raises(ValueError, match=rf'plan\.yaml.*{message}'):
            self.read(tmp_path, self.step(**changes))

    def test_missing_keys_and_equal_names_are_refused_in_words(self, tmp_path):
        with pytest.raises(ValueError, match='step 1: iterations, trains missing'):
            self.read(tmp_path, experiment_values(steps=[{'name': 'a'}]))
        steps = 2 * self.step()['steps']
        with pytest.raises(ValueError, match='two steps of one name'):
            self.read(tmp_path, experiment_values(steps=steps))

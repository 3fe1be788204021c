"""Training of a learned codec by the trainer: objectives, rates, exact resume."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file

from msfc.codecs.learned import LearnedCodec
from msfc.data import CocoDataset
from msfc.model_file import load_model, save_model
from msfc.training.codec_objective import AnswerBatches, CodecTraining
from msfc.training.experiment import Experiment, Step, load_experiment
from msfc.training.teacher import ask, read_answer
from msfc.training.trainer import Trainer, learning_rate
from tiny_data import experiment_values, write_data, write_experiment

pytestmark = pytest.mark.usefixtures('one_thread')

CODEC = {
    'type': 'learned', 'code_channels': 4, 'slices': [2, 2], 'hyper_channels': 2, 'rates': 2,
    'analysis_widths': [8, 8], 'synthesis_widths': [8, 8, 8, 8],
    'synthesis_blocks': [1, 1, 1, 1], 'context_width': 8, 'hidden_width': 8, 'hyper_width': 8,
}
DISTILL = {
    'name': 'distil', 'trains': 'codec', 'objective': 'distill', 'iterations': 4,
    'batch_size': 2, 'byte_targets': [20, 40], 'average': 0.9,
}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp('data'))


def plan(tmp_path, *steps, **changes) -> Experiment:
    detector = {'name': 'detector', 'trains': 'detector', 'iterations': 1, 'batch_size': 2}
    values = {'codec': CODEC, 'steps': [detector, *steps], 'val_images': 1, **changes}
    return load_experiment(write_experiment(tmp_path / 'plan.yaml', **values))


def train(experiment, data, output, **options):
    fabric = Fabric(accelerator='cpu', devices=1)
    options = {'workers': 0, 'log_every': 1, 'checkpoint_every': 0.0, **options}
    return Trainer(experiment, data, output, fabric, **options).run()


@pytest.fixture(scope='module')
def distilled(data, tmp_path_factory):
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp('distilled')
    train(plan(folder, DISTILL), data, folder)
    return folder


def test_distillation_trains_the_codec_alone(distilled) -> None:
    before = load_file(distilled / 'detector' / 'model.safetensors')
    after = load_file(distilled / 'distil' / 'model.safetensors')
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert all(name.startswith('codec.') for name in changed)
    for part in ('analysis.down', 'entropy.hidden', 'synthesis.heads', 'analysis.statistics'):
        assert any(name.startswith(f'codec.{part}') for name in changed), part
    log = [json.loads(line) for line in (distilled / 'log.jsonl').read_text().splitlines()]
    losses = set(log[-1]) - {'step', 'iteration', 'learning_rate'}
    assert losses == {
        'loss', 'loss_features', 'loss_objectness', 'loss_anchors', 'loss_classes', 'loss_boxes',
        'loss_masks', 'loss_rate', 'loss_entropy',
    }
    figures = json.loads((distilled / 'distil' / 'figures.json').read_text())
    assert figures[0]['payload_bytes'] > 0


def test_a_trained_model_says_what_to_expect(distilled) -> None:
    model = load_model(distilled / 'distil')
    cheap, dear = (model.payload_bytes((64, 96), rate) for rate in (0, 1))
    assert 0 < cheap < 10_000
    assert 0 < dear < 10_000


def test_an_interrupted_run_ends_as_one_that_was_not(distilled, data, tmp_path) -> None:
    class StopError(Exception):
        pass

    def stop(step, done, total, losses):
        if (step, done) == ('distil', 3):
            raise StopError

    with pytest.raises(StopError):
        train(plan(tmp_path, DISTILL), data, tmp_path, progress=stop)
    train(plan(tmp_path, DISTILL), data, tmp_path)
    one = load_file(distilled / 'distil' / 'model.safetensors')
    other = load_file(tmp_path / 'distil' / 'model.safetensors')
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    assert (distilled / 'log.jsonl').read_text() == (tmp_path / 'log.jsonl').read_text()


def test_muon_trains_all_of_the_codec(distilled, data, tmp_path) -> None:
    muon = {**DISTILL, 'optimizer': 'muon', 'momentum': 0.95}
    train(plan(tmp_path, muon), data, tmp_path)
    other = load_file(distilled / 'distil' / 'model.safetensors')
    mine = load_file(tmp_path / 'distil' / 'model.safetensors')
    before = load_file(tmp_path / 'detector' / 'model.safetensors')
    for name in ('codec.analysis.down.0.weight', 'codec.synthesis.start.weight'):
        assert not torch.equal(mine[name], before[name])
        assert not torch.equal(mine[name], other[name])
    with pytest.raises(ValueError, match="'optimizer: muon' is for learned codecs"):
        Step('s', 'all', 1, optimizer='muon')


def test_answers_to_mirrored_images(distilled, data, tmp_path) -> None:
    train(plan(tmp_path, {**DISTILL, 'mirror_answers': True}), data, tmp_path)
    kept = {int(path.stem): path for path in (tmp_path / 'answers').rglob('*.safetensors')}
    assert sorted(kept) == list(range(12))  # as many again
    detector = load_model(tmp_path / 'distil').detector
    image = CocoDataset(data, 'train', only_with_objects=True)[0].image
    for index, shown in ((0, image), (6, image.flip(2))):
        (expected,) = ask(detector, [shown])
        # Batches round differently, by a step of half precision at most.
        found = read_answer(kept[index]).pyramid
        torch.testing.assert_close(found, expected.pyramid, rtol=2e-3, atol=1e-3)
    with pytest.raises(ValueError, match="mirror_answers needs 'objective: distill'"):
        Step('s', 'codec', 1, mirror_answers=True)


def test_the_detector_is_asked_once(distilled, data, tmp_path, monkeypatch) -> None:
    kept = sorted((distilled / 'answers').rglob('*.safetensors'))
    assert len(kept) == 6  # of seven images one has nothing but a crowd

    def refuse(*arguments):
        raise AssertionError('asked again')

    monkeypatch.setattr('msfc.training.teacher.ask', refuse)
    (distilled / 'distil' / 'model.json').rename(distilled / 'model.json.kept')
    try:
        train(plan(tmp_path, DISTILL), data, distilled)
    finally:
        (distilled / 'model.json.kept').unlink()


@pytest.mark.parametrize(
    'changes',
    [
        {'keep_answers': False},
        {'objective': 'task', 'average': 0.0},
        {'objective': 'task', 'trains': 'all'},
    ],
    ids=['asked each time', 'labels', 'end to end'],
)
def test_other_objectives_train_too(changes, data, tmp_path) -> None:
    step = {**DISTILL, 'iterations': 2, **changes}
    train(plan(tmp_path, step), data, tmp_path)
    before = load_file(tmp_path / 'detector' / 'model.safetensors')
    after = load_file(tmp_path / 'distil' / 'model.safetensors')
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith('codec.analysis') for name in changed)
    assert any(name.startswith('detector') for name in changed) == ('trains' in changes)
    assert not (tmp_path / 'answers').exists()
    # Statistics are of the training images all the same.
    assert after['codec.analysis.statistics.p2_mean'].any()


def test_a_codec_may_come_from_another_model(distilled, data, tmp_path) -> None:
    step = {**DISTILL, 'iterations': 1, 'learning_rate': 1e-9, 'average': 0.0}
    folder = tmp_path / 'given'
    shutil.copytree(distilled / 'distil', folder)
    start = plan(tmp_path, step, codec_from=str(folder))
    train(start, data, tmp_path)
    given = load_file(folder / 'model.safetensors')
    taken = load_file(tmp_path / 'detector' / 'model.safetensors')
    for name, tensor in given.items():
        if name.startswith('codec.'):
            assert torch.equal(taken[name], tensor), name
    # Its statistics are kept: what it was fitted to is not measured anew.
    after = load_file(tmp_path / 'distil' / 'model.safetensors')
    name = 'codec.synthesis.statistics.p2_mean'
    assert torch.equal(after[name], given[name])

    save_model(load_model(distilled / 'detector'), folder, half=False)
    with pytest.raises(ValueError, match='from another codec_from'):
        train(start, data, tmp_path)


def test_the_distance_may_come_first(data, tmp_path) -> None:
    step = {**DISTILL, 'iterations': 2, 'distill': {'distance_first': 1}}
    train(plan(tmp_path, step), data, tmp_path)
    log = [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()]
    assert 'loss_masks' not in log[-2]
    assert 'loss_masks' in log[-1]


def make_training(tmp_path, **changes) -> CodecTraining:
    from msfc.training.trainer import build_model

    experiment = plan(tmp_path, {**DISTILL, **changes})
    return CodecTraining(build_model(experiment, ('cup', 'ball')), experiment.steps[1])


def test_rates_are_spread_over_batch_and_processes(tmp_path) -> None:
    training = make_training(tmp_path)
    device = torch.device('cpu')
    for iteration in range(5):
        training.begin(iteration, seed=3)
        together = training.rates(4, device).tolist()
        assert sorted(together) == [0, 0, 1, 1]
        shares = []
        for rank in range(2):
            training.begin(iteration, 3, rank, 2)
            shares.append(training.rates(2, device).tolist())
        assert [shares[0][0], shares[1][0], shares[0][1], shares[1][1]] == together


def test_the_average_follows_and_is_taken_over(tmp_path) -> None:
    training = make_training(tmp_path, average=0.5)
    assert isinstance(training.average, LearnedCodec)
    with torch.no_grad():
        training.codec.rate_offset.fill_(1.0)
        training.codec.synthesis.statistics.get_buffer('p2_mean').fill_(7.0)
    training.begin(1000, 0)
    training.after_step()
    assert float(training.average.rate_offset.mean()) == pytest.approx(0.5)
    training.control.bits_per_cell.fill_(16.0)
    training.finish()
    assert training.codec.rate_offset.mean().item() == pytest.approx(0.5)
    # What no optimiser changes is not the average's.
    assert float(training.codec.synthesis.statistics.get_buffer('p2_mean')[0]) == 7.0
    assert training.codec.typical_bytes.tolist() == [2.0, 2.0]


def test_more_training_begins_with_the_prices_of_before(tmp_path) -> None:
    first = make_training(tmp_path)
    pyramid = {f'p{k}': torch.randn(2, 16, 256 >> k, 256 >> k) for k in range(2, 7)}
    first.begin(100, 0)
    first.rebuild(pyramid)
    first.after_step()
    cheap = first.control.log_price.clone()
    first.finish()
    again = CodecTraining(first.model, first.step)
    torch.testing.assert_close(again.control.log_price, cheap)
    # And at once with the bytes that are asked for: five times as many would be too cheap then.
    again.begin(0, 0)
    again.rebuild(pyramid)
    again.after_step()
    assert (again.control.log_price > cheap).all()


def test_entropy_losses_teach_the_entropy_model_alone_at_every_rate(tmp_path) -> None:
    training = make_training(tmp_path)
    pyramid = {f'p{k}': torch.randn(2, 16, 256 >> k, 256 >> k) for k in range(2, 7)}
    training.begin(0, 0)
    training.rebuild(pyramid)
    (loss,) = training.entropy_losses().values()
    loss.backward()
    taught = {name for name, p in training.codec.named_parameters() if p.grad is not None}
    others = {name for name in taught if not name.startswith(('entropy.', 'analysis.hyper.'))}
    assert taught
    assert not others
    # Every rate has parameters of its own, and bits.
    gradient = training.codec.entropy.hyper_scale.grad
    assert gradient is not None
    assert bool((gradient.abs().sum(1) > 0).all())
    assert not training.entropy_losses()  # they are of one iteration


def test_an_encoder_alone_leaves_the_entropy_model(tmp_path) -> None:
    training = make_training(tmp_path, trains='encoder')
    pyramid = {f'p{k}': torch.randn(2, 16, 256 >> k, 256 >> k) for k in range(2, 7)}
    training.begin(0, 0)
    training.rebuild(pyramid)
    assert not training.entropy_losses()


def test_answers_come_in_the_order_of_the_seed(distilled) -> None:
    paths = sorted((distilled / 'answers').rglob('*.safetensors'))
    batches = AnswerBatches(paths, 2, 3, 'distil')
    again = AnswerBatches(paths, 2, 3, 'distil')
    seen = []
    for iteration in range(3):
        for one, other in zip(
            batches[iteration].answers, again[iteration].answers, strict=True
        ):
            assert torch.equal(one.proposals, other.proposals)
            seen.append(float(one.proposals.sum()))
    assert len(set(seen)) == 6  # an epoch has each image once
    with pytest.raises(ValueError, match='cannot share batches'):
        AnswerBatches(paths, 3, 0, 'distil', 0, 2)


def test_the_rate_holds_its_peak() -> None:
    step = Step('s', 'codec', 100, learning_rate=1.0, warmup=0.1, hold=0.5)
    rates = [learning_rate(step, iteration) for iteration in range(100)]
    assert rates[4] < 1
    assert rates[10:61] == [1.0] * 51
    assert rates[99] < 0.01


@pytest.mark.parametrize(
    ('changes', 'fault'),
    [
        ({'objective': 'labels'}, "objective is 'labels', not one of"),
        ({'trains': 'all'}, "'objective: distill' needs 'trains: codec' or"),
        ({'byte_targets': []}, "'objective: distill' needs 'trains: codec' or"),
        ({'byte_targets': [40, 20]}, 'byte_targets must rise'),
        ({'byte_targets': [0, 20]}, 'byte_targets must be more than 0'),
        ({'byte_targets': 3}, 'byte_targets is 3, not a list of numbers'),
        ({'average': 1.0}, 'average must be in'),
        ({'hold': 0.99}, 'warmup and hold must be'),
        ({'keep_answers': 'no'}, "keep_answers is 'no', not true or false"),
        ({'distill': {'mask': 3}}, "distill: unknown distill settings .'mask'."),
        ({'distill': {'crop': 2}}, 'distill: crop is 2.0, not 0 to 1.0'),
        ({'distill': {'proposals': 1.5}}, 'distill: proposals is 1.5, not a whole number'),
        ({'trains': 'detector', 'objective': 'task'}, 'byte_targets are of a codec'),
    ],
)
def test_impossible_steps_are_refused(changes, fault: str, tmp_path) -> None:
    with pytest.raises(ValueError, match=fault):
        plan(tmp_path, {**DISTILL, **changes})


def test_what_does_not_fit_the_codec_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match='3 byte_targets for 2 rates'):
        make_training(tmp_path, byte_targets=[1, 2, 3])
    experiment = plan(tmp_path, DISTILL, codec=experiment_values()['codec'])
    from msfc.training.trainer import build_model

    with pytest.raises(ValueError, match='byte_targets are for codecs of the type learned'):
        CodecTraining(build_model(experiment, ('cup', 'ball')), experiment.steps[1])

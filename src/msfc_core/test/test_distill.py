import dataclasses
import math

import pytest
import torch

from detector_models import MODELS, make_images
from msfc.codecs.learned import LearnedCodec, LearnedConfig
from msfc.training.distill import (
    Distillation,
    DistillSettings,
    RateControl,
    foreground,
    goal_pyramid,
    parameter_groups,
    take_statistics,
)
from msfc.training.teacher import (
    MASK_SCORE,
    ask,
    detector_digest,
    read_answer,
    stack_pyramids,
    stack_sizes,
    write_answer,
)

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def detector():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = MODELS['torchvision'].make().eval().requires_grad_(False)
        # So sure of one class that there are detections.
        MODELS['torchvision'].prefer_class(detector, 2)
        detector.model.roi_heads.box_predictor.cls_score.bias.data.clamp_(max=3.0)
    return detector


@pytest.fixture(scope='module')
def answers(detector):
    return ask(detector, make_images([(120, 160), (240, 320)]))


def make_codec(answers) -> LearnedCodec:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        codec = LearnedCodec(
            LearnedConfig(
                channels=32, code_channels=8, slices=(4, 4), hyper_channels=4, rates=2,
                analysis_widths=(16, 16), synthesis_widths=(16, 16, 16, 16),
                synthesis_blocks=(1, 1, 1, 1), context_width=8, hidden_width=8, hyper_width=8,
            )
        )
    take_statistics(codec, [stack_pyramids(answers)])
    return codec


def test_answers_are_the_detectors_own(detector, answers) -> None:
    pyramid, sizes = stack_pyramids(answers), stack_sizes(answers)
    found = detector.infer(pyramid, sizes, max_instances=16)
    for answer, instances, boxes in zip(
        answers, found, detector.proposals(pyramid, sizes), strict=True
    ):
        sure = instances.above(MASK_SCORE)
        assert len(sure) > 0
        scale = answer.source[0] / answer.valid[0]
        torch.testing.assert_close(answer.boxes * scale, sure.boxes, rtol=1e-2, atol=0.5)
        torch.testing.assert_close(answer.scores, sure.scores)
        assert answer.labels.tolist() == sure.labels.tolist()
        torch.testing.assert_close(answer.proposals, boxes)
        # The scores follow from the logits of some proposal: background is the last one.
        likely = answer.logits.softmax(-1)
        best = likely[:, :-1].max()
        assert float(best) >= float(sure.scores[0]) - 1e-4
        assert answer.logits.shape == (len(boxes), 6)
        assert answer.offsets.shape == (len(boxes), 5, 4)
        assert answer.masks.shape == (len(sure), 28, 28)


def test_mask_outputs_are_those_of_the_instances(detector, answers) -> None:
    """Pasted at a half, the logits give the instances' masks."""
    (answer, _), pyramid = answers, stack_pyramids(answers)
    mask = detector.infer(pyramid, stack_sizes(answers), max_instances=16)[0].masks[0]
    x1, y1, x2, y2 = (
        answer.boxes[0] * answer.source[0] / answer.valid[0]
    ).round().int().tolist()
    seen = mask[y1:y2, x1:x2]
    resized = torch.nn.functional.interpolate(
        answer.masks[0][None, None], size=seen.shape, mode='bilinear'
    )[0, 0]
    # Random masks have edges everywhere, and the two ways of resizing differ there.
    assert float(((resized > 0) == seen).float().mean()) > 0.75


def test_answers_survive_a_file(answers, tmp_path) -> None:
    path = tmp_path / '1.safetensors'
    write_answer(answers[0], path)
    read = read_answer(path)
    for field in dataclasses.fields(read):
        before, after = getattr(answers[0], field.name), getattr(read, field.name)
        if isinstance(before, dict):
            assert before.keys() == after.keys()
            for level, values in before.items():
                torch.testing.assert_close(after[level], values, rtol=1e-3, atol=1e-3)
        elif isinstance(before, torch.Tensor):
            torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)
        else:
            assert before == after
    # The codec sees just what the heads saw.
    assert torch.equal(read.pyramid['p2'], answers[0].pyramid['p2'])
    assert [child.name for child in tmp_path.iterdir()] == ['1.safetensors']


def test_a_digest_names_weights_and_settings(detector) -> None:
    before = detector_digest(detector)
    assert detector_digest(detector) == before
    bias = detector.model.roi_heads.box_predictor.cls_score.bias
    bias.data[0] += 1
    try:
        assert detector_digest(detector) != before
    finally:
        bias.data[0] -= 1


def test_statistics_are_those_of_all_pyramids_together(answers) -> None:
    codec, pyramid = make_codec(answers), stack_pyramids(answers)
    one, other = ({level: x[k : k + 1] for level, x in pyramid.items()} for k in (0, 1))
    take_statistics(codec, iter([one, other]))
    normalised = codec.synthesis.statistics.normalise('p3', pyramid['p3'])
    torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(32), atol=1e-4, rtol=0)
    spread = normalised.square().mean((0, 2, 3)).sqrt()
    torch.testing.assert_close(spread, torch.ones(32), atol=1e-3, rtol=0)
    again = codec.analysis.statistics.normalise('p3', pyramid['p3'])
    assert torch.equal(again, normalised)


def losses_of(detector, codec, answers, rebuilt=None, **settings):
    pyramid, goal = goal_pyramid(codec, answers)
    statistics = codec.synthesis.statistics
    rebuilt = rebuilt or pyramid
    normalised = {
        level: statistics.normalise(level, rebuilt[level]) for level in codec.settings.levels
    }
    objective = Distillation(detector, DistillSettings(**settings))
    return objective(normalised, rebuilt, goal, answers, torch.Generator().manual_seed(0))


def test_the_original_pyramid_loses_nothing(detector, answers) -> None:
    losses = losses_of(detector, make_codec(answers), answers)
    assert set(losses) == {'features', 'objectness', 'anchors', 'classes', 'boxes', 'masks'}
    for name, loss in losses.items():
        assert abs(float(loss)) < 1e-3, name


def test_every_loss_grows_with_the_damage_and_pulls_at_the_pyramid(detector, answers) -> None:
    codec, pyramid = make_codec(answers), stack_pyramids(answers)
    generator = torch.Generator().manual_seed(5)
    noise = {k: torch.randn(v.shape, generator=generator) for k, v in pyramid.items()}
    last = dict.fromkeys(('features', 'objectness', 'anchors', 'classes', 'boxes', 'masks'), 0.0)
    for strength in (0.1, 0.5):
        damaged = {
            level: (features + strength * features.std() * noise[level]).requires_grad_()
            for level, features in pyramid.items()
        }
        losses = losses_of(detector, codec, answers, damaged)
        for name, loss in losses.items():
            assert loss.item() > last[name], name
            last[name] = loss.item()
            (gradient,) = torch.autograd.grad(loss, damaged['p2'], retain_graph=True)
            assert bool(gradient.any()), name


def test_weights_of_zero_leave_heads_alone(answers) -> None:
    off = dict.fromkeys(('objectness', 'anchors', 'classes', 'boxes', 'masks'), 0.0)
    losses = losses_of(None, make_codec(answers), answers, **off)
    assert set(losses) == {'features'}


def test_images_without_detections_are_learnt_from(detector, answers) -> None:
    empty = [
        dataclasses.replace(
            answer, boxes=answer.boxes[:0], scores=answer.scores[:0], labels=answer.labels[:0],
            masks=answer.masks[:0], proposals=answer.proposals[:1], logits=answer.logits[:1],
            offsets=answer.offsets[:1],
        )
        for answer in answers
    ]
    losses = losses_of(detector, make_codec(answers), empty)
    assert float(losses['masks']) == 0
    assert all(math.isfinite(float(loss)) for loss in losses.values())


def test_foreground_is_where_detections_are(answers) -> None:
    box = torch.tensor([[40.0, 24.0, 80.0, 64.0], [0.0, 0.0, 16.0, 16.0]])
    answer = dataclasses.replace(
        answers[0], boxes=box, scores=torch.tensor([0.9, 0.2]), padded=(128, 192)
    )
    (plane,) = foreground([answer], torch.Size((1, 1, 32, 48)), 0.25)[0]
    assert float(plane[10, 14]) == 1.0
    assert float(plane[4, 8]) == 1.0  # the margin
    assert float(plane[1, 1]) == 0.25  # not sure enough
    assert float(plane[25, 30]) == 0.25


def test_prices_follow_the_bytes() -> None:
    control = RateControl([100, 200], price=0.02)
    for _ in range(10):
        control.observe(torch.tensor([1600.0, 400.0]), torch.tensor([0, 1]))
    dear, cheap = control.log_price.exp().tolist()
    assert dear > 0.02 > cheap
    assert control.cost(torch.tensor([1000.0]), torch.tensor([0])) == pytest.approx(dear)
    control.observe(torch.tensor([1600.0]), torch.tensor([0]), slack=4.0)
    assert float(control.log_price.exp()[0]) < dear


def test_dear_bits_make_an_image_count_less() -> None:
    control = RateControl([100, 200], price=torch.tensor([5.0, 0.0]) + 1e-6)
    dear, cheap = control.weight(torch.tensor([0, 1])).tolist()
    assert dear == pytest.approx(1 / (1 + 5 * 0.8), rel=1e-4)
    assert cheap == pytest.approx(1, rel=1e-4)
    price = control.cost(torch.tensor([800.0]), torch.tensor([0]))
    assert float(price) * dear < 1
    half = control.weight(torch.tensor([0, 1]), balance=0.5)
    assert half.square().tolist() == pytest.approx([dear, cheap])
    assert control.weight(torch.tensor([0, 1]), balance=0.0).tolist() == [1.0, 1.0]


def test_gains_learn_faster(answers) -> None:
    codec = make_codec(answers)
    names = {id(parameter): name for name, parameter in codec.named_parameters()}
    rates = {
        names[id(parameter)]: group['lr']
        for group in parameter_groups(codec, 1e-3, fast=10, entropy=0.1)
        for parameter in group['params']
    }
    assert set(rates) == {name for name, p in codec.named_parameters() if p.requires_grad}
    gains = {'analysis.log_gain', 'inverse_gain', 'rate_offset'}
    coder_gains = {
        f'entropy.{name}' for name in ('rate_hyper', 'rate_context', 'hyper_mean', 'hyper_scale')
    }
    for name, rate in rates.items():
        factor = 10 if name in gains | coder_gains else 1
        assert rate == pytest.approx(1e-3 * factor * (0.1 if name.startswith('entropy.') else 1))


def test_a_target_out_of_reach_has_a_price_that_ends() -> None:
    control = RateControl([1, 100], most=3)
    for _ in range(2000):
        control.observe(torch.tensor([1000.0, 800.0]), torch.tensor([0, 1]))
    dear, met = control.log_price.exp().tolist()
    assert dear == pytest.approx(3)
    assert met == pytest.approx(0.02)


def test_a_few_steps_bring_the_losses_down(detector, answers) -> None:
    codec = make_codec(answers)
    control = RateControl([200, 400])
    optimizer = torch.optim.AdamW(parameter_groups(codec, 2e-3))
    objective = Distillation(detector, DistillSettings())
    totals = []
    torch.manual_seed(0)
    for step in range(45):
        pyramid, goal = goal_pyramid(codec, answers)
        rates = torch.tensor([step % 2, (step + 1) % 2])
        normalised, coded = codec.compress(pyramid, rates)
        rng = torch.Generator().manual_seed(0)
        losses = objective(
            normalised, codec.synthesis.restored(normalised), goal, answers, rng
        )
        total = sum(losses.values()) + control.cost(coded.bits, rates).mean()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        codec.entropy.project()
        control.observe(coded.sent, rates)
        totals.append(total.item())
    assert sum(totals[-5:]) < 0.7 * sum(totals[:5])

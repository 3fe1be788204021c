"""The seam: every split detector passes the same tests, with random weights."""

import json
import sys

import pytest
import torch

from detector_models import IMPLEMENTATIONS, MODELS, NUM_CLASSES, make_images, make_targets
from msfc.detectors import build_detector
from msfc.detectors.base import SplitDetector, TeacherDetector

SIZES = [(97, 151), (140, 101), (64, 64)]


@pytest.fixture(scope='module', params=IMPLEMENTATIONS)
def kit(request):
    """Return how to make and look into the models of one implementation."""
    if request.param == 'detectron2':
        pytest.importorskip(
            'detectron2', reason='needs Detectron2: scripts/setup.sh --detectron2'
        )
    return MODELS[request.param]


@pytest.fixture
def detector(kit):
    """Return a small detector with random weights, in evaluation mode."""
    torch.manual_seed(7)
    return kit.make().eval()


def test_attributes(detector):
    assert isinstance(detector, SplitDetector)
    assert len(detector.class_names) == NUM_CLASSES
    assert list(detector.strides) == ['p2', 'p3', 'p4', 'p5']
    assert list(detector.strides.values()) == [4, 8, 16, 32]
    assert detector.size_divisibility == 32
    assert detector.device == torch.device('cpu')


def test_other_classes_keep_all_but_the_class_layers(detector):
    names = ('cup', 'dish')
    other = detector.with_classes(names)
    assert (other.class_names, other.training) == (names, detector.training)
    assert detector.class_names != names
    before, after = detector.state_dict(), other.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    layers = {name for name in before if name.startswith(detector.class_layers)}
    assert layers
    assert changed <= layers
    assert {name for name in layers if name.endswith('weight')} <= changed
    images = make_images(SIZES[:1])
    batch = other.preprocess(images)
    with torch.inference_mode():
        (found,) = other.infer(other.extract(batch), batch.sizes)
    assert (found.labels < len(names)).all()


@pytest.mark.parametrize('size', [(1, 640), (10, 5000), (5000, 3), (1, 1), (2, 9000)])
@torch.inference_mode()
def test_images_of_extreme_shapes_are_looked_at(detector, size):
    batch = detector.preprocess(make_images([size]))
    (found,) = detector.infer(detector.extract(batch), batch.sizes)
    assert found.masks.shape[1:] == size
    assert torch.isfinite(found.boxes).all()


@pytest.mark.parametrize('sizes', [SIZES[:1], SIZES], ids=['one', 'batch'])
def test_preprocess_sizes(detector, sizes):
    batch = detector.preprocess(make_images(sizes))

    assert batch.tensor.dtype == torch.float32
    assert batch.tensor.shape == (len(sizes), 3, *batch.sizes.padded)
    assert batch.sizes.source == tuple(sizes)
    for axis in (0, 1):
        longest = max(valid[axis] for valid in batch.sizes.valid)
        assert batch.sizes.padded[axis] == -(-longest // 32) * 32
    for source, valid, pixels in zip(sizes, batch.sizes.valid, batch.tensor, strict=True):
        scale = valid[0] / source[0]
        assert valid[1] == pytest.approx(scale * source[1], abs=1.5)
        assert torch.all(pixels[:, valid[0]:] == 0)
        assert torch.all(pixels[:, :, valid[1]:] == 0)


def test_preprocess_leaves_images_alone(detector):
    images = make_images(SIZES)
    copies = [image.clone() for image in images]
    detector.preprocess(images)
    assert all(torch.equal(image, copy) for image, copy in zip(images, copies, strict=True))


@pytest.mark.parametrize('sizes', [[(97, 151)], [(33, 250)], [(200, 31)], SIZES])
def test_pyramid_sizes_are_the_real_ones(detector, sizes):
    batch = detector.preprocess(make_images(sizes))
    with torch.inference_mode():
        pyramid = detector.extract(batch)

    assert list(pyramid) == ['p2', 'p3', 'p4', 'p5', 'p6']
    expected = detector.pyramid_sizes(batch.sizes.padded)
    assert {level: tuple(x.shape[2:]) for level, x in pyramid.items()} == expected
    assert all(
        x.shape[:2] == (len(sizes), detector.feature_channels) for x in pyramid.values()
    )


@pytest.mark.parametrize('sizes', [[(97, 151)], SIZES], ids=['one', 'batch'])
@torch.inference_mode()
def test_split_equals_unsplit(kit, detector, sizes):
    images = make_images(sizes)
    batch = detector.preprocess(images)
    split = detector.infer(detector.extract(batch), batch.sizes)
    unsplit = kit.unsplit(detector, images)

    assert sum(len(instances) for instances in split) > 0
    for instances, reference, size in zip(split, unsplit, sizes, strict=True):
        assert instances.masks.shape == (len(instances), *size)
        assert torch.equal(instances.boxes, reference.boxes)
        assert torch.equal(instances.scores, reference.scores)
        assert torch.equal(instances.labels, reference.labels)
        assert torch.equal(instances.masks, reference.masks)


@torch.inference_mode()
def test_raw_outputs_lead_to_the_instances(detector):
    assert isinstance(detector, TeacherDetector)
    batch = detector.preprocess(make_images(SIZES))
    pyramid = detector.extract(batch)
    proposals = detector.proposals(pyramid, batch.sizes)
    logits, offsets = detector.box_outputs(pyramid, proposals, batch.sizes)
    count = sum(map(len, proposals))
    assert logits.shape == (count, NUM_CLASSES + 1)
    assert offsets.shape[0] == count
    assert offsets.shape[1:] in ((NUM_CLASSES, 4), (1, 4))
    split = detector.infer(pyramid, batch.sizes)
    likely = logits.softmax(-1)[:, :-1].split([len(boxes) for boxes in proposals])
    for instances, scores in zip(split, likely, strict=True):
        best = scores.max(0).values
        for label, score in zip(instances.labels, instances.scores, strict=True):
            assert float(score) <= float(best[label]) + 1e-5
    masks = detector.mask_outputs(
        pyramid, [boxes[:2] for boxes in proposals],
        [torch.tensor([0, NUM_CLASSES - 1])] * len(SIZES), batch.sizes,
    )
    assert masks.shape == (2 * len(SIZES), 28, 28)
    assert masks.dtype == torch.float32


@torch.inference_mode()
def test_the_rpn_says_the_same_of_a_part(detector):
    batch = detector.preprocess(make_images(SIZES))
    pyramid = detector.extract(batch)
    whole = detector.rpn_outputs(pyramid)
    assert list(whole) == list(pyramid)
    for level, (logits, offsets) in whole.items():
        anchors = logits.shape[1]
        assert logits.shape == (len(SIZES), anchors, *pyramid[level].shape[2:])
        assert offsets.shape == (len(SIZES), anchors, 4, *pyramid[level].shape[2:])
    (part,) = detector.rpn_outputs({'p2': pyramid['p2'][..., 4:20, 6:30]}).values()
    inner = (..., slice(2, -2), slice(2, -2))
    for some, every in zip(part, whole['p2'], strict=True):
        torch.testing.assert_close(some[inner], every[..., 6:18, 8:28])


@torch.inference_mode()
def test_instances_are_well_formed(detector):
    batch = detector.preprocess(make_images(SIZES))
    for instances, size in zip(
        detector.infer(detector.extract(batch), batch.sizes), SIZES, strict=True
    ):
        assert instances.boxes.dtype == instances.scores.dtype == torch.float32
        assert instances.labels.dtype == torch.int64
        assert instances.masks.dtype == torch.bool
        assert torch.all(instances.scores[:-1] >= instances.scores[1:])
        assert torch.all((instances.labels >= 0) & (instances.labels < NUM_CLASSES))
        assert torch.all(instances.boxes >= 0)
        assert torch.all(instances.boxes <= torch.tensor([size[1], size[0]] * 2))


@pytest.mark.parametrize('most', [0, 1, 3])
@torch.inference_mode()
def test_the_surest_instances_only(detector, most):
    batch = detector.preprocess(make_images(SIZES))
    pyramid = detector.extract(batch)
    found = detector.infer(pyramid, batch.sizes)
    assert max(map(len, found)) > 3
    for few, all_of_them in zip(
        detector.infer(pyramid, batch.sizes, most), found, strict=True
    ):
        assert len(few) == min(most, len(all_of_them))
        assert torch.equal(few.boxes, all_of_them.boxes[:most])
        assert torch.equal(few.scores, all_of_them.scores[:most])
        assert torch.equal(few.labels, all_of_them.labels[:most])
        assert torch.equal(few.masks, all_of_them.masks[:most])


@pytest.mark.parametrize('label', [0, NUM_CLASSES - 1])
@torch.inference_mode()
def test_labels_start_at_zero(kit, detector, label):
    kit.prefer_class(detector, label)
    batch = detector.preprocess(make_images(SIZES[:1]))
    (instances,) = detector.infer(detector.extract(batch), batch.sizes)
    assert len(instances) > 0
    assert instances.labels[0] == label


@torch.inference_mode()
def test_no_instances(kit, detector):
    kit.set_score_threshold(detector, 1.0)
    batch = detector.preprocess(make_images(SIZES))
    for instances, size in zip(
        detector.infer(detector.extract(batch), batch.sizes), SIZES, strict=True
    ):
        assert len(instances) == 0
        assert instances.boxes.shape == (0, 4)
        assert instances.boxes.dtype == torch.float32
        assert instances.scores.shape == (0,)
        assert instances.scores.dtype == torch.float32
        assert instances.labels.shape == (0,)
        assert instances.labels.dtype == torch.int64
        assert instances.masks.shape == (0, *size)
        assert instances.masks.dtype == torch.bool


def test_losses_equal_the_unsplit_model(kit, detector):
    detector.train()
    images, targets = make_images(SIZES), make_targets(SIZES)
    torch.manual_seed(3)
    expected = kit.unsplit_losses(detector, images, targets)
    torch.manual_seed(3)
    losses = detector.losses(images, targets)

    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        assert loss.shape == ()
        assert torch.isfinite(loss)
        assert torch.equal(loss, expected[name]), name


def test_losses_without_objects(detector):
    losses = detector.train().losses(make_images(SIZES), make_targets(SIZES, count=0))
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_losses_need_training_mode(detector):
    with pytest.raises(RuntimeError, match='training mode'):
        detector.losses(make_images(SIZES), make_targets(SIZES))


def test_heads_see_what_the_hook_returns(detector):
    detector.train()
    images, targets = make_images(SIZES), make_targets(SIZES)
    for parameter in detector.parameters():
        parameter.requires_grad_(False)
    gain = torch.nn.Parameter(torch.tensor(1.0))
    seen = []

    def hook(pyramid):
        seen.append({level: tuple(x.shape[2:]) for level, x in pyramid.items()})
        return {level: gain * x for level, x in pyramid.items()}

    losses = detector.losses(images, targets, hook)
    sum(losses.values()).backward()

    assert seen == [detector.pyramid_sizes(detector.preprocess(images).sizes.padded)]
    assert torch.isfinite(gain.grad)
    assert gain.grad != 0


def test_gradient_reaches_the_backbone(detector):
    detector.train()
    sum(detector.losses(make_images(SIZES), make_targets(SIZES)).values()).backward()
    gradients = [p.grad for p in detector.parameters() if p.requires_grad and p.grad is not None]
    assert any(torch.any(gradient != 0) for gradient in gradients)


def test_config_rebuilds_the_architecture(detector):
    config = json.loads(json.dumps(detector.config()))
    rebuilt = build_detector(config).eval()

    assert type(rebuilt) is type(detector)
    assert rebuilt.config() == detector.config()
    assert rebuilt.class_names == detector.class_names
    shapes = {name: x.shape for name, x in detector.state_dict().items()}
    assert {name: x.shape for name, x in rebuilt.state_dict().items()} == shapes

    rebuilt.load_state_dict(detector.state_dict())
    images = make_images(SIZES[:1])
    with torch.inference_mode():
        first, second = (
            model.infer(model.extract(batch), batch.sizes)[0]
            for model in (detector, rebuilt)
            for batch in [model.preprocess(images)]
        )
    assert torch.equal(first.boxes, second.boxes)
    assert torch.equal(first.masks, second.masks)


def test_unknown_type_is_refused():
    with pytest.raises(ValueError, match='abacus'):
        build_detector({'type': 'abacus'})


def test_missing_detectron2_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, 'detectron2', None)
    with pytest.raises(ImportError, match=r'scripts/setup\.sh --detectron2'):
        build_detector({'type': 'detectron2', 'format': 'yaml', 'model': ''})

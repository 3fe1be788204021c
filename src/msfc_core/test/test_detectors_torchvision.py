"""What only torchvision's detectors have: their own transform of images."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from detector_models import LONG_EDGE, SHORT_EDGE, TorchvisionKit, make_images
from msfc.detectors.torchvision import RANGES, TorchvisionConfig, TorchvisionDetector

SIZES = [(97, 151), (140, 101), (480, 640), (128, 128), (1, 640), (10, 5000), (5000, 10), (3, 2)]


@pytest.fixture(scope='module')
def detector():
    torch.manual_seed(7)
    return TorchvisionKit().make().eval()


@pytest.mark.parametrize('size', SIZES)
def test_the_input_is_what_torchvision_makes_of_the_image(detector, size):
    ours = detector.model.transform
    theirs = GeneralizedRCNNTransform(
        SHORT_EDGE, LONG_EDGE, ours.image_mean, ours.image_std
    ).eval()
    (image,) = make_images([size])
    if min(size) * LONG_EDGE < max(size):
        # torchvision would make an edge of no pixels.
        with pytest.raises(RuntimeError):
            theirs([image / 255])
        assert min(detector.preprocess([image]).sizes.valid[0]) == 1
        return
    expected, _ = theirs([image / 255])
    batch = detector.preprocess([image])
    assert batch.sizes.valid == tuple(expected.image_sizes)
    torch.testing.assert_close(batch.tensor, expected.tensors, rtol=0, atol=1e-5)


@pytest.mark.parametrize('size', SIZES)
def test_objects_are_resized_as_torchvision_does(detector, size):
    theirs = GeneralizedRCNNTransform(SHORT_EDGE, LONG_EDGE, [0.5] * 3, [0.2] * 3).eval()
    if min(size) * LONG_EDGE < max(size):
        return
    (image,) = make_images([size])
    target = {
        'boxes': torch.tensor([[0.0, 0.0, size[1], size[0]], [0.3, 0.2, 0.9, 0.8]]),
        'masks': (image[:2] > 100).to(torch.uint8),
    }
    _, (expected,) = theirs([image / 255], [target])
    _, (made,) = detector.model.transform([image], [target])
    assert torch.equal(made['boxes'], expected['boxes'])
    assert torch.equal(made['masks'], expected['masks'])


def config(**changes):
    return TorchvisionDetector.from_config({
        'class_names': ['cup'], 'backbone': 'resnet18', **changes
    })


@pytest.mark.parametrize(('changes', 'words'), [
    ({'score_threshold': '1e-3'}, r"is the text '1e-3', not a number: write 1\.0e-3"),
    ({'score_threshold': '2E2'}, r'write 2\.0e\+2'),
    ({'score_threshold': '0.5'}, r'write 0\.5 without quotes'),
    ({'score_threshold': 1.5}, 'score_threshold is 1.5, not 0 to 1'),
    ({'score_threshold': float('nan')}, 'score_threshold is nan, not 0 to 1'),
    ({'score_threshold': None}, 'score_threshold is None, not a number'),
    ({'rpn_batch': '16'}, 'rpn_batch is the text .16., not a whole number: write 16'),
    ({'rpn_batch': 16.5}, r'rpn_batch is 16\.5, not a whole number'),
    ({'rpn_batch': True}, 'rpn_batch is True, not a whole number'),
    ({'rpn_batch': 0}, 'rpn_batch is 0, not 1 to'),
    ({'min_size': [320]}, r'min_size is \[320\], not a whole number'),
    ({'fpn_channels': 10**9}, 'fpn_channels is 1000000000, not 1 to'),
    ({'class_names': 'cup'}, "class_names is 'cup', not a list of names"),
    ({'class_names': [1]}, 'class_names has 1, not a name'),
    ({'backbone': 18}, 'unknown backbone 18: choose from .*resnet18'),
    ({'norm': 'layer'}, "unknown norm 'layer': choose from batch, frozen"),
])
def test_impossible_settings_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        config(**changes)


def test_every_number_has_a_range():
    numbers = {
        entry.name for entry in dataclasses.fields(TorchvisionConfig)
        if entry.type in ('int', 'float')
    }
    assert numbers == set(RANGES)
    assert config(score_threshold=0).config()['score_threshold'] == 0.0

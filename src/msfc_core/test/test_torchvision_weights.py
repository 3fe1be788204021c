"""torchvision's own models, with random weights in files of the same form, as models of ours."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2
from torchvision.ops import FrozenBatchNorm2d
from typer.testing import CliRunner

from detector_models import make_images
from msfc.cli.main import app
from msfc.detectors.torchvision_weights import import_torchvision
from msfc.model_file import load_model

pytestmark = pytest.mark.usefixtures('one_thread')

BUILDERS = {
    'maskrcnn_resnet50_fpn': maskrcnn_resnet50_fpn,
    'maskrcnn_resnet50_fpn_v2': maskrcnn_resnet50_fpn_v2,
}
NAMES = ['cup', 'ball']


def build(architecture: str, classes: int) -> nn.Module:
    torch.manual_seed(3)
    model = BUILDERS[architecture](
        weights=None, weights_backbone=None, num_classes=classes, min_size=96, max_size=128,
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            module.running_mean.normal_(0, 0.1)
    return model.eval()


@pytest.fixture(scope='module', params=sorted(BUILDERS))
def written(request, tmp_path_factory) -> tuple[str, nn.Module, Path]:
    model = build(request.param, len(NAMES) + 1)
    path = tmp_path_factory.mktemp('weights') / 'model.pth'
    torch.save(model.state_dict(), path)
    return request.param, model, path


@torch.no_grad()
def test_it_finds_what_torchvision_finds(written, tmp_path) -> None:
    architecture, theirs, path = written
    names = tmp_path / 'classes.txt'
    names.write_text('\n'.join(NAMES) + '\n')
    folder = tmp_path / 'model'
    result = CliRunner().invoke(app, [
        'import', 'torchvision', architecture, '--weights', str(path), '--classes', str(names),
        '--output', str(folder),
    ])
    assert result.exit_code == 0, result.output
    assert '2 classes' in result.output
    model = load_model(folder)
    assert model.codec is None
    detector = model.detector
    assert list(detector.class_names) == NAMES
    (image,) = make_images([(480, 640)])
    # The network input is theirs; sizes beside it are options of both.
    images, _ = theirs.transform([image / 255])
    features = theirs.backbone(images.tensors)
    batch = detector.preprocess([image])
    batch = type(batch)(images.tensors, type(batch.sizes)(
        ((480, 640),), tuple(images.image_sizes), tuple(images.tensors.shape[-2:])
    ))
    pyramid = detector.extract(batch)
    for ours, expected in zip(pyramid.values(), features.values(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    objectness, _ = theirs.rpn.head(list(features.values()))
    for (scores, _), expected in zip(
        detector.rpn_outputs(pyramid).values(), objectness, strict=True
    ):
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    boxes = [torch.tensor([[4.0, 8.0, 60.0, 70.0], [10.0, 10.0, 90.0, 40.0]])]
    heads = theirs.roi_heads
    pooled = heads.box_head(heads.box_roi_pool(features, boxes, images.image_sizes))
    logits, _ = heads.box_predictor(pooled)
    ours, _ = detector.box_outputs(pyramid, boxes, batch.sizes)
    torch.testing.assert_close(ours, logits.roll(-1, 1), rtol=1e-3, atol=1e-4)
    pooled = heads.mask_head(heads.mask_roi_pool(features, boxes, images.image_sizes))
    masks = heads.mask_predictor(pooled)
    ours = detector.mask_outputs(pyramid, boxes, [torch.tensor([1, 0])], batch.sizes)
    torch.testing.assert_close(ours, masks[torch.arange(2), [2, 1]], rtol=1e-3, atol=1e-3)


def test_classes_must_fit(written, tmp_path) -> None:
    architecture, _, path = written
    with pytest.raises(ValueError, match='2 classes, not the 90 of COCO: give their names'):
        import_torchvision(architecture, path)
    with pytest.raises(ValueError, match='2 classes, and 1 names are given'):
        import_torchvision(architecture, path, ['cup'])


def test_classes_of_coco_have_names_of_their_own(tmp_path) -> None:
    path = tmp_path / 'model.pth'
    # As torchvision's training scripts write it.
    torch.save({'model': build('maskrcnn_resnet50_fpn', 91).state_dict(), 'epoch': 3}, path)
    names = import_torchvision('maskrcnn_resnet50_fpn', path).class_names
    assert (names[0], names[-1]) == ('person', 'toothbrush')
    assert len(set(names)) == 90


def test_weights_of_the_other_design_are_refused(written) -> None:
    architecture, _, path = written
    (other,) = set(BUILDERS) - {architecture}
    with pytest.raises(ValueError, match='does not fit'):
        import_torchvision(other, path, NAMES)


def test_weights_from_before_the_epsilon(tmp_path, monkeypatch) -> None:
    """COCO_V1's file is known by its digest: here one of ours passes for it."""
    architecture, path = 'maskrcnn_resnet50_fpn', tmp_path / 'model.pth'
    model = build(architecture, len(NAMES) + 1)
    torch.save(model.state_dict(), path)
    digest = sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr('msfc.detectors.torchvision_weights.WITHOUT_EPSILON', (digest,))
    detector = import_torchvision(architecture, path, NAMES)
    layer = detector.model.backbone.body.bn1
    assert isinstance(layer, FrozenBatchNorm2d)
    variance = model.backbone.body.bn1.running_var
    torch.testing.assert_close(layer.running_var + layer.eps, variance)
    assert bool((layer.running_var < variance).all())


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'no weights', 'no file of PyTorch weights'),
        ({'model': 3}, 'has no state dict'),
        ({'backbone.body.conv1.weight': torch.zeros(1)}, 'not weights of a Mask R-CNN'),
    ],
)
def test_other_files_are_refused(content, words, tmp_path) -> None:
    path = tmp_path / 'x.pth'
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=words):
        import_torchvision('maskrcnn_resnet50_fpn', path, NAMES)


def test_unknown_names_are_told(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match='no weights of maskrcnn_resnet50_fpn: COCO_V1'):
        import_torchvision('maskrcnn_resnet50_fpn', tmp_path / 'absent.pth')
    with pytest.raises(ValueError, match='choose from maskrcnn_resnet50_fpn'):
        import_torchvision('fasterrcnn_resnet50_fpn', tmp_path / 'absent.pth')

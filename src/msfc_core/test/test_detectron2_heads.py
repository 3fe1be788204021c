"""Heads that Detectron2's models bring: a panoptic FPN's semantic branch, and keypoints."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from detector_models import Detectron2Kit, make_images, make_targets
from head_models import (
    KEYPOINT,
    PANOPTIC,
    calm_keypoints,
    small_detectron2,
    write_detectron2_with_heads,
    write_small_configuration,
    write_zoo_weights,
)
from msfc.cli.main import app
from msfc.detectors import build_detector
from msfc.detectors.detectron2 import Detectron2Detector
from msfc.heads.head_file import load_heads
from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline

pytest.importorskip('detectron2', reason='needs Detectron2: scripts/setup.sh --detectron2')
pytestmark = pytest.mark.usefixtures('one_thread')

SIZES = [(97, 151), (140, 101)]


def _predict(path, weights, images):
    """Return what Detectron2's own predictor finds with a configuration and weights."""
    from detectron2.config import get_cfg
    from detectron2.engine import DefaultPredictor

    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = str(weights), 'cpu'
    predictor = DefaultPredictor(cfg)
    return [predictor(image.numpy().transpose(1, 2, 0)[:, :, ::-1]) for image in images]


def _inputs(images):
    return [Detectron2Kit()._input(image) for image in images]


@pytest.mark.parametrize(('name', 'classes'), [(PANOPTIC, 80), (KEYPOINT, 1)])
@torch.inference_mode()
def test_an_imported_model_equals_detectron2_s_predictor(tmp_path, name, classes):
    """From a configuration and weights of the zoo's form, by the command, to the results."""
    plan, weights = tmp_path / 'small.yaml', tmp_path / 'model_final_0.pkl'
    write_small_configuration(plan, name, classes)
    torch.manual_seed(7)
    source = Detectron2Detector.from_file(plan)
    calm_keypoints(source)
    write_zoo_weights(weights, source.model.state_dict())
    folder = tmp_path / 'model'
    done = CliRunner().invoke(
        app, ['import', 'detectron2', str(plan), '--weights', str(weights),
              '--output', str(folder)],
    )
    assert done.exit_code == 0, done.output
    model = load_model(folder)
    detector = model.detector.eval()
    assert (len(detector.class_names), detector.class_names[0]) == (classes, 'person')
    heads = load_heads(model, folder)
    images = make_images(SIZES)
    for image, expected in zip(images, _predict(plan, weights, images), strict=True):
        batch = detector.preprocess([image])
        pyramid = detector.extract(batch)
        (found,) = detector.infer(pyramid, batch.sizes)
        theirs = expected['instances']
        assert len(found) > 0
        assert torch.equal(found.boxes, theirs.pred_boxes.tensor)
        assert torch.equal(found.scores, theirs.scores)
        if name == KEYPOINT:
            assert heads == {}
            assert detector.keypoint_names[:2] == ('nose', 'left_eye')
            assert torch.equal(found.keypoints, theirs.pred_keypoints)
            assert found.masks.shape == (len(found), *image.shape[1:])
            assert not found.masks.any()
            continue
        assert found.keypoints is None
        assert torch.equal(found.masks, theirs.pred_masks)
        head = heads['semantic']
        assert (len(head.class_names), head.class_names[0]) == (54, 'things')
        (pixels,) = head.infer(pyramid, batch.sizes)
        assert torch.equal(pixels, expected['sem_seg'].argmax(0).to(torch.uint8))
        assert len(pixels.unique()) > 1


@torch.inference_mode()
def test_images_of_a_batch_have_results_of_their_own():
    """Several images of different sizes in one batch, with masks, classes and keypoints."""
    detector = small_detectron2(PANOPTIC, **{'MODEL.KEYPOINT_ON': True})
    rebuilt = build_detector(json.loads(json.dumps(detector.config()))).eval()
    rebuilt.load_state_dict(detector.state_dict())
    assert rebuilt.keypoint_names == tuple(f'keypoint_{index}' for index in range(17))
    images = make_images(SIZES)
    batch = rebuilt.preprocess(images)
    pyramid = rebuilt.extract(batch)
    found = rebuilt.infer(pyramid, batch.sizes)
    few = rebuilt.infer(pyramid, batch.sizes, max_instances=2)
    classes = rebuilt.heads()['semantic'].infer(pyramid, batch.sizes)
    results = detector.model(_inputs(images))
    for one, first, pixels, result in zip(found, few, classes, results, strict=True):
        theirs = result['instances']
        assert len(one) > 2
        assert torch.equal(one.boxes, theirs.pred_boxes.tensor)
        assert torch.equal(one.masks, theirs.pred_masks)
        assert torch.equal(one.keypoints, theirs.pred_keypoints)
        assert torch.equal(first.keypoints, one.keypoints[:2])
        assert torch.equal(pixels, result['sem_seg'].argmax(0).to(torch.uint8))


@torch.inference_mode()
def test_nothing_found_has_no_keypoints():
    detector = small_detectron2(KEYPOINT, **{'MODEL.ROI_HEADS.SCORE_THRESH_TEST': 1.0})
    batch = detector.preprocess(make_images(SIZES[:1]))
    (found,) = detector.infer(detector.extract(batch), batch.sizes)
    assert found.keypoints.shape == (0, 17, 3)
    assert found.masks.shape == (0, *SIZES[0])


@torch.inference_mode()
def test_through_the_codec(tmp_path):
    model = write_detectron2_with_heads(tmp_path / 'model')
    edge = edge_pipeline(model)
    cloud = CloudPipeline(load_model(tmp_path / 'model'))
    cloud.heads = load_heads(cloud.model, tmp_path / 'model')
    (image,) = make_images(SIZES[:1])
    packet = edge.encode(image.permute(1, 2, 0).flip(2).contiguous().numpy(), 0)
    (result,) = cloud.decode_with([cloud.validate(packet)], [('semantic',)])
    pixels, instances = result.outputs['semantic'], result.instances
    assert (pixels.dtype, tuple(pixels.shape)) == (torch.uint8, SIZES[0])
    assert int(pixels.max()) < 54
    assert len(instances) > 0
    assert instances.keypoints.shape == (len(instances), 17, 3)
    (expected,) = model([image])
    assert torch.equal(instances.keypoints, expected.keypoints)


def test_losses_are_those_of_boxes_and_masks():
    detector = small_detectron2(PANOPTIC, **{'MODEL.KEYPOINT_ON': True}).train()
    losses = detector.losses(make_images(SIZES), make_targets(SIZES))
    assert {'loss_mask', 'loss_rpn_cls'} <= set(losses)
    assert not {'loss_sem_seg', 'loss_keypoint'} & set(losses)
    detector = small_detectron2(KEYPOINT).train()
    persons = [replace(one, labels=one.labels * 0) for one in make_targets(SIZES)]
    losses = detector.losses(make_images(SIZES), persons)
    assert 'loss_rpn_cls' in losses
    assert not {'loss_mask', 'loss_keypoint'} & set(losses)


@torch.inference_mode()
def test_keypoints_alone_teach_no_masks():
    detector = small_detectron2(KEYPOINT)
    batch = detector.preprocess(make_images(SIZES[:1]))
    boxes, labels = [torch.tensor([[4.0, 8.0, 60.0, 70.0]])], [torch.zeros(1).long()]
    masks = detector.mask_outputs(detector.extract(batch), boxes, labels, batch.sizes)
    assert masks.shape == (1, 0, 0)


@pytest.mark.parametrize(
    ('name', 'keypoints', 'classes'),
    [
        ('COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.py', 0, 54),
        ('COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.py', 17, 0),
    ],
)
def test_lazy_configurations_of_the_zoo(name, keypoints, classes):
    detector = Detectron2Detector.from_file(name)
    assert len(detector.keypoint_names) == keypoints
    assert detector.class_names[0] == 'person'
    heads = detector.heads()
    assert bool(heads) == bool(classes)
    if classes:
        assert len(heads['semantic'].class_names) == classes
        assert heads['semantic'].class_names[0] == 'things'
    else:
        assert detector.keypoint_names[0] == 'nose'


def test_other_classes_leave_the_further_heads_as_they_are():
    detector = small_detectron2(PANOPTIC, **{'MODEL.KEYPOINT_ON': True})
    other = detector.with_classes(['cup', 'pen']).eval()
    assert other.class_names == ('cup', 'pen')
    assert other.keypoint_names == detector.keypoint_names
    head, before = other.heads()['semantic'], detector.heads()['semantic']
    assert head.class_names == before.class_names
    theirs = before.state_dict()
    assert all(torch.equal(x, theirs[name]) for name, x in head.state_dict().items())


@pytest.mark.parametrize('graph_format', ['onnx', 'openvino'])
def test_export_edge(tmp_path, graph_format):
    """The robot's half is that of any other FPN: it knows nothing of the heads."""
    pytest.importorskip('openvino' if graph_format == 'openvino' else 'onnxruntime')
    from msfc.edge_bundle import read_bundle

    model = write_detectron2_with_heads(tmp_path / 'model')
    pictures = tmp_path / 'pictures'
    pictures.mkdir()
    for index, image in enumerate(make_images(SIZES)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(pictures / f'{index}.png')
    done = CliRunner().invoke(
        app, ['export-edge', str(tmp_path / 'model'), str(tmp_path / 'bundle'),
              '--format', graph_format, '--images', str(pictures)],
    )
    assert done.exit_code == 0, done.output
    bundle = read_bundle(tmp_path / 'bundle')
    assert bundle.fingerprint == model.fingerprint
    assert bundle.check['changed'] <= 1  # a symbol at the edge between two

"""Heads beside that of the instances: what they say, how they are kept, trained and measured."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from detector_models import make_images, make_targets
from head_models import (
    KEYPOINTS,
    SURFACES,
    keypoint_detector,
    semantic_head,
    write_model_with_heads,
)
from msfc.cli.main import app
from msfc.data.semantic import IGNORED, SemanticDataset
from msfc.evaluation.semantic import (
    SemanticMeasurement,
    confusion,
    intervals,
    mean_ious,
    measure_semantic,
)
from msfc.heads import build_head
from msfc.heads.head_file import load_heads, save_head
from msfc.model import SplitModel
from msfc.model_file import ModelFileError, load_model, save_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline
from msfc.training.heads import HeadExperiment, load_head_experiment, train_head
from tiny_data import write_split

pytestmark = pytest.mark.usefixtures('one_thread')

SIZES = [(97, 151), (140, 101)]


@pytest.fixture(scope='module')
def directory(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('models') / 'model'
    write_model_with_heads(path)
    return path


@pytest.fixture
def model(directory) -> SplitModel:
    return load_model(directory)


# What a head says.


@torch.no_grad()
def test_each_pixel_of_the_source_gets_a_class(model) -> None:
    batch = model.detector.preprocess(make_images(SIZES))
    pyramid = model.detector.extract(batch)
    head = semantic_head()
    found = head.infer(pyramid, batch.sizes)
    assert [one.shape for one in found] == SIZES
    assert all(one.dtype == torch.uint8 for one in found)
    assert set(torch.cat([one.flatten() for one in found]).tolist()) <= {0, 1, 2}
    # An image alone says the same, to what the padding of the other shows through its edges.
    (alone,) = model.detector.preprocess(make_images(SIZES[:1])).sizes.valid
    assert alone == batch.sizes.valid[0]


def test_padding_is_no_part_of_the_result(model) -> None:
    class Halves(type(semantic_head())):  # type: ignore[misc]
        def logits(self, pyramid):
            shape = pyramid['p2'].shape
            maps = torch.zeros(shape[0], 3, *shape[-2:])
            maps[:, 1, : shape[-2] // 2] = 1
            return maps

    head = Halves(semantic_head()._config)
    batch = model.detector.preprocess(make_images([(100, 100)]))
    sizes = replace(batch.sizes, valid=((64, 128),), padded=(128, 128))
    pyramid = {'p2': torch.zeros(1, 32, 32, 32)}
    # The upper half of the padded input is all of the image.
    assert bool((head.infer(pyramid, sizes)[0][:95] == 1).all())


@pytest.mark.parametrize(
    ('config', 'words'),
    [
        ({'type': 'other'}, "unknown head type 'other'"),
        ({'type': 'fpn_semantic'}, 'needs class_names'),
        ({'type': 'fpn_semantic', 'class_names': ['a'], 'width': 3}, "unknown .*'width'"),
        ({'type': 'fpn_semantic', 'class_names': ['a'], 'channels': 12}, 'multiple of 8'),
        ({'type': 'fpn_semantic', 'class_names': [str(k) for k in range(256)]}, '256 classes'),
        ({'type': 'fpn_semantic', 'class_names': 'table'}, 'not a list of names'),
    ],
)
def test_impossible_heads_are_refused(config, words) -> None:
    with pytest.raises(ValueError, match=words):
        build_head(config)


# How it is kept.


@torch.no_grad()
def test_a_head_is_found_with_its_model_and_changes_nothing_of_it(directory, tmp_path) -> None:
    bare = tmp_path / 'bare'
    shutil.copytree(directory, bare)
    shutil.rmtree(bare / 'heads')
    assert load_heads(load_model(bare), bare) == {}
    model = load_model(directory)
    assert model.fingerprint == load_model(bare).fingerprint
    head = load_heads(model, directory)['semantic']
    assert head.class_names == SURFACES
    batch = model.detector.preprocess(make_images(SIZES))
    pyramid = model.detector.extract(batch)
    for one, other in zip(
        head.infer(pyramid, batch.sizes), semantic_head().infer(pyramid, batch.sizes), strict=True
    ):
        assert (one == other).float().mean() > 0.99  # half precision is stored


def test_other_codecs_of_the_detector_find_it(directory, model, tmp_path) -> None:
    """The head is the detector's: a model that has its detector from another has the head too."""
    plain = tmp_path / 'plain'
    save_model(SplitModel(model.detector), plain)
    save_head(semantic_head(), plain / 'heads' / 'semantic', load_model(plain).detector)
    other = tmp_path / 'other'
    save_model(model, other, detector_from=plain)
    loaded = load_model(other)
    assert loaded.fingerprint == model.fingerprint
    assert list(load_heads(loaded, other)) == ['semantic']


def test_a_head_of_another_detector_is_refused(directory, tmp_path) -> None:
    copy = tmp_path / 'copy'
    shutil.copytree(directory, copy)
    model = load_model(copy)
    with torch.no_grad():
        next(model.detector.parameters()).add_(0.01)
    save_model(model, copy)
    with pytest.raises(ModelFileError, match=r'train it anew \(msfc train-head\), or move it'):
        load_heads(load_model(copy), copy)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'format': 'x'}, 'does not describe a head'),
        ({'format_version': 9}, 'format version 9'),
        ({'head': []}, "no 'head'"),
        ({'head': {'type': 'x'}}, 'unknown head type'),
        ({'weights_sha256': '0' * 64}, 'is damaged'),
    ],
)
def test_damaged_files_are_refused(directory, tmp_path, change, words) -> None:
    copy = tmp_path / 'copy'
    shutil.copytree(directory, copy)
    path = copy / 'heads' / 'semantic' / 'head.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelFileError, match=words):
        load_heads(load_model(copy), copy)


def test_other_things_in_its_place_are_refused(directory, tmp_path) -> None:
    copy = tmp_path / 'copy'
    shutil.copytree(directory, copy)
    (copy / 'heads' / 'semantic').rename(copy / 'heads' / 'depth')
    with pytest.raises(ModelFileError, match='rename the folder'):
        load_heads(load_model(copy), copy)
    weights = copy / 'heads' / 'depth' / 'head.safetensors'
    weights.unlink()
    with pytest.raises(ModelFileError, match=r'no head\.safetensors'):
        load_heads(load_model(copy), copy)


# On the stream.


@torch.no_grad()
def test_only_who_asks_is_answered(directory, model) -> None:
    cloud, edge = CloudPipeline(model), edge_pipeline(model)
    cloud.heads = load_heads(model, directory)
    images = [image.permute(1, 2, 0).numpy() for image in make_images([(97, 151)] * 3)]
    valid = [cloud.validate(edge.encode(image, k)) for k, image in enumerate(images, 1)]
    wanted = [(), ('semantic',), ('semantic',)]
    results = cloud.decode_with(valid, wanted)
    assert [list(result.outputs) for result in results] == [[], ['semantic'], ['semantic']]
    assert results[1].outputs['semantic'].shape == (97, 151)
    assert 'heads' in results[1].durations
    plain = cloud.decode_valid(valid)
    assert all(not result.outputs for result in plain)
    assert 'heads' not in plain[0].durations
    for one, other in zip(results, plain, strict=True):
        assert torch.equal(one.instances.boxes, other.instances.boxes)
    # The same as the head says of what the codec leaves of the pyramid.
    batch = model.detector.preprocess([torch.from_numpy(images[1][:, :, ::-1].copy()).permute(
        2, 0, 1
    )])
    rebuilt = model.hook()(model.detector.extract(batch))
    (expected,) = cloud.heads['semantic'].infer(rebuilt, batch.sizes)
    assert (results[1].outputs['semantic'] == expected).float().mean() > 0.995


# Keypoints.


@torch.no_grad()
def test_keypoints_are_torchvision_s_own() -> None:
    images = make_images(SIZES)
    for masks in (True, False):
        detector = keypoint_detector(masks)
        batch = detector.preprocess(images)
        pyramid = detector.extract(batch)
        found = detector.infer(pyramid, batch.sizes)
        few = detector.infer(pyramid, batch.sizes, max_instances=3)
        detector.model.roi_heads.keypoint_roi_pool = detector._keypoint_pool
        expected = detector.model(images)
        for one, first, theirs in zip(found, few, expected, strict=True):
            assert len(one) > 3
            assert one.keypoints is not None
            assert torch.equal(one.keypoints[..., :2], theirs['keypoints'][..., :2])
            assert torch.equal(one.keypoints[..., 2], theirs['keypoints_scores'])
            assert torch.equal(first.keypoints, one.keypoints[:3])
            assert bool(one.masks.any()) == masks
            assert torch.equal(one.select(one.scores > 2).keypoints, one.keypoints[:0])


def test_losses_of_a_keypoint_detector_are_those_of_boxes_and_masks() -> None:
    names = {'loss_objectness', 'loss_rpn_box_reg', 'loss_classifier', 'loss_box_reg'}
    for masks in (True, False):
        losses = keypoint_detector(masks).train().losses(make_images(SIZES), make_targets(SIZES))
        assert set(losses) == names | ({'loss_mask'} if masks else set())


def test_a_detector_without_masks_teaches_without_them() -> None:
    detector = keypoint_detector(masks=False)
    batch = detector.preprocess(make_images(SIZES))
    boxes = [torch.tensor([[4.0, 8.0, 60.0, 70.0]]), torch.zeros(0, 4)]
    labels = [torch.zeros(1).long(), torch.zeros(0).long()]
    masks = detector.mask_outputs(detector.extract(batch), boxes, labels, batch.sizes)
    assert masks.shape == (1, 0, 0)


def test_keypoint_names_are_in_the_configuration_only_where_there_are_some() -> None:
    detector = keypoint_detector(masks=False)
    config = detector.config()
    assert config['keypoint_names'] == list(KEYPOINTS)
    assert config['masks'] is False
    again = type(detector).from_config(json.loads(json.dumps(config)))
    assert again.keypoint_names == KEYPOINTS
    del config['keypoint_names']
    with pytest.raises(ValueError, match='without masks has to find keypoints'):
        type(detector).from_config(config)


# Data, training, measuring.


def write_labels(root: Path, split: str) -> None:
    """Label the bright pixels of the small data set as things, all others as desk or ground."""
    folder = root / 'semantic' / split
    folder.mkdir(parents=True)
    (root / 'semantic' / 'classes.json').write_text(json.dumps(SURFACES))
    for path in sorted((root / split).iterdir()):
        image = cv2.imread(str(path))
        labels = np.zeros(image.shape[:2], np.uint8)
        labels[len(labels) // 2 :] = 1
        labels[image.max(2) > 100] = 2
        labels[:2] = IGNORED
        cv2.imwrite(str(folder / f'{path.stem}.png'), labels)


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('data')
    for split, count in (('train', 4), ('val', 3)):
        write_split(root, split, count)
        write_labels(root, split)
    return root


def experiment_file(path: Path, directory: Path, **changes: Any) -> Path:
    values = {
        'model': str(directory), 'head': {'type': 'fpn_semantic', 'channels': 8},
        'iterations': 30, 'batch_size': 2, 'learning_rate': 0.01, 'seed': 3, **changes,
    }
    path.write_text(yaml.safe_dump(values))
    return path


def test_train_and_evaluate_by_command(directory, data, tmp_path) -> None:
    copy = tmp_path / 'model'
    shutil.copytree(directory, copy)
    plan = experiment_file(tmp_path / 'plan.yaml', copy)
    output = copy / 'heads' / 'semantic'
    result = CliRunner().invoke(
        app, ['train-head', str(plan), '--data', str(data), '--output', str(output)]
    )
    assert result.exit_code == 0, result.output
    about = json.loads((output / 'head.json').read_text())['extra']
    assert about['images'] == 4
    report = tmp_path / 'semantic.json'
    result = CliRunner().invoke(app, [
        'evaluate', str(copy), '--semantic', '--data', str(data), '--split', 'val', '--rate', '2',
        '--rate', '8', '--replicates', '20', '--json', str(report),
    ])
    assert result.exit_code == 0, result.output
    rows = json.loads(report.read_text())['variants']
    assert [row['variant'] for row in rows] == ['uncompressed', 'n=2', 'n=8']
    assert rows[0]['mean_iou']['value'] == pytest.approx(about['val_mean_iou'], abs=1e-6)
    assert rows[1]['payload_bytes'] * 4 == rows[2]['payload_bytes']
    assert set(rows[0]['iou']) == set(SURFACES)


def test_training_learns_and_repeats(directory, data, tmp_path) -> None:
    plan = HeadExperiment(
        str(directory), {'type': 'fpn_semantic', 'channels': 8}, iterations=40, batch_size=2,
        learning_rate=0.01,
    )
    report = train_head(plan, data, tmp_path / 'one')
    assert np.mean(report.losses[-5:]) < 0.7 * np.mean(report.losses[:5])
    short = replace(plan, iterations=3)
    first = train_head(short, data, tmp_path / 'two').losses
    second = train_head(replace(short, keep_features=False), data, tmp_path / 'three').losses
    # Kept features are in half precision.
    assert first == pytest.approx(second, rel=1e-2)
    assert first == train_head(short, data, tmp_path / 'four').losses


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'iteration': 3}, 'unknown keys'),
        ({'iterations': 0}, 'iterations is 0'),
        ({'learning_rate': '1e-3'}, 'write 1.0e-3'),
        ({'head': 'fpn'}, 'not a type and settings'),
        ({'keep_features': 1}, 'not true or false'),
        ({'model': ''}, 'not a name'),
    ],
)
def test_impossible_experiments_are_refused(tmp_path, changes, words) -> None:
    path = experiment_file(tmp_path / 'plan.yaml', tmp_path, **changes)
    with pytest.raises(ValueError, match=words):
        load_head_experiment(path)


def test_the_shipped_experiment_is_one() -> None:
    root = Path(__file__).parents[3]
    plan = load_head_experiment(root / 'experiments' / 'tabletop_semantic.yaml')
    assert plan.model == 'tabletop_detector'


def test_labels_that_are_of_no_use_are_told(data, tmp_path) -> None:
    root = tmp_path / 'data'
    shutil.copytree(data, root)
    labels = sorted((root / 'semantic' / 'val').iterdir())
    cv2.imwrite(str(labels[0]), np.full((80, 104), 3, np.uint8))
    with pytest.raises(ValueError, match='has class 3, of 3 from 0 on'):
        SemanticDataset(root, 'val')[0]
    cv2.imwrite(str(labels[0]), np.zeros((8, 104), np.uint8))
    with pytest.raises(ValueError, match='no grey image of 8 bits and 104 x 80 pixels'):
        SemanticDataset(root, 'val')[0]
    labels[0].unlink()
    assert len(SemanticDataset(root, 'val')) == 2
    shutil.rmtree(root / 'semantic' / 'val')
    with pytest.raises(ValueError, match='has labels of no image of val'):
        SemanticDataset(root, 'val')
    shutil.rmtree(root / 'semantic')
    with pytest.raises(FileNotFoundError, match='msfc data semantic'):
        SemanticDataset(root, 'val')


def test_measuring_needs_the_head_s_classes(directory, model, data, tmp_path) -> None:
    root = tmp_path / 'data'
    shutil.copytree(data, root)
    (root / 'semantic' / 'classes.json').write_text('["a", "b", "c"]')
    with pytest.raises(ValueError, match='the head knows desk, ground, thing; the data set has a'):
        measure_semantic(model, semantic_head(), SemanticDataset(root, 'val'))


def test_a_model_without_head_is_told(directory, data, tmp_path) -> None:
    bare = tmp_path / 'bare'
    shutil.copytree(directory, bare)
    shutil.rmtree(bare / 'heads')
    result = CliRunner().invoke(
        app, ['evaluate', str(bare), '--semantic', '--data', str(data), '--split', 'val']
    )
    assert result.exit_code == 1
    assert 'has no semantic head: msfc train-head trains one' in ' '.join(result.output.split())


def test_figures_by_hand() -> None:
    labels = np.array([[0, 0, 1, 1], [2, 2, IGNORED, IGNORED]], np.uint8)
    found = np.array([[0, 1, 1, 1], [2, 0, 0, 1]], np.uint8)
    counts = confusion(labels, found, 4)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    # 1 of 3, 2 of 3, 1 of 2; the fourth class is nowhere.
    assert float(mean_ious(counts)) == pytest.approx((1 / 3 + 2 / 3 + 1 / 2) / 3)
    entry = SemanticMeasurement('x', ('a', 'b', 'c', 'd'), np.stack([counts, counts]))
    assert entry.accuracy == pytest.approx(4 / 6)
    assert np.isnan(entry.ious['d'])
    # All images are the same: so are all draws.
    ((value, change),) = intervals([entry], 10)
    assert (value.low, value.high) == pytest.approx((value.value, value.value))
    assert (change.low, change.high) == (0, 0)

"""Fitting a learned codec to pictures without labels."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from typer.testing import CliRunner

from detector_models import MODELS, make_images
from head_models import keypoint_detector
from hostile import small_learned_codec
from image_bags import write_image_bag
from msfc.bags.images import extract_images
from msfc.bags.reading import BagError
from msfc.cli.main import app
from msfc.data import CocoDataset
from msfc.data.files import find_pictures
from msfc.model import SplitModel
from msfc.model_file import load_model, save_model
from msfc.training.adaptation import (
    AdaptationSettings,
    adapt,
    write_detections,
)

pytestmark = pytest.mark.usefixtures('one_thread')

COUNT = 8


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, and a detector that finds something in them, with and without a codec."""
    root = tmp_path_factory.mktemp('adaptation')
    (root / 'pictures').mkdir()
    for index, image in enumerate(make_images([(72, 96)] * COUNT)):
        picture = image.roll(9 * index, -1).permute(1, 2, 0).numpy()[:, :, ::-1]
        cv2.imwrite(str(root / 'pictures' / f'{index}.png'), picture)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = MODELS['torchvision'].make().eval()
        MODELS['torchvision'].prefer_class(detector, 2)
        codec = small_learned_codec(detector.feature_channels)
        for half in (codec.analysis, codec.synthesis):
            for level in codec.levels:
                half.statistics.set(level, torch.full((32,), 0.1), torch.ones(32))
        codec.typical_bytes.copy_(torch.tensor([1.0, 2.0, 4.0]))
    save_model(SplitModel(detector), root / 'detector')
    save_model(SplitModel(detector, codec), root / 'model')
    return root


def run(source: Path, folder: Path, output: Path, **settings):
    fabric = Fabric(accelerator='cpu', devices=1)
    return adapt(
        str(source), find_pictures(folder / 'pictures'), output, fabric,
        AdaptationSettings(**{'iterations': 2, 'batch_size': 2, **settings}), workers=0,
    )


def changed(one: Path, other: Path) -> set[str]:
    before, after = load_model(one).state_dict(), load_model(other).state_dict()
    return {name for name in after if not torch.equal(before[name], after[name])}


def test_detections_become_a_data_set(folder: Path, tmp_path: Path) -> None:
    detector = load_model(folder / 'detector').detector
    write_detections(detector, find_pictures(folder / 'pictures'), tmp_path)
    train, val = CocoDataset(tmp_path, 'train'), CocoDataset(tmp_path, 'val')
    assert (len(train), len(val)) == (COUNT - 1, 1)
    assert train.class_names == detector.class_names
    example = val[0]
    assert set(example.targets.labels.tolist()) == {2}
    assert example.image.shape == (3, 72, 96)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*.json')}
    write_detections(detector, [], tmp_path)  # is there
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*.json')} == before


def test_detections_without_masks_have_their_boxes_for_masks(folder: Path, tmp_path: Path) -> None:
    detector = keypoint_detector(masks=False)
    MODELS['torchvision'].prefer_class(detector, 2)
    write_detections(detector, find_pictures(folder / 'pictures'), tmp_path)
    targets = CocoDataset(tmp_path, 'val')[0].targets
    assert len(targets.boxes) > 0
    for mask, (left, top, right, bottom) in zip(targets.masks, targets.boxes, strict=True):
        area = float((right - left) * (bottom - top))
        assert area <= mask.sum() <= area + 2 * (sum(mask.shape)) + 4


def test_both_halves_are_adapted_and_measured(folder: Path, tmp_path: Path) -> None:
    report = run(folder / 'model', folder, tmp_path)
    names = changed(folder / 'model', report.model)
    assert all(name.startswith('codec.') for name in names)
    assert any(name.startswith('codec.synthesis') for name in names)
    assert [row.variant for row in report.before] == [f'before, rate {k}' for k in range(3)]
    assert [row.variant for row in report.after] == [f'after, rate {k}' for k in range(3)]
    # Nothing sure is lost where nothing is compressed.
    assert report.uncompressed.precision.values['mask_map'] > 0.99
    content = json.loads((tmp_path / 'report.json').read_text())
    assert content['fingerprint'] == load_model(report.model).fingerprint
    assert content['settings']['part'] == 'both'
    assert content['after'][0]['payload_bytes'] == report.after[0].payload_bytes


def test_an_adapted_encoder_keeps_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    report = run(folder / 'model', folder, tmp_path, part='encoder')
    assert report.fingerprint == load_model(folder / 'model').fingerprint
    names = changed(folder / 'model', report.model)
    assert names
    assert all(name.startswith('codec.analysis.') for name in names)


def test_a_detector_gets_a_new_codec(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(
        'msfc.training.adaptation.NEW_CODEC', small_learned_codec(32).config() | {'rates': 8}
    )
    report = run(folder / 'detector', folder, tmp_path)
    assert report.before == ()
    assert len(report.after) == 8
    assert load_model(report.model).require_codec().kind == 'learned'
    with pytest.raises(ValueError, match='no learned codec whose encoder'):
        run(folder / 'detector', folder, tmp_path / 'other', part='encoder')


def test_the_command_reports(folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [
        'adapt', str(folder / 'model'), '--images', str(folder / 'pictures'), '--output',
        str(tmp_path / 'out'), '--iterations', '1', '--batch-size', '1', '--workers', '0',
        '--part', 'encoder',
    ])
    assert result.exit_code == 0, result.output
    assert 'before, rate 0' in result.output
    assert 'after, rate 2' in result.output
    for arguments, words in (
        ([], 'give either --images or --bag'),
        (['--images', str(tmp_path / 'none')], 'is no folder'),
        (['--images', str(folder / 'model')], 'has no pictures'),
        (['--images', str(folder / 'pictures'), '--part', 'half'], "part is 'half'"),
    ):
        result = CliRunner().invoke(
            app, ['adapt', str(folder / 'model'), '--output', str(tmp_path / 'x'), *arguments]
        )
        assert result.exit_code == 1
        assert words in ' '.join(result.output.split())


def test_a_picture_that_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / 'broken.png'
    broken.write_bytes(b'none')
    detector = load_model(folder / 'detector').detector
    with pytest.raises(ValueError, match=r'broken\.png is no picture'):
        write_detections(detector, [broken], tmp_path / 'data')


def test_images_of_a_bag(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (6, 8, 3), np.uint8) for _ in range(3)]
    write_image_bag(tmp_path / 'bag', pictures)
    found = find_pictures(extract_images(tmp_path / 'bag', tmp_path / 'images'))
    assert len(found) == 3
    for path, picture in zip(found, pictures, strict=True):
        np.testing.assert_array_equal(cv2.imread(str(path))[:, :, ::-1], picture)
    some = find_pictures(extract_images(tmp_path / 'bag', tmp_path / 'some', most=2))
    assert [path.name for path in some] == [found[0].name, found[2].name]
    with pytest.raises(BagError):
        extract_images(tmp_path / 'bag', tmp_path / 'other', ['/elsewhere'])

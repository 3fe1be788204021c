"""Variants measured side by side, the baselines' comparison, importance, and their commands."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

from msfc.cli.main import app
from msfc.data import CocoDataset
from msfc.detectors import base
from msfc.evaluation import image_codecs
from msfc.evaluation.baselines import (
    Method,
    envelope,
    equal_precision_table,
    feature_jpeg_method,
    image_methods,
    range_table,
    thin_out,
)
from msfc.evaluation.bootstrap import MEASURES, BootstrapResult, Interval
from msfc.evaluation.coco_map import average_precision, to_coco_results
from msfc.evaluation.feature_jpeg import FeatureJpeg
from msfc.evaluation.image_codecs import DownscalingCodec, JpegCodec
from msfc.evaluation.image_settings import CHOSEN, SCALES
from msfc.evaluation.importance import (
    LevelVariances,
    importance_variants,
    level_variances,
    noisy,
    size_table,
)
from msfc.evaluation.measurement import Measurement, measure
from msfc.evaluation.plots import Series, plot_importance, plot_rates
from msfc.evaluation.studies import baselines, importance
from msfc.evaluation.variants import (
    Coded,
    FeaturesAsJpeg,
    ImageSent,
    SourceImage,
    Uncompressed,
    network_size,
)
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline, image_to_tensor
from msfc.wire.message_size import compressed_feature_bytes, compressed_image_bytes
from msfc.wire.quantizer import BIT_DEPTHS
from tiny import TinyDetector, tiny_model

HEIGHT, WIDTH = 96, 128


class FindingDetector(TinyDetector):
    """Finds what is red and what is blue; its results change with what it is given."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            for channel, (red, blue) in enumerate(((1, -1), (-1, 1))):
                weights = torch.tensor([red, 0, blue]) / 16
                self.backbone['p2'].weight[channel] = weights[:, None, None]
                self.backbone['p2'].bias[channel] = 0

    def infer(
        self, pyramid: base.Pyramid, sizes: base.ImageSizes
    ) -> list[base.Instances]:
        """Return one instance per class, wherever the finest level has its colour."""
        found = []
        for features, size in zip(pyramid['p2'], sizes.source, strict=True):
            maps = features[:2][None]
            maps = torch.nn.functional.interpolate(maps, size, mode='bilinear')[0]
            masks = maps > 0.35
            boxes = torch.tensor([self.box(mask) for mask in masks])
            scores = torch.sigmoid(maps.amax((1, 2)) + sum(v.mean() for v in pyramid.values()))
            scores, order = scores.sort(descending=True)
            found.append(base.Instances(boxes[order], scores, order, masks[order]))
        return found

    @staticmethod
    def box(mask: torch.Tensor) -> list[float]:
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        if not len(rows):
            return [0.0, 0.0, 1.0, 1.0]
        top, bottom = int(rows.min()), int(rows.max()) + 1
        return [float(columns.min()), float(top), float(columns.max()) + 1, float(bottom)]


@pytest.fixture
def detector() -> FindingDetector:
    torch.manual_seed(3)
    return FindingDetector().eval()


@pytest.fixture
def dataset(tmp_path: Path) -> CocoDataset:
    """Ten images, each with something red, a cup, and something blue, a ball."""
    rng = np.random.default_rng(0)
    folder = tmp_path / 'data' / 'test'
    folder.mkdir(parents=True)
    images, annotations = [], []
    for image_id in range(1, 11):
        pixels = rng.integers(0, 60, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        for category in (1, 2):
            x, y = int(rng.integers(0, 70)), int(rng.integers(0, 50))
            w, h = int(rng.integers(20, 55)), int(rng.integers(20, 45))
            mask = np.zeros((HEIGHT, WIDTH), np.uint8, order='F')
            mask[y : y + h, x : x + w] = 1
            pixels[mask > 0] = (20, 40, 230) if category == 1 else (230, 40, 20)
            rle = coco_mask.encode(mask)
            annotations.append({
                'id': len(annotations) + 1, 'image_id': image_id, 'category_id': category,
                'bbox': [x, y, w, h], 'area': int(mask.sum()), 'iscrowd': 0,
                'segmentation': {'size': [HEIGHT, WIDTH], 'counts': rle['counts'].decode()},
            })
        cv2.imwrite(str(folder / f'{image_id}.png'), pixels)
        images.append({
            'id': image_id, 'file_name': f'{image_id}.png', 'height': HEIGHT, 'width': WIDTH
        })
    content = {
        'images': images, 'annotations': annotations,
        'categories': [{'id': 1, 'name': 'cup'}, {'id': 2, 'name': 'ball'}],
    }
    path = tmp_path / 'data' / 'annotations' / 'instances_test.json'
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    return CocoDataset(tmp_path / 'data', 'test')


def test_uncompressed_is_the_detector(detector: FindingDetector, dataset: CocoDataset) -> None:
    (measured,) = measure(dataset, [Uncompressed(detector)], replicates=20)
    results = []
    with torch.inference_mode():
        for index, image_id in enumerate(dataset.image_ids):
            batch = detector.preprocess([image_to_tensor(dataset.read_image(index))])
            (found,) = detector.infer(detector.extract(batch), batch.sizes)
            results += to_coco_results(image_id, found, dataset.category_ids)
    expected = average_precision(dataset.coco, results)
    assert measured.precision.values == pytest.approx(expected, abs=1e-9)
    assert 0 < expected['mask_map50'] < 1
    assert measured.payload_bytes is None
    row = measured.to_dict(measured)
    assert row['mask_map_change'] == {'value': 0, 'low': 0, 'high': 0}
    assert json.loads(json.dumps(row, allow_nan=False)) == row


@pytest.mark.parametrize('bits', BIT_DEPTHS)
def test_coded_is_what_goes_over_the_wire(dataset: CocoDataset, bits: int) -> None:
    """The variant finds what the two pipelines find, and counts the packet's bytes."""
    model = tiny_model()
    source = SourceImage(1, dataset.read_image(0))
    with torch.inference_mode():
        outcome = Coded(model, bits).run(source)
    packet = edge_pipeline(model, bits).encode(source.image)
    result = CloudPipeline(model).decode(packet)
    assert outcome.payload_bytes == len(packet.data)
    torch.testing.assert_close(outcome.instances.scores, result.instances.scores)
    torch.testing.assert_close(outcome.instances.boxes, result.instances.boxes)
    assert torch.equal(outcome.instances.masks, result.instances.masks)


def test_image_sent_small_has_results_in_camera_pixels(
    detector: FindingDetector, dataset: CocoDataset
) -> None:
    scaled = network_size(detector)
    assert scaled((HEIGHT, WIDTH)) == (72, 96)
    source = SourceImage(1, dataset.read_image(0))
    codec = DownscalingCodec(JpegCodec('4:4:4'), scaled)
    with torch.inference_mode():
        whole = ImageSent(detector, JpegCodec('4:4:4'), 95).run(source)
        small = ImageSent(detector, codec, 95).run(source)
    assert small.payload_bytes is not None
    assert whole.payload_bytes is not None
    assert small.payload_bytes < whole.payload_bytes
    assert small.instances.masks.shape == whole.instances.masks.shape == (2, HEIGHT, WIDTH)
    both = small.instances.masks & whole.instances.masks
    assert both.sum() > 0.9 * (small.instances.masks | whole.instances.masks).sum()
    assert small.message_bytes == compressed_image_bytes(small.payload_bytes, 'jpeg')
    assert small.encode_seconds is not None
    assert 0 < small.encode_seconds < 10


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without what no two runs have alike."""
    return {key: value for key, value in row.items() if key != 'encode_seconds'}


def test_many_variants_and_going_on_after_a_break(
    detector: FindingDetector, dataset: CocoDataset, tmp_path: Path
) -> None:
    model = tiny_model()
    model.detector = detector
    variants = [
        Uncompressed(detector),
        Coded(model, 4),
        FeaturesAsJpeg(detector, FeatureJpeg(20)),
        ImageSent(detector, JpegCodec(), 10),
        *importance_variants(detector, 4.0)[1:3],
    ]
    whole = measure(dataset, variants, replicates=30)

    def stop(done: int, total: int) -> None:
        assert total == 60
        if done == 25:
            raise KeyboardInterrupt

    options: dict[str, Any] = {
        'journals': tmp_path / 'journal', 'settings': {'a': 1}, 'replicates': 30
    }
    with pytest.raises(KeyboardInterrupt):
        measure(dataset, variants, progress=stop, **options)
    steps: list[int] = []
    again = measure(dataset, variants, progress=lambda done, _: steps.append(done), **options)
    assert steps == list(range(25, 61))
    for one, other in zip(whole, again, strict=True):
        assert without_times(one.to_dict(whole[0])) == without_times(other.to_dict(again[0]))
    by_name = {entry.variant: entry for entry in whole}
    assert len(by_name) == 6
    jpeg = by_name['JPEG 4:2:0 q=10']
    assert jpeg.payload_bytes is not None
    assert jpeg.bits_per_pixel == pytest.approx(8 * jpeg.payload_bytes / (HEIGHT * WIDTH))
    coded = by_name['n=4']
    assert coded.payload_bytes == 3 * 3 * 3 * 4 / 8 + 0.5  # 13.5 bytes are 14
    elements = 8 * sum(-(-96 // s) * -(-96 // s) for s in (4, 8, 16, 32, 64))
    assert coded.payload_bpfe == pytest.approx(8 * 14 / elements)
    assert coded.message_bytes == compressed_feature_bytes(14)
    steps.clear()
    measure(dataset, variants, progress=lambda done, _: steps.append(done),
            **{**options, 'settings': {'a': 2}})
    assert steps[0] == 0


class BreakingCodec(JpegCodec):
    """Fails at its third image."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded = 0

    def encode(self, image: Any, quality: int) -> bytes:
        self.encoded += 1
        if self.encoded == 3:
            raise ValueError('no third image')
        return super().encode(image, quality)


def test_an_image_is_encoded_once_and_a_failing_encoder_is_told(
    detector: FindingDetector, dataset: CocoDataset, tmp_path: Path
) -> None:
    codec = BreakingCodec()
    variants = [Uncompressed(detector), ImageSent(detector, codec, 10)]
    options: dict[str, Any] = {'journals': tmp_path / 'journal', 'replicates': 5}
    with pytest.raises(ValueError, match='no third image'):
        measure(dataset, variants, **options)
    assert codec.encoded == 3
    # What was finished is kept.
    measure(dataset, variants, **options)
    assert codec.encoded == 3 + 8


def test_wrong_measurements_are_refused(detector: FindingDetector, dataset: CocoDataset) -> None:
    plain = Uncompressed(detector)
    with pytest.raises(ValueError, match='two variants are named uncompressed'):
        measure(dataset, [plain, plain])
    with pytest.raises(ValueError, match='no image 99'):
        measure(dataset, [plain], [1, 99])
    with pytest.raises(ValueError, match='the detector knows dog'):
        measure(dataset, [Uncompressed(TinyDetector(['dog']))])
    with pytest.raises(ValueError, match='no codec'):
        Coded(tiny_model(codec=False))


def test_noise_has_its_variance_and_its_place(detector: FindingDetector) -> None:
    pyramid = detector.extract(detector.preprocess([torch.zeros(3, 640, 640, dtype=torch.uint8)]))
    changed = noisy(pyramid, 'p3', 9.0, 'image', 1)
    for level, features in pyramid.items():
        assert (changed[level] is features) == (level != 'p3')
    difference = (changed['p3'] - pyramid['p3']).detach()
    assert float(difference.var()) == pytest.approx(9, rel=0.15)
    assert float(difference.mean()) == pytest.approx(0, abs=0.5)
    again = noisy(pyramid, 'p3', 9.0, 'image', 1)
    assert torch.equal(again['p3'], changed['p3'])
    for key, seed in (('other', 1), ('image', 2)):
        assert not torch.equal(noisy(pyramid, 'p3', 9.0, key, seed)['p3'], changed['p3'])
    assert torch.equal(noisy(pyramid, 'p2', 0.0)['p2'], pyramid['p2'])
    with pytest.raises(ValueError, match='not p7'):
        noisy(pyramid, 'p7', 1.0)
    with pytest.raises(ValueError, match='variance'):
        noisy(pyramid, 'p2', -1.0)


def test_importance_compares_all_levels(detector: FindingDetector, dataset: CocoDataset) -> None:
    variants = importance_variants(detector, 25.0)
    assert [variant.name for variant in variants] == [
        'no noise', *(f'noise on p{k}' for k in range(2, 7))
    ]
    clean, p2, *_ = measure(dataset, variants, replicates=0)
    # This detector takes its masks from p2.
    assert p2.precision.values['mask_map50'] < clean.precision.values['mask_map50']


def test_variances_of_features(detector: FindingDetector, dataset: CocoDataset) -> None:
    collected = LevelVariances()
    with pytest.raises(ValueError, match='no features'):
        collected.variances()
    parts = [torch.randn(1, 4, 9, 9) * 3 + 1 for _ in range(3)]
    for part in parts:
        collected.add({'p2': part})
    expected = float(torch.cat(parts).double().var(correction=0))
    assert collected.variances()['p2'] == pytest.approx(expected)
    assert collected.pooled() == pytest.approx(expected)
    found = level_variances(detector, dataset, dataset.image_ids[:2])
    assert set(found.variances()) == {'p2', 'p3', 'p4', 'p5', 'p6'}


def test_sizes_are_the_papers() -> None:
    """Table 1 at the paper's size: 7 times the elements of the image, 30 times the bits."""
    from msfc.codecs.msfc.codec import MSFC, MSFCConfig
    from msfc.detectors.torchvision import TorchvisionConfig, TorchvisionDetector
    from msfc.model import SplitModel

    with torch.device('meta'):
        detector = TorchvisionDetector(TorchvisionConfig(class_names=('a',)))
        model = SplitModel(detector, MSFC(MSFCConfig()))
    rows = {row.name: row for row in size_table(detector, (800, 1216), model)}
    assert rows['p2'].shape == (256, 200, 304)
    assert rows['p6'].shape == (256, 13, 19)
    pyramid = rows['p2 .. p6']
    assert pyramid.elements == 256 * (200 * 304 + 100 * 152 + 50 * 76 + 25 * 38 + 13 * 19)
    assert pyramid.elements_ratio == pytest.approx(7.1, abs=0.05)
    assert pyramid.bits_ratio == pytest.approx(28.4, abs=0.1)
    code = rows['code, n=4']
    assert code.shape == (64, 25, 38)
    assert code.bits == 64 * 25 * 38 * 4
    assert code.bits / pyramid.elements == pytest.approx(0.0117, abs=5e-5)


def fake(name: str, sent: float | None, value: float) -> Measurement:
    rng = np.random.default_rng(len(name))
    replicates = {k: value + rng.normal(0, 0.001, 50) for k in MEASURES}
    result = BootstrapResult(dict.fromkeys(MEASURES, value), replicates)
    return Measurement(name, 5, result, sent, sent, sent, sent)


def test_table_of_equal_precision(detector: FindingDetector) -> None:
    jpeg = Method('JPEG', tuple(ImageSent(detector, JpegCodec(), q) for q in (5, 50, 90)))
    names = [variant.name for variant in jpeg.variants]
    measured = {
        name: fake(name, sent, value)
        for name, sent, value in zip(names, (1000, 4000, 9000), (0.2, 0.4, 0.5), strict=True)
    }
    points = [
        fake('n=2', 500, 0.2), fake('n=4', 2000, 0.4), fake('n=8', 9000, 0.4),
        fake('n=16', 9000, 0.6), fake('n=1', 100, 0.1), fake('n=32', 5000, 0.1),
    ]
    rows = equal_precision_table([jpeg], points, measured)
    assert [row['ratio'] for row in rows] == pytest.approx([2, 2, 4 / 9, None, 10, 0.2])
    assert rows[0]['sentence'] == 'n=2 (500 bytes) needs 1/2.00 of the bytes of JPEG'
    assert rows[2]['sentence'] == 'n=8 (9,000 bytes) needs 2.25 times the bytes of JPEG'
    assert 'never reaches' in rows[3]['sentence']
    assert rows[4]['status'] == 'at most'
    assert 'undecided' in rows[4]['sentence']
    assert 'needs at least 5.00 times the bytes of JPEG' in rows[5]['sentence']
    assert rows[1]['ratio_interval']['low'] < 2 < rows[1]['ratio_interval']['high']
    json.dumps(rows, allow_nan=False)
    with pytest.raises(ValueError, match='sends nothing'):
        equal_precision_table([jpeg], [fake('n=4', None, 0.3)], measured)


def test_envelope_has_the_best_setting_for_its_bytes(detector: FindingDetector) -> None:
    methods = [
        Method(f'JPEG {kind}', tuple(ImageSent(detector, JpegCodec(kind), q) for q in (5, 50)))
        for kind in ('4:2:0', '4:4:4')
    ]
    figures = {
        'JPEG 4:2:0 q=5': (1000, 0.2), 'JPEG 4:2:0 q=50': (3000, 0.3),
        'JPEG 4:4:4 q=5': (1500, 0.15), 'JPEG 4:4:4 q=50': (2000, 0.4),
    }
    measured = {name: fake(name, *figure) for name, figure in figures.items()}
    rows = envelope(methods, measured)
    assert [(row['bytes'], row['setting']) for row in rows] == [
        (1000, 'JPEG 4:2:0 q=5'), (2000, 'JPEG 4:4:4 q=50'),
    ]
    assert rows[1]['method'] == 'JPEG 4:4:4'
    assert rows[1]['mask_map'] == rows[1]['box_map'] == 0.4
    assert envelope([], measured) == []
    table = range_table(methods, [fake('n=2', 500, 0.25), fake('n=4', 800, 0.29)], measured)
    (first, second) = table
    assert (first['method'], first['low'], first['high']) == ('JPEG 4:2:0', 0.25, 0.29)
    assert first['ratio'] > 2
    assert first['interval']['low'] <= first['ratio'] <= first['interval']['high']
    assert second['method'] == 'JPEG 4:4:4'
    json.dumps([rows, table], allow_nan=False)
    with pytest.raises(ValueError, match='sends nothing'):
        range_table(methods, [fake('n=4', None, 0.3)], measured)


def test_chosen_settings_are_of_codecs_that_exist(detector: FindingDetector) -> None:
    codecs, missing = image_codecs.find_codecs()
    names = {codec.name for codec in codecs}
    here = {name for name in CHOSEN if name.split()[0] not in missing}
    assert here <= names
    for ways in CHOSEN.values():
        for scale, qualities in ways.items():
            assert scale in SCALES
            assert list(qualities) == sorted(set(qualities))
    some = [codec for codec in codecs if codec.name in here and codec.name != 'AVIF 4:2:0']
    for method in image_methods(detector, some):
        wanted = [codec.name for codec in some if codec.name.startswith(method.name)]
        count = sum(len(q) for name in wanted for q in CHOSEN[name].values())
        assert len(method.variants) == count > 4
    # A subsampling that was nowhere best is left out, unless all are asked for.
    left_out = [codec for codec in codecs if codec.name == 'AVIF 4:2:0']
    assert not image_methods(detector, left_out)
    assert len(image_methods(detector, left_out, grid=True)) == len(left_out)


def test_methods_have_unlike_names(detector: FindingDetector) -> None:
    codecs, _ = image_codecs.find_codecs()
    methods = [feature_jpeg_method(detector), *image_methods(detector, codecs, settings=3)]
    names = [variant.name for method in methods for variant in method.variants]
    assert len(set(names)) == len(names)
    kinds = [method.name for method in methods]
    assert kinds[:2] == ['feature JPEG', 'JPEG']
    assert len(methods[1].variants) == 2 * 2 * 3  # subsamplings, scales, qualities
    jpeg = [codec for codec in codecs if codec.name.startswith('JPEG')]
    (whole,) = image_methods(detector, jpeg, downscale=False, settings=3)
    assert len(whole.variants) == 2 * 3
    (everything,) = image_methods(detector, jpeg, grid=True)
    assert len(everything.variants) == len(SCALES) * sum(len(k.qualities) for k in jpeg)
    names = [variant.name for variant in everything.variants]
    assert len(set(names)) == len(names)
    assert thin_out((1, 2, 3, 4, 5), 3) == [1, 3, 5]
    assert thin_out((1, 2), 3) == [1, 2]
    with pytest.raises(ValueError, match='two settings'):
        thin_out((1, 2, 3), 1)


def message_store() -> Any:
    rosbags = pytest.importorskip('rosbags.typesys', reason='rosbags is not in this environment')
    path = Path(__file__).resolve().parents[2] / 'msfc_msgs' / 'msg' / 'CompressedFeature.msg'
    store = rosbags.get_typestore(rosbags.Stores.ROS2_JAZZY)
    name = 'msfc_msgs/msg/CompressedFeature'
    store.register(rosbags.get_types_from_msg(path.read_text(), name))
    return store


@pytest.mark.parametrize('frame_id', ['', 'a', 'abc', 'camera_optical_frame'])
@pytest.mark.parametrize('count', [0, 1, 4801])
def test_message_sizes_are_the_serialisers(frame_id: str, count: int) -> None:
    store = message_store()
    types = store.types
    stamp = types['builtin_interfaces/msg/Time'](sec=1, nanosec=2)
    header = types['std_msgs/msg/Header'](stamp=stamp, frame_id=frame_id)
    data = np.zeros(count, np.uint8)
    feature = types['msfc_msgs/msg/CompressedFeature'](
        header=header, sequence=1, reference=0, image_height=1, image_width=1,
        valid_height=1, valid_width=1, padded_height=1, padded_width=1, channels=1,
        feature_height=1, feature_width=1, rate=4, coding=0, model='0123456789abcdef',
        preprocess_time=0.0, backbone_time=0.0, encode_time=0.0, pack_time=0.0, data=data,
    )
    raw = store.serialize_cdr(feature, 'msfc_msgs/msg/CompressedFeature')
    assert len(raw) == compressed_feature_bytes(count, frame_id)
    for encoding in ('jpeg', 'h.264'):
        image = types['sensor_msgs/msg/CompressedImage'](
            header=header, format=encoding, data=data
        )
        raw = store.serialize_cdr(image, 'sensor_msgs/msg/CompressedImage')
        assert len(raw) == compressed_image_bytes(count, encoding, frame_id)


def interval(value: float) -> Interval:
    return Interval(value, value - 0.02, value + 0.01)


def test_plots_are_written(tmp_path: Path) -> None:
    nan = float('nan')
    lines = [
        Series('MSFC', (0.01, 0.02, 0.004), tuple(map(interval, (0.4, 0.5, 0.1)))),
        Series('JPEG', (0.1, 0.2), (interval(0.4), Interval(0.5, nan, nan)), True),
    ]
    for name in ('a.png', 'b.pdf', 'c.svg'):
        left_out = plot_rates(
            {'box mAP': lines, 'mask mAP': lines[:1]}, {'box mAP': interval(0.55)},
            tmp_path / name, floor=0.3,
        )
        assert left_out == [
            'box mAP: 1 of 3 points of MSFC are under 0.3 and not shown',
            'mask mAP: 1 of 3 points of MSFC are under 0.3 and not shown',
        ]
        assert (tmp_path / name).stat().st_size > 5000
    first = (tmp_path / 'c.svg').read_text()
    assert 'uncompressed' in first
    assert 'points under 0.3 not shown: 1' in first
    levels = {f'p{k}': {'mask mAP': interval(0.1 * k)} for k in range(2, 7)}
    plot_importance(levels, {'mask mAP': interval(0.6)}, tmp_path / 'd.svg', 'noise')
    assert 'level with noise' in (tmp_path / 'd.svg').read_text()
    with pytest.raises(ValueError, match=r'\.png, \.pdf, \.svg'):
        plot_importance(levels, {'mask mAP': interval(0.6)}, tmp_path / 'd.bmp')
    with pytest.raises(ValueError, match='nothing to draw'):
        plot_rates({}, {}, tmp_path / 'a.png')


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, detector: FindingDetector) -> Any:
    """Run a command, with a small model in place of a model file."""
    models = {'tiny': tiny_model(), 'other': tiny_model(seed=1)}
    for model in models.values():
        model.detector = detector
    for study in (baselines, importance):
        monkeypatch.setattr(study, 'load_model', lambda name, *_: models[name])

    def invoke(*arguments: str | Path, status: int = 0) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == status, result.output
        return ' '.join(result.output.split()) + ' ' + result.stderr

    invoke.model = models['tiny']
    return invoke


def test_command_baselines(run: Any, dataset: CocoDataset, tmp_path: Path) -> None:
    arguments = (
        'baselines', 'tiny', '--data', dataset.images.parent, '--output', tmp_path / 'out',
        '--bits', '4', '--bits', '8', '--codec', 'JPEG', '--quick', '--replicates', '20',
    )
    told = run(*arguments)
    assert told.count('its figures mean nothing') == 2
    out = tmp_path / 'out' / 'quick'
    assert told.count('(14 bytes)') == told.count('(27 bytes)') == 2
    report = json.loads((out / 'baselines.json').read_text())
    assert report['reference'] == 'uncompressed'
    assert report['notes'] == ['quick: a check that it works; its figures mean nothing']
    assert report['bootstrap'] == {'replicates': 20, 'confidence': 0.95}
    assert (report['data']['images'], report['data']['images_in_split']) == (8, 10)
    assert len(report['data']['annotations_sha256']) == 16
    assert report['encoders']['OpenCV'] == cv2.__version__
    assert report['encoders']['avif_speed'] == 4
    (coded,) = report['models']
    assert (coded['label'], coded['code_channels']) == ('tiny', 3)
    assert report['reference_detector']['code_channels'] is None
    # The detector, two bit depths, six settings of features and twelve of JPEG.
    assert len(report['rows']) == 1 + 2 + 6 + 12
    assert {row['images'] for row in report['rows']} == {8}
    assert len(report['equal_precision']) == 2 * 2 * 2
    for kind in ('box_map', 'mask_map'):
        rows = report['envelope'][kind]
        assert all(row['method'] == 'JPEG' for row in rows)
        assert [row[kind] for row in rows] == sorted({row[kind] for row in rows})
        assert [row['bytes'] for row in rows] == sorted(row['bytes'] for row in rows)
    assert 'the best image codec and setting for its bytes' in told
    with (out / 'baselines.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 21
    assert float(rows[1]['mask_map_value']) == report['rows'][1]['mask_map']['value']
    for name in ('bpfe', 'bytes'):
        for suffix in ('png', 'pdf'):
            assert (out / f'baselines-{name}.{suffix}').is_file()
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['quick']
    run(*arguments, '--beside', 'other')
    both = json.loads((out / 'baselines.json').read_text())
    assert [model['label'] for model in both['models']] == ['tiny', 'other']
    added = [row['variant'] for row in both['rows'] if row not in report['rows']]
    assert added == [f'other, n={n}' for n in (2, 4, 8, 16, 32)]
    run(*arguments)
    assert json.loads((out / 'baselines.json').read_text()) == report
    # Another codec behind the same detector is compared with what is measured already.
    journals = len(list((out / 'journal').iterdir()))
    with torch.no_grad():
        run.model.get_parameter('codec.analysis.encoder.conv.weight').mul_(0.5)
    run(*arguments)
    assert len(list((out / 'journal').iterdir())) == journals + 2
    assert 'no codec TIFF' in run(*arguments, '--codec', 'TIFF', status=1)


def test_command_importance(run: Any, dataset: CocoDataset, tmp_path: Path) -> None:
    told = run(
        'importance', 'tiny', '--data', dataset.images.parent, '--output', tmp_path / 'out',
        '--variance', '0.5', '--relative', '--limit', '4', '--replicates', '10',
    )
    assert 'noise on p6' in told
    assert 'p2 .. p6' in told
    report = json.loads((tmp_path / 'out' / 'importance.json').read_text())
    mean = sum(report['feature_variances'].values()) / 5
    assert report['variance'] == pytest.approx(mean / 2, rel=1e-3)
    assert report['data']['split'] == 'test'
    assert report['models'][0]['code_channels'] == 3
    assert report['notes'] == []
    assert [row['name'] for row in report['sizes']][-1] == 'code, n=4'
    assert (tmp_path / 'out' / 'importance.png').is_file()


def test_command_data_coco(run: Any, dataset: CocoDataset, tmp_path: Path) -> None:
    root = dataset.images.parent
    told = run(
        'data', 'coco', root / 'annotations' / 'instances_test.json', root / 'test',
        tmp_path / 'out', '--count', '4', '--class', 'cup',
    )
    assert '4 of 10 images with 4 objects of 1 classes' in told
    assert len(CocoDataset(tmp_path / 'out', 'test')) == 4
    assert 'error:' in run('data', 'coco', 'no.json', root, tmp_path / 'out', status=1)

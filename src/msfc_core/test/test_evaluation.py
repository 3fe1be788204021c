"""Average precision by COCO's rules, and the bits beside it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torchmetrics.detection import MeanAveragePrecision

from msfc.data import CocoDataset
from msfc.evaluation import average_precision, evaluate_instances, to_coco_results
from msfc.evaluation.evaluate import evaluate_model
from msfc.model import SplitModel
from msfc.pipeline.torch_network import edge_pipeline
from msfc.types import Instances, Targets
from msfc.wire.accounting import bits_per_pixel, payload_bpfe
from tiny import TinyDetector, tiny_model
from tiny_data import CLASS_NAMES, HEIGHT, WIDTH, write_data

NAMES = ('cup', 'ball', 'pen')
KEYS = ('box_map', 'mask_map', 'box_map50', 'mask_map50')


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    return CocoDataset(write_data(tmp_path_factory.mktemp('data')), 'val')


def squares(*boxes, labels=None, size=(64, 64)):
    """Return targets that fill their boxes."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return Targets(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels or [0] * len(boxes), dtype=torch.int64),
        masks,
    )


def found(targets, scores=None):
    """Return targets as if they had been detected."""
    count = len(targets.labels)
    return Instances(
        targets.boxes, torch.tensor(scores or [0.9] * count), targets.labels, targets.masks
    )


def test_perfect_detections_have_precision_one():
    truth = squares((5, 5, 25, 25), (30, 30, 60, 50), labels=[0, 2])
    figures = evaluate_instances([found(truth)], [truth], NAMES)
    assert figures == pytest.approx(dict.fromkeys(KEYS, 1.0))


def test_a_shift_counts_at_the_thresholds_that_it_still_meets():
    # 20 x 20 shifted by 4: IoU 320 / 480 = 0.667, which meets 0.50, 0.55, 0.60 and 0.65 of ten.
    truth, shifted = squares((10, 10, 30, 30)), squares((14, 10, 34, 30))
    figures = evaluate_instances([found(shifted)], [truth], NAMES)
    assert figures['box_map'] == pytest.approx(0.4)
    assert figures['mask_map'] == pytest.approx(0.4)
    assert figures['box_map50'] == pytest.approx(1.0)


def test_boxes_and_masks_are_measured_apart():
    truth = squares((10, 10, 30, 30))
    half = Instances(truth.boxes, torch.tensor([0.9]), truth.labels, truth.masks.clone())
    half.masks[:, 20:] = False
    figures = evaluate_instances([half], [truth], NAMES)
    assert figures['box_map'] == pytest.approx(1.0)
    assert figures['mask_map'] == pytest.approx(0.1)


def test_a_surer_false_detection_halves_the_precision():
    truth = squares((10, 10, 30, 30))
    both = squares((10, 10, 30, 30), (40, 40, 60, 60))
    figures = evaluate_instances([found(both, [0.5, 0.9])], [truth], NAMES)
    assert figures['box_map'] == pytest.approx(0.5)


def test_another_class_is_no_hit():
    truth = squares((10, 10, 30, 30))
    figures = evaluate_instances([found(squares((10, 10, 30, 30), labels=[1]))], [truth], NAMES)
    assert figures == pytest.approx(dict.fromkeys(KEYS, 0.0))


def test_nothing_found_is_zero_and_nothing_to_find_is_not_a_number():
    nothing, truth = squares(), squares((10, 10, 30, 30))
    assert evaluate_instances([found(nothing)], [truth], NAMES) == dict.fromkeys(KEYS, 0.0)
    for detections in (nothing, truth):
        figures = evaluate_instances([found(detections)], [nothing], NAMES)
        assert all(math.isnan(figures[key]) for key in KEYS)


def test_results_and_truths_must_be_as_many():
    with pytest.raises(ValueError, match='1 results but 0'):
        evaluate_instances([found(squares())], [], NAMES)


@pytest.mark.parametrize('seed', range(4))
def test_figures_are_those_of_torchmetrics(seed):
    generator = torch.Generator().manual_seed(seed)

    def numbers(high, count):
        return torch.randint(0, high, (count,), generator=generator).tolist()

    metric = MeanAveragePrecision(
        iou_type=('bbox', 'segm'),
        # Its own are COCO's rounded to single precision, which decides differently at ties.
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0.0, 1.0, 101).tolist(),
        backend='pycocotools',
    )
    detections, truths = [], []
    for _ in range(6):
        boxes = [
            (x, y, x + 8 + w, y + 8 + h)
            for x, y, w, h in zip(*(numbers(k, 5) for k in (30, 30, 20, 20)), strict=True)
        ]
        truth = squares(*boxes, labels=numbers(3, 5))
        moved = [
            (x1 + dx, y1 + dy, x2 + dx, y2 + dy)
            for (x1, y1, x2, y2), dx, dy in zip(boxes, numbers(5, 5), numbers(5, 5), strict=True)
        ]
        scores = torch.rand(5, generator=generator).tolist()
        detected = found(squares(*moved, labels=numbers(3, 2) + truth.labels[2:].tolist()), scores)
        detections.append(detected)
        truths.append(truth)
        metric.update(
            [{'boxes': detected.boxes, 'scores': detected.scores, 'labels': detected.labels,
              'masks': detected.masks}],
            [{'boxes': truth.boxes, 'labels': truth.labels, 'masks': truth.masks}],
        )
    expected = metric.compute()
    figures = evaluate_instances(detections, truths, NAMES)
    assert 0 < figures['box_map'] < 1
    for kind, prefix in (('box', 'bbox'), ('mask', 'segm')):
        assert figures[f'{kind}_map'] == pytest.approx(float(expected[f'{prefix}_map']), abs=1e-6)
        assert figures[f'{kind}_map50'] == pytest.approx(
            float(expected[f'{prefix}_map_50']), abs=1e-6
        )


def results_of_truth(dataset, images):
    """Return perfect detections of a data set's first images."""
    results = []
    for index in range(images):
        example = dataset[index]
        results += to_coco_results(
            example.image_id, found(example.targets), dataset.category_ids
        )
    return results


def test_a_crowd_is_neither_missed_nor_a_false_detection(dataset):
    ids = dataset.image_ids
    results = results_of_truth(dataset, len(dataset))
    assert average_precision(dataset.coco, results)['mask_map'] == pytest.approx(1.0)
    crowd = next(k for k in dataset.coco.anns.values() if k['iscrowd'])
    detected = {
        'image_id': crowd['image_id'], 'category_id': crowd['category_id'],
        'bbox': crowd['bbox'], 'segmentation': crowd['segmentation'], 'score': 1.0,
    }
    figures = average_precision(dataset.coco, [*results, detected])
    assert figures['box_map'] == pytest.approx(1.0)
    assert figures['mask_map'] == pytest.approx(1.0)
    for nothing in ([], [detected]):
        figures = average_precision(dataset.coco, nothing, [crowd['image_id']])
        assert all(math.isnan(figures[key]) for key in KEYS)
    assert average_precision(dataset.coco, [], ids)['box_map'] == 0.0


def test_only_the_given_images_count(dataset):
    results = results_of_truth(dataset, 1)
    before = [dict(result) for result in results]
    first = average_precision(dataset.coco, results, dataset.image_ids[:1])
    assert first['box_map'] == pytest.approx(1.0)
    assert average_precision(dataset.coco, results)['box_map'] < 0.6
    assert results == before


def test_a_model_is_measured_with_the_bits_that_are_sent(dataset):
    for bits in (2, 8):
        model, done = tiny_model(rate=bits), []
        (row,) = evaluate_model(
            model, dataset, limit=2, progress=lambda *counts, done=done: done.append(counts)
        )
        assert row.variant == f'n={bits}'
        assert done == [(0, 2), (1, 2), (2, 2)]
        packet = edge_pipeline(model).encode(dataset.read_image(0))
        sent = len(packet.data)
        sizes = model.detector.pyramid_sizes((packet.padded_height, packet.padded_width))
        assert row.images == 2
        assert row.payload_bytes == sent
        assert row.payload_bpfe == pytest.approx(payload_bpfe(sent, sizes, 8))
        assert row.bits_per_pixel == pytest.approx(bits_per_pixel(sent, (HEIGHT, WIDTH)))


def test_a_measured_model_gives_what_its_forward_pass_finds(dataset):
    model = tiny_model(seed=4)
    (figures,) = evaluate_model(model, dataset)
    results = []
    for index, image_id in enumerate(dataset.image_ids):
        (instances,) = model([dataset[index].image])
        results += to_coco_results(image_id, instances, dataset.category_ids)
    assert figures.variant == 'n=4'
    expected = average_precision(dataset.coco, results)
    assert figures.box_map == pytest.approx(expected['box_map'])
    assert figures.mask_map == pytest.approx(expected['mask_map'])


def test_a_model_without_codec_is_measured_as_a_detector(dataset):
    (figures,) = evaluate_model(tiny_model(codec=False), dataset, limit=1)
    assert figures.variant == 'uncompressed'
    assert figures.payload_bytes == figures.payload_bpfe == figures.bits_per_pixel == 0


def test_other_classes_are_refused(dataset):
    other = SplitModel(TinyDetector(('fork', 'ball')))
    with pytest.raises(ValueError, match=r'fork, ball; the data set has cup, ball'):
        evaluate_model(other, dataset)
    assert tiny_model().class_names == CLASS_NAMES


def test_figures_are_json_even_where_there_is_nothing_to_find(dataset, tmp_path):
    (figures,) = evaluate_model(tiny_model(), dataset, limit=1)
    values = {**figures.to_dict(), 'box_map': float('nan')}
    assert json.loads(json.dumps(type(figures)(**values).to_dict()))['box_map'] is None

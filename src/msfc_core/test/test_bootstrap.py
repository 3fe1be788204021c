"""Bootstrap intervals against pycocotools run again on each resampled data set."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from msfc.evaluation.bootstrap import (
    KINDS,
    ImageMatches,
    bootstrap_precision,
    draw_weights,
    first_at_least,
    hits_needed,
    percentile_interval,
)

SIZE = 48


def rectangle(x: int, y: int, w: int, h: int) -> dict[str, Any]:
    mask = np.zeros((SIZE, SIZE), np.uint8, order='F')
    mask[y : y + h, x : x + w] = 1
    rle = coco_mask.encode(mask)
    return {'size': [SIZE, SIZE], 'counts': rle['counts'].decode()}


def make_world(
    seed: int, images: int = 12, classes: int = 3, ties: bool = False
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return annotations and detections of random boxes, crowds and empty images among them."""
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image_id in range(1, images + 1):
        for _ in range(rng.integers(0, 5)):
            x, y = (int(v) for v in rng.integers(0, 24, 2))
            w, h = (int(v) for v in rng.integers(6, 22, 2))
            category = int(rng.integers(1, classes + 1))
            annotations.append({
                'id': len(annotations) + 1, 'image_id': image_id, 'category_id': category,
                'bbox': [x, y, w, h], 'area': w * h, 'segmentation': rectangle(x, y, w, h),
                'iscrowd': int(rng.random() < 0.15),
            })
            for _ in range(rng.integers(0, 3)):
                dx, dy, dw, dh = (int(v) for v in rng.integers(-3, 4, 4))
                box = max(x + dx, 0), max(y + dy, 0), max(w + dw, 2), max(h + dh, 2)
                wrong = rng.random() < 0.2
                score = float(rng.integers(1, 5)) / 4 if ties else float(rng.random())
                results.append({
                    'image_id': image_id,
                    'category_id': int(rng.integers(1, classes + 1)) if wrong else category,
                    'bbox': [float(v) for v in box], 'segmentation': rectangle(*box),
                    'score': score,
                })
    data = {
        'images': [{'id': k, 'height': SIZE, 'width': SIZE} for k in range(1, images + 1)],
        'categories': [{'id': k, 'name': f'class{k}'} for k in range(1, classes + 1)],
        'annotations': annotations,
    }
    return data, results


def load(data: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def plain_precision(
    data: dict[str, Any], results: list[dict[str, Any]], kind: str
) -> tuple[float, float]:
    """Return what pycocotools says, its settings untouched."""
    truth = load(data)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes([dict(r) for r in results]), KINDS[kind])
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = [v if v >= 0 else float('nan') for v in evaluation.stats[:2]]
    return values[0], values[1]


def resample(
    data: dict[str, Any], results: list[dict[str, Any]], weights: np.ndarray
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the data set that has each image as often as it was drawn."""
    images, annotations, found = [], [], []
    for image, times in zip(data['images'], weights, strict=True):
        for _ in range(times):
            image_id = len(images) + 1
            images.append({**image, 'id': image_id})
            for entry in data['annotations']:
                if entry['image_id'] == image['id']:
                    annotations.append(
                        {**entry, 'image_id': image_id, 'id': len(annotations) + 1}
                    )
            found += [
                {**entry, 'image_id': image_id}
                for entry in results
                if entry['image_id'] == image['id']
            ]
    return {**data, 'images': images, 'annotations': annotations}, found


@pytest.mark.parametrize('kind', ['box', 'mask'])
@pytest.mark.parametrize('seed', range(4))
def test_equals_pycocotools_run_again(kind: str, seed: int) -> None:
    data, results = make_world(seed)
    matches = ImageMatches(load(data), results, kind)
    weights = draw_weights(len(data['images']), 15, seed)
    got = matches.average_precision(weights)
    for row, drawn in zip(got, weights, strict=True):
        expected = plain_precision(*resample(data, results, drawn), kind)
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('kind', ['box', 'mask'])
@pytest.mark.parametrize('ties', [False, True])
def test_point_equals_pycocotools(kind: str, ties: bool) -> None:
    for seed in range(6):
        data, results = make_world(seed, images=30, classes=4, ties=ties)
        got = ImageMatches(load(data), results, kind).average_precision()[0]
        expected = plain_precision(data, results, kind)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_images_can_be_chosen() -> None:
    data, results = make_world(7)
    chosen = [2, 3, 5, 8]
    some = {
        **data,
        'images': [image for image in data['images'] if image['id'] in chosen],
        'annotations': [a for a in data['annotations'] if a['image_id'] in chosen],
    }
    found = [r for r in results if r['image_id'] in chosen]
    got = bootstrap_precision(load(data), results, chosen, replicates=0).values
    assert got['mask_map'] == pytest.approx(plain_precision(some, found, 'mask')[0], abs=1e-12)


def test_nothing_found_is_zero() -> None:
    data, _ = make_world(1)
    result = bootstrap_precision(load(data), [], replicates=5)
    assert set(result.values.values()) == {0.0}
    assert result.interval('box_map').high == 0.0


def test_nothing_to_find_is_no_number() -> None:
    data, results = make_world(1)
    result = bootstrap_precision(load({**data, 'annotations': []}), results, replicates=3)
    assert all(np.isnan(value) for value in result.values.values())
    assert np.isnan(result.interval('mask_map').low)


def test_results_are_left_alone() -> None:
    data, results = make_world(2)
    before = [dict(result) for result in results]
    bootstrap_precision(load(data), results, replicates=2)
    assert results == before


def test_more_detections_than_count() -> None:
    """Of 150 detections of a class in an image the best 100 count."""
    data = {
        'images': [{'id': 1, 'height': SIZE, 'width': SIZE}],
        'categories': [{'id': 1, 'name': 'a'}],
        'annotations': [{
            'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [1, 1, 10, 10], 'area': 100,
            'segmentation': rectangle(1, 1, 10, 10), 'iscrowd': 0,
        }],
    }
    results = [
        {
            'image_id': 1, 'category_id': 1, 'score': 1 - k / 200,
            'bbox': [1, 1, 10, 10] if k == 120 else [30, 30, 5, 5],
            'segmentation': rectangle(1, 1, 10, 10) if k == 120 else rectangle(30, 30, 5, 5),
        }
        for k in range(150)
    ]
    assert plain_precision(data, results, 'box') == (0.0, 0.0)
    assert ImageMatches(load(data), results, 'box').average_precision()[0].tolist() == [0, 0]


def test_interval_and_difference() -> None:
    data, results = make_world(3, images=40)
    truth = load(data)
    good = bootstrap_precision(truth, results, replicates=200, seed=1)
    worse = bootstrap_precision(truth, results[::2], replicates=200, seed=1)
    interval = good.interval('box_map')
    assert interval.low < interval.value < interval.high
    gap = good.difference(worse, 'box_map')
    assert gap.value == pytest.approx(good.values['box_map'] - worse.values['box_map'])
    assert gap.low > 0
    same = good.difference(good, 'box_map')
    assert (same.value, same.low, same.high) == (0, 0, 0)
    again = bootstrap_precision(truth, results, replicates=200, seed=1)
    assert again.interval('mask_map') == good.interval('mask_map')
    with pytest.raises(ValueError, match='paired'):
        good.difference(bootstrap_precision(truth, results, replicates=3), 'box_map')


def test_weights_draw_as_many_as_there_are() -> None:
    weights = draw_weights(50, 400)
    assert weights.shape == (400, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(50), abs=0.25)
    assert draw_weights(3, 0).shape == (0, 3)
    with pytest.raises(ValueError, match='cannot be drawn'):
        draw_weights(0, 1)


def test_wrong_use_is_refused() -> None:
    data, results = make_world(1)
    with pytest.raises(ValueError, match='unknown kind'):
        ImageMatches(load(data), results, 'keypoints')
    with pytest.raises(ValueError, match='no images'):
        ImageMatches(load(data), results, 'box', [])
    matches = ImageMatches(load(data), results, 'box')
    with pytest.raises(ValueError, match='for 12 images'):
        matches.average_precision(np.ones((2, 3), np.int64))
    with pytest.raises(ValueError, match='negative'):
        matches.average_precision(-np.ones((1, 12), np.int64))
    with pytest.raises(ValueError, match='confidence'):
        percentile_interval(0.5, np.zeros(3), 1.0)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=20))
def test_hits_needed_compares_as_pycocotools(objects: list[int]) -> None:
    recalls = np.linspace(0.0, 1.0, 101)
    needed = hits_needed(np.array(objects), recalls)
    for number, row in zip(objects, needed, strict=True):
        shares = np.arange(number + 1) / number
        assert row.tolist() == np.searchsorted(shares, recalls, side='left').tolist()


@settings(max_examples=50)
@given(st.data())
def test_first_at_least(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 4))
    length = data.draw(st.integers(1, 8))
    numbers = st.lists(st.integers(0, 3), min_size=length, max_size=length)
    rising = np.cumsum([data.draw(numbers) for _ in range(rows)], axis=1)
    wanted = np.array([data.draw(st.lists(st.integers(0, 30), min_size=5, max_size=5))
                       for _ in range(rows)])
    got = first_at_least(rising, wanted)
    for values, want, places in zip(rising, wanted, got, strict=True):
        assert places.tolist() == np.searchsorted(values, want, side='left').tolist()

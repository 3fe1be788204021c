"""Average precision by COCO's rules (pycocotools), for boxes and masks."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from msfc.types import Instances, Targets

KINDS = {'box': 'bbox', 'mask': 'segm'}
"""pycocotools' names of what is compared."""


def _encode(mask: NDArray[np.bool_]) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {'size': [int(side) for side in rle['size']], 'counts': rle['counts'].decode()}


def to_coco_results(
    image_id: int, instances: Instances, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return one image's instances in COCO's result format.

    Args:
        image_id: of the image.
        instances: what was found in it.
        category_ids: COCO category id of each label.
    """
    results = []
    for index in range(len(instances)):
        x1, y1, x2, y2 = (float(value) for value in instances.boxes[index])
        results.append({
            'image_id': image_id,
            'category_id': category_ids[int(instances.labels[index])],
            'bbox': [x1, y1, x2 - x1, y2 - y1],
            'segmentation': _encode(instances.masks[index].cpu().numpy()),
            'score': float(instances.scores[index]),
        })
    return results


def average_precision(
    truth: COCO, results: Sequence[dict[str, Any]], image_ids: Sequence[int] | None = None
) -> dict[str, float]:
    """Return box and mask average precision.

    Args:
        truth: the annotations.
        results: detections in COCO's result format.
        image_ids: the images to measure on; all by default.

    Returns:
        ``box_map`` and ``mask_map`` over IoU 0.50:0.95 and ``box_map50`` and ``mask_map50`` at
        0.50, each 0 to 1; NaN where no image has an object.
    """
    figures: dict[str, float] = {}
    # pycocotools cannot load an empty list.
    if not results:
        measured = truth.getImgIds() if image_ids is None else image_ids
        annotations = truth.loadAnns(truth.getAnnIds(imgIds=measured))
        wanted = any(not annotation.get('iscrowd') for annotation in annotations)
        nothing = 0.0 if wanted else float('nan')
        return {f'{kind}_{name}': nothing for kind in KINDS for name in ('map', 'map50')}
    with contextlib.redirect_stdout(io.StringIO()):
        # loadRes writes into what it is given.
        found = truth.loadRes([dict(result) for result in results])
    for kind, iou_type in KINDS.items():
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(truth, found, iou_type)
            if image_ids is not None:
                evaluation.params.imgIds = sorted(image_ids)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        # summarize() gives -1 where there is nothing to find.
        stats = [value if value >= 0 else float('nan') for value in evaluation.stats[:2]]
        figures[f'{kind}_map'], figures[f'{kind}_map50'] = (float(value) for value in stats)
    return figures


def evaluate_instances(
    found: Sequence[Instances], truth: Sequence[Targets], class_names: Sequence[str]
) -> dict[str, float]:
    """Return box and mask average precision of a few images held in memory.

    Args:
        found: instances per image.
        truth: ground truth per image, in the same order.
        class_names: names of the classes, by label.

    Returns:
        As :func:`average_precision`.

    Raises:
        ValueError: the two sequences differ in length.
    """
    if len(found) != len(truth):
        raise ValueError(f'{len(found)} results but {len(truth)} ground truths')
    category_ids = range(1, len(class_names) + 1)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image_id, (instances, targets) in enumerate(zip(found, truth, strict=True), start=1):
        height, width = targets.masks.shape[-2:]
        images.append({'id': image_id, 'height': int(height), 'width': int(width)})
        for index in range(len(targets.labels)):
            x1, y1, x2, y2 = (float(value) for value in targets.boxes[index])
            annotations.append({
                'id': len(annotations) + 1,
                'image_id': image_id,
                'category_id': category_ids[int(targets.labels[index])],
                'bbox': [x1, y1, x2 - x1, y2 - y1],
                'segmentation': _encode(targets.masks[index].cpu().numpy()),
                'area': int(targets.masks[index].sum()),
                'iscrowd': 0,
            })
        results += to_coco_results(image_id, instances, category_ids)
    coco = COCO()
    coco.dataset = {
        'images': images,
        'annotations': annotations,
        'categories': [
            {'id': k, 'name': name} for k, name in zip(category_ids, class_names, strict=True)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return average_precision(coco, results)

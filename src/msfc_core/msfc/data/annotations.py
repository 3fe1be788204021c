"""The one check of COCO annotations: what passes it can be trained and measured with.

pycocotools draws whatever it is given: run lengths that do not fill the image, or are none, hang
or crash it, and a polygon with NaN takes all memory. So entries are looked at before it sees them.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

BOX_SLACK = 1.0
"""Pixels that a box may be out of its image: COCO's own are, by rounding."""

NO_IMAGE = 'no such image'
EMPTY_BOX = 'the box is empty'


def annotation_fault(
    entry: dict[str, Any], image: dict[str, Any] | None, categories: set[Any]
) -> str | None:
    """Return what is wrong with an annotation, or None.

    Args:
        entry: the annotation.
        image: its image's entry, None if there is none.
        categories: ids that there are.
    """
    if image is None:
        return NO_IMAGE
    if entry['category_id'] not in categories:
        return 'no such category'
    box = entry.get('bbox')
    if not isinstance(box, list) or len(box) != 4 or not _are_numbers(box):
        return 'the box is not four numbers'
    x, y, width, height = box
    if width < 0 or height < 0:
        return 'the box has a negative side'
    rows, columns = image['height'], image['width']
    if (
        min(x, y) < -BOX_SLACK
        or x + width > columns + BOX_SLACK
        or y + height > rows + BOX_SLACK
    ):
        return 'the box leaves the image'
    fault = _segmentation_fault(entry.get('segmentation'), rows, columns)
    return fault or (EMPTY_BOX if is_empty_box(box) else None)


def is_empty_box(box: list[float]) -> bool:
    """Return whether a box ``x y width height`` has no extent in single precision.

    Networks compute in it: a box that is empty there has an IoU of NaN, and so has the loss.
    """
    x, y, width, height = (np.float32(value) for value in box)
    return not (x + width > x and y + height > y)


def make_ids_unique(entries: list[dict[str, Any]]) -> None:
    """Number annotations anew, in place, if their ids are not unique whole numbers above 0.

    pycocotools takes an object of id 0 for one that was never found, and of two of one id it loses
    one.
    """
    ids = Counter(entry['id'] for entry in entries)
    if any(count > 1 or not isinstance(key, int) or key < 1 for key, count in ids.items()):
        for number, entry in enumerate(entries, start=1):
            entry['id'] = number


def run_lengths(text: Any) -> list[int] | None:
    """Return COCO's compressed run lengths, or None if they are broken.

    pycocotools would read beyond a broken text. Five bits per character, the sixth says that more
    follow; from the third run on, differences to the last but one.
    """
    if not isinstance(text, str) or not text.isascii():
        return None
    runs: list[int] = []
    value, shift, open_run = 0, 0, False
    for code in text.encode():
        code -= 48
        if not 0 <= code < 64 or shift > 30:
            return None
        value |= (code & 31) << shift
        shift += 5
        open_run = bool(code & 32)
        if not open_run:
            if code & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    return None if open_run else runs


def _segmentation_fault(segmentation: Any, rows: int, columns: int) -> str | None:
    if isinstance(segmentation, list):
        return _polygons_fault(segmentation, rows, columns)
    if not isinstance(segmentation, dict) or not {'size', 'counts'} <= set(segmentation):
        return 'there is no mask'
    if segmentation['size'] != [rows, columns]:
        return "the mask has not its image's size"
    counts = segmentation['counts']
    whole = isinstance(counts, list) and all(type(run) is int for run in counts)
    runs = counts if whole else run_lengths(counts)
    if runs is None or min(runs, default=-1) < 0:
        return 'the run lengths are not counts'
    if sum(runs) != rows * columns:
        return 'the run lengths do not fill the image'
    return None if sum(runs[1::2]) else 'the mask is empty'


def _polygons_fault(polygons: list[Any], rows: int, columns: int) -> str | None:
    if not polygons:
        return 'the mask is empty'
    for polygon in polygons:
        if not isinstance(polygon, list) or not _are_numbers(polygon):
            return 'the mask is no list of polygons'
        if len(polygon) < 6 or len(polygon) % 2:
            return 'a polygon has no three corners'
        # pycocotools draws the whole outline, however far out it is.
        for numbers, side in ((polygon[::2], columns), (polygon[1::2], rows)):
            if min(numbers) < -side or max(numbers) > 2 * side:
                return 'a polygon leaves the image'
    return None


def _are_numbers(values: list[Any]) -> bool:
    """Return whether all are finite numbers."""
    try:
        return {type(value) for value in values} <= {int, float} and all(
            map(math.isfinite, values)
        )
    except OverflowError:  # a whole number beyond any float
        return False

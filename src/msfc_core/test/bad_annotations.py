"""Annotations of no use, by what the check says of them; images are HEIGHT x WIDTH."""

from __future__ import annotations

from typing import Any

HEIGHT, WIDTH = 40, 50


def runs(counts: Any, size: tuple[int, int] = (HEIGHT, WIDTH)) -> dict[str, Any]:
    return {'segmentation': {'size': list(size), 'counts': counts}}


BAD_ANNOTATIONS: list[tuple[dict[str, Any], str]] = [
    ({'image_id': 7}, 'no such image'),
    ({'category_id': 9}, 'no such category'),
    ({'bbox': None}, 'the box is not four numbers'),
    ({'bbox': [1, 2, 3]}, 'the box is not four numbers'),
    ({'bbox': [1, 2, 3, float('nan')]}, 'the box is not four numbers'),
    ({'bbox': [1, 2, float('inf'), 3]}, 'the box is not four numbers'),
    ({'bbox': [1, 2, 3, 10**400]}, 'the box is not four numbers'),
    ({'bbox': [1, 2, True, 3]}, 'the box is not four numbers'),
    ({'bbox': [1, 2, -3, 5]}, 'the box has a negative side'),
    ({'bbox': [1, 2, 1e38, 5]}, 'the box leaves the image'),
    ({'bbox': [40.0, 2, 1e-9, 5]}, 'the box is empty'),
    ({'bbox': [1, 2, 0, 5]}, 'the box is empty'),
    ({'bbox': [40, 2, 20, 5]}, 'the box leaves the image'),
    ({'bbox': [-5, 2, 20, 5]}, 'the box leaves the image'),
    ({'segmentation': None}, 'there is no mask'),
    ({'segmentation': []}, 'the mask is empty'),
    ({'segmentation': [[1, 2, 3, 4]]}, 'a polygon has no three corners'),
    ({'segmentation': [[1, 2, 3, 4, 5, 6, 7]]}, 'a polygon has no three corners'),
    ({'segmentation': [['a'] * 6]}, 'the mask is no list of polygons'),
    ({'segmentation': [[5, 5, 20, 5, 20, float('nan')]]}, 'the mask is no list of polygons'),
    ({'segmentation': [[]]}, 'a polygon has no three corners'),
    ({'segmentation': [[5, 5, 20, 5, 20, 1e9]]}, 'a polygon leaves the image'),
    ({'segmentation': [[5, 5, -60, 5, 20, 15]]}, 'a polygon leaves the image'),
    (runs([12], (3, 4)), "the mask has not its image's size"),
    ({'segmentation': {'size': 5, 'counts': [2000]}}, "the mask has not its image's size"),
    (runs([12]), 'the run lengths do not fill the image'),
    (runs([2000]), 'the mask is empty'),
    (runs([-1, 2001]), 'the run lengths are not counts'),
    (runs([12.5, 1987.5]), 'the run lengths are not counts'),
    (runs([2**64, 2000]), 'the run lengths do not fill the image'),
    (runs('~~~~'), 'the run lengths are not counts'),
    (runs('P'), 'the run lengths are not counts'),
    (runs('o' * 40), 'the run lengths are not counts'),
    (runs('ü'), 'the run lengths are not counts'),
    (runs('55'), 'the run lengths do not fill the image'),
]

"""Makes the COCO objects of an image from OpenImages' masks and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from msfc.data.annotations import annotation_fault
from msfc.data.files import image_size, is_cut_off
from msfc.data.openimages.media import MediaFiles
from msfc.data.openimages.official_files import Box, BoxRow, MaskRow
from msfc.types import Size

SAME_BOX_IOU = 0.9  # a mask's box and the box file's are one box, but for rounding
MAX_ASPECT_ERROR = 0.03  # of a mask against its image: beyond, it is another (a turned) image's


def convert_image(
    media: MediaFiles, image: str, masks: Sequence[MaskRow], boxes: Sequence[BoxRow]
) -> dict[str, Any]:
    """Return what the journal has of an image: file, size, annotations, and what is wrong."""
    path = media.images[image]
    record: dict[str, Any] = {
        'stamp': media.stamp(image), 'size': None, 'objects': [], 'missing': [], 'unusable': []
    }
    try:
        size = image_size(path)
        if is_cut_off(path):
            return record
    except OSError:
        return record
    record['size'] = list(size)
    groups = [row.group for row in boxes]
    free = list(range(len(boxes)))
    for row in masks:
        place = _same_box(row, boxes, free)
        if place is not None:
            free.remove(place)
        if not media.has_mask(row.path):
            record['missing'].append(row.path)
            rle = None
        else:
            mask = media.read_mask(row.path)
            rle = None if mask is None or _other_shape(mask, size) else mask_to_rle(mask, size)
            if rle is None:
                record['unusable'].append(row.path)
        crowd = rle is None or (place is not None and groups[place])
        record['objects'].append(_annotation(row.label, row.box, size, rle, crowd))
    for place in free:
        record['objects'].append(
            _annotation(boxes[place].label, boxes[place].box, size, None, True)
        )
    record['objects'] = [entry for entry in record['objects'] if entry is not None]
    return record


def mask_to_rle(mask: NDArray[Any], size: Size) -> dict[str, Any] | None:
    """Resize a mask to its image and encode it as COCO does.

    Args:
        mask: h x w, or h x w x colours; the object is where it is not zero.
        size: height and width of the image in pixels.

    Returns:
        Run lengths, or None if nothing of the object is left.
    """
    colours = mask.reshape(*mask.shape[:2], -1)[..., :3]  # not how opaque they are
    flat = np.asarray(colours.max(axis=-1) > 0, np.uint8)
    if flat.shape != tuple(size):
        shrinks = flat.shape[0] > size[0] or flat.shape[1] > size[1]
        # Shares of object in each pixel, of which the larger half are object: no jagged outlines.
        shares = cv2.resize(
            flat.astype(np.float32), (size[1], size[0]),
            interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
        )
        # A little under a half, so that halves do not fall to either side by rounding.
        flat = (shares > 0.499).astype(np.uint8)
    if not flat.any():
        return None
    rle = coco_mask.encode(np.asfortranarray(flat))
    return {'size': [int(side) for side in size], 'counts': rle['counts'].decode('ascii')}


def _same_box(row: MaskRow, boxes: Sequence[BoxRow], free: list[int]) -> int | None:
    """Return which of the free boxes a mask was drawn in."""
    fitting = [(_iou(row.box, boxes[k].box), -k) for k in free if boxes[k].label == row.label]
    best, place = max(fitting, default=(0.0, 0))
    return -place if best >= SAME_BOX_IOU else None


def _iou(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def _other_shape(mask: NDArray[Any], size: Size) -> bool:
    """Return whether a mask has other proportions than its image, rounding allowed for."""
    height, width = mask.shape[:2]
    error = abs(np.log(height * size[1] / (width * size[0])))
    return bool(error > MAX_ASPECT_ERROR + 1 / min(height, width) + 1 / min(size))


def _annotation(
    label: int, box: Box, size: Size, rle: dict[str, Any] | None, crowd: bool
) -> dict[str, Any] | None:
    """Return an object as COCO has it, without ids; None if it is of no use."""
    height, width = size
    x1, y1, x2, y2 = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    if x2 - x1 <= 0 or y2 - y1 <= 0:
        return None
    if rle is None:
        corners = [x1, y1, x2, y1, x2, y2, x1, y2]
        region = coco_mask.merge(coco_mask.frPyObjects([corners], height, width))
        rle = {'size': [height, width], 'counts': region['counts'].decode('ascii')}
    entry = {
        'category_id': label,
        'bbox': [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
        'segmentation': rle,
        'area': int(coco_mask.area(rle)),
        'iscrowd': int(crowd),
    }
    # Of a box thinner than a pixel nothing may be left.
    image = {'height': height, 'width': width}
    return None if annotation_fault(entry, image, {label}) else entry

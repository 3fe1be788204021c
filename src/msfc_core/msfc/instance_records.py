"""Detected instances as the messages carry them: whole-pixel boxes, masks cropped to them.

The nodes and the offline tools make their messages of these, so that they say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msfc.mask_runs import pack_mask
from msfc.types import Instances, Size

MASK_FORMS = ('packed', 'plain', 'both')
"""What a message has of a mask: run lengths, a byte per pixel, or both."""

MASK_INSIDE = 255
"""Value of a mask's pixels on the object."""


@dataclass(frozen=True)
class InstanceRecord:
    """One instance, with exactly the fields of ``msfc_msgs/Instance``: messages are made of them.

    Attributes:
        id: value of its pixels in the label map, from 1.
        track_id: identity of the object over time, from 1; 0 where it is not known.
        class_id: index of its class, from 0.
        class_name: name of its class.
        score: confidence, 0 to 1.
        x: column of the box's left edge.
        y: row of its upper edge.
        width: columns of the box.
        height: rows of the box.
        mask: height x width bytes in row order, :data:`MASK_INSIDE` or 0; or none.
        packed_mask: the same by :func:`msfc.mask_runs.pack_mask`; or none.
        keypoints: column, row and sureness of each keypoint, one after the other; empty where the
            model finds none.
    """

    id: int
    track_id: int
    class_id: int
    class_name: str
    score: float
    x: int
    y: int
    width: int
    height: int
    mask: NDArray[np.uint8]
    packed_mask: NDArray[np.uint8]
    keypoints: NDArray[np.float32]


def instance_records(
    instances: Instances, size: Size, class_names: Sequence[str], masks: str = MASK_FORMS[0]
) -> list[InstanceRecord]:
    """Return instances in the form of the messages.

    Boxes are widened to whole pixels and to all pixels of the mask, and cut at the image border.
    An instance with nothing inside the image has a box and a mask without pixels.

    Args:
        instances: K instances; the masks are K x H x W.
        size: height and width of the camera image in pixels.
        class_names: names of the classes, by label.
        masks: one of :data:`MASK_FORMS`.

    Raises:
        ValueError: if there is no such form.
    """
    if masks not in MASK_FORMS:
        raise ValueError(f'masks are {", ".join(MASK_FORMS)}, not {masks!r}')
    none = np.empty(0, np.uint8)
    pixels = instances.masks.cpu().numpy().astype(bool, copy=False)
    boxes = instances.boxes.cpu().numpy()
    scores = instances.scores.tolist()
    labels = instances.labels.tolist()
    tracks = [0] * len(labels) if instances.track_ids is None else instances.track_ids.tolist()
    keypoints = (
        np.zeros((len(labels), 0), np.float32) if instances.keypoints is None
        else instances.keypoints.cpu().numpy().astype(np.float32).reshape(len(labels), -1)
    )
    records = []
    for index, label in enumerate(labels):
        x1, y1, x2, y2 = _whole_box(boxes[index], pixels[index], size)
        crop = pixels[index, y1:y2, x1:x2]
        records.append(
            InstanceRecord(
                id=index + 1,
                track_id=tracks[index],
                class_id=label,
                class_name=class_names[label],
                score=scores[index],
                x=x1,
                y=y1,
                width=x2 - x1,
                height=y2 - y1,
                mask=none if masks == 'packed' else _plain(crop),
                packed_mask=none if masks == 'plain' else pack_mask(crop),
                keypoints=keypoints[index],
            )
        )
    return records


def _plain(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return (mask.astype(np.uint8) * np.uint8(MASK_INSIDE)).reshape(-1)


def _whole_box(
    box: NDArray[np.float32], mask: NDArray[np.bool_], size: Size
) -> tuple[int, int, int, int]:
    """Return x1 y1 x2 y2 in whole pixels: the box and every pixel of the mask, in the image."""
    x1, y1 = np.floor(box[:2]).astype(int)
    x2, y2 = np.ceil(box[2:]).astype(int)
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    if rows.size:
        x1, x2 = min(x1, columns[0]), max(x2, columns[-1] + 1)
        y1, y2 = min(y1, rows[0]), max(y2, rows[-1] + 1)
    height, width = size
    x1, x2 = int(np.clip(x1, 0, width)), int(np.clip(x2, 0, width))
    y1, y2 = int(np.clip(y1, 0, height)), int(np.clip(y2, 0, height))
    return x1, y1, max(x1, x2), max(y1, y2)

"""Pictures of instances: drawn onto an image, and as a label map."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from msfc.types import Instances, Size

# Successive hues a golden angle apart: neighbours in the list never look alike.
GOLDEN_ANGLE = 0.381966


def class_colour(label: int) -> tuple[int, int, int]:
    """Return the colour of a class, BGR, 0 to 255."""
    hue = (label * GOLDEN_ANGLE) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75 if label % 2 else 0.55, 1.0)
    return (round(255 * blue), round(255 * green), round(255 * red))


def draw_instances(
    image: NDArray[np.uint8], instances: Instances, class_names: Sequence[str]
) -> NDArray[np.uint8]:
    """Draw masks, boxes, track ids (where known), names and scores.

    Args:
        image: H x W x 3 uint8 BGR; it is not changed.
        instances: K instances in this image's pixels.
        class_names: names of the classes, by label.

    Returns:
        The picture, H x W x 3 uint8 BGR.
    """
    picture = image.copy()
    scale = max(0.35, image.shape[0] / 960)
    # Weakest first, so that the surest instances lie on top.
    for index in reversed(range(len(instances))):
        label = int(instances.labels[index])
        colour = class_colour(label)
        mask = instances.masks[index].cpu().numpy()
        if mask.any():
            tinted = picture[mask] * 0.5 + np.array(colour) * 0.5
            picture[mask] = tinted.astype(np.uint8)
            outline, _ = cv2.findContours(
                mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
            )
            cv2.drawContours(picture, outline, -1, colour, max(1, round(2 * scale)))
        x1, y1, x2, y2 = (round(float(value)) for value in instances.boxes[index])
        cv2.rectangle(picture, (x1, y1), (x2, y2), colour, 1)
        text = f'{class_names[label]} {float(instances.scores[index]):.2f}'
        if instances.track_ids is not None and (track := int(instances.track_ids[index])):
            text = f'#{track} {text}'
        (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        bottom = max(y1, height + below)
        cv2.rectangle(picture, (x1, bottom - height - below), (x1 + width, bottom), colour, -1)
        cv2.putText(
            picture, text, (x1, bottom - below // 2), cv2.FONT_HERSHEY_SIMPLEX, scale,
            (0, 0, 0), 1, cv2.LINE_AA,
        )
    return picture


def label_map(instances: Instances, size: Size) -> NDArray[np.uint16]:
    """Return which instance each pixel belongs to.

    Args:
        instances: K instances, best first; where masks overlap, the better one is on top.
        size: height and width of the image in pixels.

    Returns:
        H x W: 0 for background, k + 1 for instance k.
    """
    labels = np.zeros(size, np.uint16)
    for index in reversed(range(len(instances))):
        labels[instances.masks[index].cpu().numpy()] = index + 1
    return labels

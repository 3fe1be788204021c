"""Average precision of the frames so far."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from msfc_msgs.msg import InstanceArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from msfc.evaluation import average_precision, to_coco_results
from msfc.types import Instances
from msfc_ros.messages import instances_from_message

MIN_AREA = 256
"""True objects with fewer visible pixels are not asked for, as in the data set's annotations."""


class RunningAccuracy:
    """Collects frames; masks are kept as run lengths.

    Args:
        class_names: names of the model's classes, by label.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self._names = tuple(class_names)
        self._ids = range(1, len(class_names) + 1)
        self._images: list[dict[str, int]] = []
        self._annotations: list[dict[str, Any]] = []
        self._results: list[dict[str, Any]] = []
        self.unknown: set[str] = set()

    def add(self, found: Instances, truth: InstanceArray) -> None:
        """Add a frame. True classes that the model does not have are noted as unknown.

        Raises:
            ValueError: if the message contradicts itself.
        """
        self.unknown.update({item.class_name for item in truth.instances} - set(self._names))
        if self.unknown:
            return
        number = len(self._images) + 1
        self._images.append(
            {'id': number, 'height': truth.image_height, 'width': truth.image_width}
        )
        self._results += to_coco_results(number, found, self._ids)
        for annotation in to_coco_results(number, self._truth(truth), self._ids):
            area = int(coco_mask.area(annotation['segmentation']))
            annotation.update(
                id=len(self._annotations) + 1, area=area, iscrowd=int(area < MIN_AREA)
            )
            self._annotations.append(annotation)

    def _truth(self, message: InstanceArray) -> Instances:
        """Return the true instances with the model's labels, which may have another order."""
        labels = [self._names.index(item.class_name) for item in message.instances]
        return replace(
            instances_from_message(message), labels=torch.tensor(labels, dtype=torch.int64)
        )

    def compute(self) -> dict[str, float]:
        """Return ``box_map``, ``mask_map`` and more, see :func:`average_precision`.

        Empty where a true class is unknown to the model: the two speak of different things.
        """
        if self.unknown or not self._images:
            return {}
        truth = COCO()
        truth.dataset = {
            'images': self._images,
            'annotations': self._annotations,
            'categories': [
                {'id': k, 'name': name} for k, name in zip(self._ids, self._names, strict=True)
            ],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            truth.createIndex()
        # Copies, as pycocotools writes into what it is given.
        return average_precision(truth, [dict(result) for result in self._results])

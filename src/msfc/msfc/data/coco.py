"""Reads a COCO-format data set."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from pycocotools.coco import COCO
from torch import Tensor
from torch.utils.data import Dataset

from msfc.detectors.base import Targets


@dataclass(frozen=True)
class Example:
    """One image of a data set.

    Attributes:
        image_id: its id in the annotation file.
        image: 3 x H x W uint8 RGB.
        targets: its objects, those marked ``iscrowd`` left out.
    """

    image_id: int
    image: Tensor
    targets: Targets

    def flipped(self) -> Example:
        """Return the mirror image, left and right swapped."""
        width = self.image.shape[-1]
        boxes = self.targets.boxes.clone()
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        targets = Targets(boxes, self.targets.labels, self.targets.masks.flip(-1))
        return Example(self.image_id, self.image.flip(-1), targets)


def read_annotations(path: Path) -> COCO:
    """Read a COCO annotation file without pycocotools' chatter.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a COCO annotation file.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} is missing: write the data first (msfc data tabletop --help), or give --data'
        )
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(path))
        missing = {'images', 'annotations', 'categories'} - set(coco.dataset)
    except (ValueError, AssertionError, KeyError, TypeError) as error:
        raise ValueError(f'{path} is not a COCO annotation file: {error}') from error
    if missing:
        raise ValueError(f'{path} is not a COCO annotation file: no {", ".join(sorted(missing))}')
    return coco


class CocoDataset(Dataset[Example]):
    """Images and instance masks of one split, ``<root>/<split>`` with COCO annotations.

    Args:
        root: folder of the data set, with ``annotations/instances_<split>.json``.
        split: name of the split and of its image folder, such as ``train`` or ``val2017``.
        only_with_objects: leave out images that have no usable object, as training does.

    Raises:
        FileNotFoundError: the annotation file is missing.
        ValueError: it is not a COCO annotation file, or it has no images.
    """

    def __init__(self, root: Path, split: str, only_with_objects: bool = False) -> None:
        self.images = root / split
        self.coco = read_annotations(root / 'annotations' / f'instances_{split}.json')
        self.category_ids: list[int] = sorted(self.coco.cats)
        self.class_names = tuple(self.coco.cats[k]['name'] for k in self.category_ids)
        self._label = {category: k for k, category in enumerate(self.category_ids)}
        self.image_ids: list[int] = sorted(self.coco.imgs)
        if only_with_objects:
            self.image_ids = [k for k in self.image_ids if self._objects(k)]
        if not self.image_ids:
            raise ValueError(f'{root}, split {split}: no images to use')

    def _objects(self, image_id: int) -> list[dict]:
        return [
            annotation
            for annotation in self.coco.imgToAnns[image_id]
            if not annotation.get('iscrowd') and min(annotation['bbox'][2:]) > 0
        ]

    def __len__(self) -> int:
        return len(self.image_ids)

    def read_image(self, index: int) -> np.ndarray:
        """Return an image as H x W x 3 uint8 BGR, as OpenCV reads it.

        Raises:
            FileNotFoundError: it is missing or no image.
        """
        path = self.images / self.coco.imgs[self.image_ids[index]]['file_name']
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise FileNotFoundError(f'{path} is missing or not an image')
        return image

    def __getitem__(self, index: int) -> Example:
        """Return an image with its objects.

        Raises:
            FileNotFoundError: the image is missing or no image.
            ValueError: it has another size than the annotations say.
        """
        image_id = self.image_ids[index]
        image = cv2.cvtColor(self.read_image(index), cv2.COLOR_BGR2RGB)
        entry = self.coco.imgs[image_id]
        if image.shape[:2] != (entry['height'], entry['width']):
            path = self.images / entry['file_name']
            raise ValueError(
                f'{path} is {image.shape[1]} x {image.shape[0]} pixels, '
                f'the annotations say {entry["width"]} x {entry["height"]}'
            )
        objects = self._objects(image_id)
        boxes = np.array([found['bbox'] for found in objects], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = np.zeros((len(objects), *image.shape[:2]), bool)
        for mask, found in zip(masks, objects, strict=True):
            mask[:] = self.coco.annToMask(found)
        targets = Targets(
            boxes=torch.from_numpy(boxes),
            labels=torch.tensor([self._label[found['category_id']] for found in objects]).long(),
            masks=torch.from_numpy(masks),
        )
        return Example(image_id, torch.from_numpy(image).permute(2, 0, 1), targets)

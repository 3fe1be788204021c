"""Reads a COCO-format data set."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools.coco import COCO
from torch import Tensor
from torch.utils.data import Dataset

from msfc.data.annotations import (
    EMPTY_BOX,
    NO_IMAGE,
    annotation_fault,
    is_empty_box,
    make_ids_unique,
)
from msfc.data.files import is_cut_off, is_turned
from msfc.types import Targets

MAX_SIDE = 2**20
"""Pixels of an image's side at most: OpenCV reads no larger ones."""

_NEEDED = {
    'images': ('id', 'file_name', 'height', 'width'),
    'annotations': ('id', 'image_id', 'category_id'),
    'categories': ('id', 'name'),
}


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


def read_coco(path: Path) -> dict[str, Any]:
    """Read a COCO annotation file; its form is checked, not what it says.

    Returns:
        ``images``, ``annotations`` and ``categories``, lists of entries that have ids and what
        else is needed to know one by, and whatever else the file has.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a COCO annotation file for instances.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing')
    where = f'{path} is not a COCO annotation file'
    try:
        data = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f'{where}: not JSON ({error})') from error
    if not isinstance(data, dict) or any(not isinstance(data.get(part), list) for part in _NEEDED):
        raise ValueError(f'{where}: it needs {", ".join(_NEEDED)}')
    for part, needed in _NEEDED.items():
        for entry in data[part]:
            if not isinstance(entry, dict):
                raise ValueError(f'{where}: an entry of {part} is {entry!r}')
            lacking = [name for name in needed if name not in entry]
            if lacking:
                raise ValueError(f'{where}: an entry of {part} has no {", ".join(lacking)}')
            for name in needed:
                entry[name] = _whole(entry[name])
                if name.endswith('id') and not isinstance(entry[name], (int, str)):
                    raise ValueError(f'{where}: an entry of {part} has the {name} {entry[name]!r}')
    for entry in data['images']:
        for side in ('height', 'width'):
            entry[side] = _whole(entry[side])
            if not isinstance(entry[side], int) or not 1 <= entry[side] <= MAX_SIDE:
                raise ValueError(
                    f'{where}: image {entry["file_name"]} has the {side} {entry[side]!r}'
                )
    for entry in data['annotations']:
        mask = entry.get('segmentation')
        if isinstance(mask, dict) and isinstance(mask.get('size'), list):
            mask['size'] = [_whole(side) for side in mask['size']]
    return data


def read_annotations(path: Path) -> COCO:
    """Read a COCO annotation file to train and to measure with, without pycocotools' chatter.

    What pycocotools needs and other programs leave out is added: ``iscrowd`` (0) and ``area`` (the
    box's; the figures taken here are of all sizes together). Annotations' ids are made unique.
    Objects whose box is empty count as never found, and are not trained on.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a COCO annotation file, or has an entry that is of no use.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} is missing: write the data first (msfc data tabletop --help), or give --data'
        )
    data = read_coco(path)
    advice = 'msfc data coco writes a set without such'
    for part in ('images', 'categories'):
        ids = Counter(entry['id'] for entry in data[part])
        twice = [key for key, count in ids.items() if count > 1]
        if twice:
            raise ValueError(f'{path}: id {twice[0]} is there twice in {part}: {advice}')
    _check_annotations(data, path, advice)
    for entry in data['annotations']:
        entry['iscrowd'] = int(bool(entry.get('iscrowd')))
        if not _is_finite(entry.get('area')):
            entry['area'] = entry['bbox'][2] * entry['bbox'][3]
    make_ids_unique(data['annotations'])
    coco = COCO()
    coco.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _check_annotations(data: dict[str, Any], path: Path, advice: str) -> None:
    """Refuse annotations that cannot be used, and leave out those of images that are not there.

    Raises:
        ValueError: there are some; names the first.
    """
    images = {entry['id']: entry for entry in data['images']}
    categories = {entry['id'] for entry in data['categories']}
    used, faults = [], []
    for entry in data['annotations']:
        fault = annotation_fault(entry, images.get(entry['image_id']), categories)
        if fault is None or fault == EMPTY_BOX:
            used.append(entry)
        elif fault != NO_IMAGE:
            faults.append((entry, fault))
    if faults:
        (entry, fault), *others = faults
        more = f' ({len(others):,} more are of no use)' if others else ''
        raise ValueError(
            f'{path}: annotation {entry["id"]} of image '
            f'{images[entry["image_id"]]["file_name"]}: {fault}{more}: {advice}'
        )
    data['annotations'] = used


def _whole(value: Any) -> Any:
    """Return a whole number that was written as a float as an int, all else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) < float('inf')


def _exif_words(path: Path) -> str:
    """Return what explains another size where an image is turned as its EXIF entry says."""
    if not is_turned(path):
        return ''
    return (
        ' (its EXIF entry turns it, as in every viewer; annotations of the pixels as they are '
        'stored need a file without that entry)'
    )


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
        self.annotations = root / 'annotations' / f'instances_{split}.json'
        self.coco = read_annotations(self.annotations)
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
            if not annotation.get('iscrowd') and not is_empty_box(annotation['bbox'])
        ]

    def __len__(self) -> int:
        return len(self.image_ids)

    def image_path(self, index: int) -> Path:
        """Return the file of an image."""
        return self.images / str(self.coco.imgs[self.image_ids[index]]['file_name'])

    def read_image(self, index: int) -> np.ndarray:
        """Return an image as H x W x 3 uint8 BGR, as OpenCV reads it: turned as EXIF says.

        Raises:
            FileNotFoundError: it is missing or no image.
            ValueError: it is cut off, or has another size than the annotations say.
        """
        entry = self.coco.imgs[self.image_ids[index]]
        path = self.image_path(index)
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise FileNotFoundError(f'{path} is missing or not an image')
        if is_cut_off(path):
            raise ValueError(f'{path} is cut off: msfc data coco writes a set without such images')
        if image.shape[:2] != (entry['height'], entry['width']):
            raise ValueError(
                f'{path} is {image.shape[1]} x {image.shape[0]} pixels, '
                f'the annotations say {entry["width"]} x {entry["height"]}{_exif_words(path)}'
            )
        return image

    def __getitem__(self, index: int) -> Example:
        """Return an image with its objects.

        Raises:
            FileNotFoundError: the image is missing or no image.
            ValueError: it is cut off, or has another size than the annotations say.
        """
        image_id = self.image_ids[index]
        image = cv2.cvtColor(self.read_image(index), cv2.COLOR_BGR2RGB)
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

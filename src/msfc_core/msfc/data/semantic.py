"""Reads class labels of pixels: ``semantic/<split>/<image's stem>.png`` beside the images.

``semantic/classes.json`` of the data set is the list of the classes' names; a pixel's value is an
index into it, or :data:`IGNORED`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from msfc.data.coco import CocoDataset
from msfc.settings import check_texts

FOLDER = 'semantic'

IGNORED = 255
"""Value of pixels that have no class."""


def label_file(root: Path, split: str, file_name: str) -> Path:
    """Return the file of an image's labels.

    Args:
        root: folder of the data set.
        split: of the image.
        file_name: of the image.
    """
    return root / FOLDER / split / f'{Path(file_name).stem}.png'


def classes_file(root: Path) -> Path:
    """Return the file of the classes' names."""
    return root / FOLDER / 'classes.json'


def read_classes(root: Path) -> tuple[str, ...]:
    """Return the names of the classes that the pixels of a data set have.

    Raises:
        FileNotFoundError: the data set has no such labels.
        ValueError: the file is no list of names.
    """
    path = classes_file(root)
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} is missing: the data set has no labels of pixels; for the tabletop world '
            '`msfc data semantic` makes them'
        )
    try:
        names = check_texts(json.loads(path.read_text(encoding='utf-8')), 'it')
    except ValueError as error:
        raise ValueError(f'{path} is no list of names: {error}') from error
    if len(names) > IGNORED:
        raise ValueError(f'{path} has {len(names)} classes; there can be {IGNORED}')
    return names


@dataclass(frozen=True)
class LabelledImage:
    """One image of a data set.

    Attributes:
        image_id: its id in the annotation file.
        image: H x W x 3 uint8 BGR.
        labels: H x W uint8, index of each pixel's class, or :data:`IGNORED`.
    """

    image_id: int
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


class SemanticDataset:
    """The images of a split that have labels of their pixels, in order of their ids.

    Args:
        root: folder of the data set.
        split: name of the split.
        limit: take the first so many; all by default.

    Attributes:
        class_names: names of the classes.

    Raises:
        FileNotFoundError: annotations or labels are missing.
        ValueError: the data set is malformed, or no image has labels.
    """

    def __init__(self, root: Path, split: str, limit: int | None = None) -> None:
        self.class_names = read_classes(root)
        self._coco = CocoDataset(root, split)
        self._files = [
            label_file(root, split, self._coco.image_path(index).name)
            for index in range(len(self._coco))
        ]
        self._places = [index for index, path in enumerate(self._files) if path.is_file()][:limit]
        if not self._places:
            raise ValueError(
                f'{root / FOLDER / split} has labels of no image of {split}; for the tabletop '
                'world `msfc data semantic` makes them'
            )

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> LabelledImage:
        """Return an image with the labels of its pixels.

        Raises:
            FileNotFoundError: the image is missing or no image.
            ValueError: the labels are no grey image of its size, or of an unknown class.
        """
        place = self._places[index]
        image = self._coco.read_image(place)
        path = self._files[place]
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if labels is None or labels.dtype != np.uint8 or labels.shape != image.shape[:2]:
            raise ValueError(
                f'{path} is no grey image of 8 bits and {image.shape[1]} x {image.shape[0]} pixels'
            )
        known = labels[labels != IGNORED]
        if known.size and int(known.max()) >= len(self.class_names):
            raise ValueError(
                f'{path} has class {known.max()}, of {len(self.class_names)} from 0 on'
            )
        image_id = self._coco.image_ids[place]
        return LabelledImage(image_id, image, labels.astype(np.uint8, copy=False))

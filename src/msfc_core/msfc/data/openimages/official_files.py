"""Reads OpenImages' official CSV files."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PAPER_CLASSES = 80
"""Classes in the paper's sets: those with the most masks."""

SEGMENTATION_SUFFIX = '-annotations-object-segmentation.csv'
BOX_SUFFIX = '-annotations-bbox.csv'
CLASSES_PATTERN = '*class-descriptions-boxable.csv'

CSV_ENCODING = 'utf-8-sig'  # spreadsheets put a byte order mark in front

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 as shares of the image's sides."""


@dataclass(frozen=True)
class OpenImagesFiles:
    """Where the official files are.

    Attributes:
        classes: names of the classes.
        segmentations: CSV files of masks, one per official split.
        boxes: CSV files of boxes, as many as there are.
        root: folder to look for images and masks in.
    """

    classes: Path
    segmentations: tuple[Path, ...]
    boxes: tuple[Path, ...]
    root: Path


@dataclass(frozen=True)
class MaskRow:
    """A row of the segmentation file."""

    path: str
    label: int
    box: Box


@dataclass(frozen=True)
class BoxRow:
    """A row of the box file."""

    label: int
    box: Box
    group: bool


@dataclass
class ObjectRows:
    """The rows of the chosen classes and images.

    Attributes:
        masks: rows of the segmentation files, by image.
        boxes: rows of the box files, by image.
        repeated: rows that say again what another one says, left out.
    """

    masks: dict[str, list[MaskRow]] = field(default_factory=dict)
    boxes: dict[str, list[BoxRow]] = field(default_factory=dict)
    repeated: int = 0


def find_files(root: Path) -> OpenImagesFiles:
    """Find the official CSV files under a folder.

    Raises:
        FileNotFoundError: the class names or the mask lists are not there; says which.
        ValueError: two files are of one split: their objects would be there twice.
    """
    if not root.is_dir():
        raise FileNotFoundError(f'{root} is not a folder')
    classes = sorted(_find(root, CLASSES_PATTERN))
    segmentations = sorted(_find(root, f'*{SEGMENTATION_SUFFIX}'))
    if not classes or not segmentations:
        lacking = CLASSES_PATTERN if not classes else f'<split>{SEGMENTATION_SUFFIX}'
        raise FileNotFoundError(
            f'{root} has no {lacking}: download the boxable class names, the segmentation and '
            'box CSV files, the masks and the images from the OpenImages site'
        )
    boxes = sorted(_find(root, f'*{BOX_SUFFIX}'))
    for paths, suffix in ((segmentations, SEGMENTATION_SUFFIX), (boxes, BOX_SUFFIX)):
        splits: dict[str, Path] = {}
        for path in paths:
            # What stands before it is a release, such as oidv6-.
            split = path.name.removesuffix(suffix).rpartition('-')[2]
            if split in splits:
                raise ValueError(f'{splits[split]} and {path} are both of {split}: remove one')
            splits[split] = path
    return OpenImagesFiles(classes[0], tuple(segmentations), tuple(boxes), root)


def choose_classes(
    files: OpenImagesFiles, names: Sequence[str] = (), most: int = PAPER_CLASSES
) -> dict[str, str]:
    """Choose classes by name, or those with the most masks in the CSV files.

    Args:
        files: the official files.
        names: of the classes, as OpenImages spells them; case does not matter.
        most: if there are no names, how many classes with the most masks; equals by name.

    Returns:
        Name by class id, in the order of the labels: as named, or most masks first.

    Raises:
        ValueError: an unknown name, or a class without masks.
    """
    with files.classes.open(newline='', encoding=CSV_ENCODING) as file:
        known = {row[0]: row[1] for row in csv.reader(file) if len(row) >= 2}
    counts = _count_masks(files)
    if not names:
        if most < 1:
            raise ValueError(f'{most} classes cannot be chosen')
        ranked = sorted(counts, key=lambda key: (-counts[key], known.get(key, key)))
        return {key: known.get(key, key) for key in ranked[:most]}
    by_name = {name.lower(): key for key, name in known.items()}
    unknown = [name for name in names if name.lower() not in by_name]
    if unknown:
        raise ValueError(f'{files.classes.name} knows no class {", ".join(unknown)}')
    chosen = {by_name[name.lower()]: known[by_name[name.lower()]] for name in names}
    empty = [name for key, name in chosen.items() if not counts[key]]
    if empty:
        raise ValueError(f'no masks of class {", ".join(empty)}')
    return chosen


def images_with_masks(files: OpenImagesFiles, labels: dict[str, int]) -> dict[str, str]:
    """Return the official split of each image that has a mask of a chosen class."""
    return {
        row['ImageID']: path.name.removesuffix(SEGMENTATION_SUFFIX)
        for path in files.segmentations
        for row in _rows(path, ('ImageID', 'LabelName'))
        if row['LabelName'] in labels
    }


def read_objects(
    files: OpenImagesFiles, labels: dict[str, int], images: set[str]
) -> ObjectRows:
    """Return the masks and the boxes of the chosen classes.

    Args:
        files: the official files.
        labels: label by class id.
        images: ids of the images whose rows are read.

    Raises:
        ValueError: a file is not as it should be.
    """
    found = ObjectRows()
    names: tuple[str, str, str, str] = ('BoxXMin', 'BoxYMin', 'BoxXMax', 'BoxYMax')
    paths = set()
    for path in files.segmentations:
        for row in _rows(path, ('MaskPath', 'ImageID', 'LabelName', *names)):
            if row['LabelName'] not in labels or row['ImageID'] not in images:
                continue
            if row['MaskPath'] in paths:
                found.repeated += 1
                continue
            paths.add(row['MaskPath'])
            mask = MaskRow(row['MaskPath'], labels[row['LabelName']], _box(path, row, names))
            found.masks.setdefault(row['ImageID'], []).append(mask)
    names = ('XMin', 'YMin', 'XMax', 'YMax')
    for path in files.boxes:
        for row in _rows(path, ('ImageID', 'LabelName', 'IsGroupOf', *names)):
            if row['LabelName'] not in labels or row['ImageID'] not in images:
                continue
            box = BoxRow(
                labels[row['LabelName']], _box(path, row, names), row['IsGroupOf'] == '1'
            )
            known = found.boxes.setdefault(row['ImageID'], [])
            if box in known:
                found.repeated += 1
            else:
                known.append(box)
    return found


def _count_masks(files: OpenImagesFiles) -> Counter[str]:
    """Return how many masks each class has, repeated rows counted once."""
    counts: Counter[str] = Counter()
    # The whole set has 2.7 million masks: hashes take less memory than their names.
    seen = set()
    for path in files.segmentations:
        for row in _rows(path, ('MaskPath', 'LabelName')):
            name = hash(row['MaskPath'])
            if name not in seen:
                seen.add(name)
                counts[row['LabelName']] += 1
    return counts


def _find(root: Path, pattern: str) -> Iterator[Path]:
    # Folders of images have millions of entries: the CSV files are at most two folders down.
    for depth in ('', '*/', '*/*/'):
        yield from root.glob(depth + pattern)


def _rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file with a heading.

    Raises:
        ValueError: it is no such file, a column is missing, or a row is cut off.
    """
    with path.open(newline='', encoding=CSV_ENCODING) as file:
        reader = csv.DictReader(file)
        try:
            lacking = sorted(set(columns) - set(reader.fieldnames or ()))
            if lacking:
                raise ValueError(f'{path} has no column {", ".join(lacking)}')
            for row in reader:
                if any(row[column] is None for column in columns):
                    raise ValueError(f'{path}, line {reader.line_num}: the row is cut off')
                yield row
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f'{path}, behind line {reader.line_num}: {error}') from error


def _box(path: Path, row: dict[str, str], names: tuple[str, str, str, str]) -> Box:
    try:
        values = [float(row[name]) for name in names]
        if not all(map(math.isfinite, values)):
            raise ValueError(f'{", ".join(names)}: all must be finite numbers')
    except ValueError as error:
        raise ValueError(f'{path}, image {row["ImageID"]}: {error}') from error
    x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in values)
    return x1, y1, x2, y2

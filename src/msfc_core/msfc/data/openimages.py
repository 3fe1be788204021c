"""Reads OpenImages' official files (V5 to V7) and writes a COCO-format data set.

The files, as they are downloaded, anywhere under one folder:

* ``class-descriptions-boxable.csv``, no heading: class id (``/m/...``), name;
* ``<split>-annotations-object-segmentation.csv``: ``MaskPath, ImageID, LabelName, BoxID,
  BoxXMin, BoxXMax, BoxYMin, BoxYMax, ...``, coordinates as shares of the image's sides;
* ``<split>-annotations-bbox.csv``: ``ImageID, Source, LabelName, Confidence, XMin, XMax, YMin,
  YMax, IsOccluded, IsTruncated, IsGroupOf, ...``; may have a prefix such as ``oidv6-``;
* the masks, PNGs of any size with the object not zero, loose or in their ``zip`` files
  (``<split>-masks-<digit>.zip``);
* the images, ``<ImageID>.jpg``.

Objects of the chosen classes that have a box but no mask, and boxes of whole groups, become
``iscrowd`` regions: training leaves them out and evaluation counts them neither for nor against
a detector, since nobody drew their masks.
"""

from __future__ import annotations

import csv
import json
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from msfc.data.files import hash_of, image_size, is_cut_off, place_image, write_list
from msfc.journal import Journal, journal_path, write_atomically
from msfc.types import Size

PAPER_SIZES = {'train': 176_107, 'test': 8_746}
"""Images in the paper's two sets."""

PAPER_CLASSES = 80
"""Classes in the paper's sets: those with the most masks."""

SEGMENTATION_SUFFIX = '-annotations-object-segmentation.csv'
BOX_SUFFIX = '-annotations-bbox.csv'
CLASSES_PATTERN = '*class-descriptions-boxable.csv'
DOWNLOAD_LIST = 'download.txt'
MISSING_LIST = 'missing.csv'
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')

SAME_BOX_IOU = 0.9  # a mask's box and the box file's are one box, but for rounding
MAX_ASPECT_ERROR = 0.03  # of a mask against its image: beyond, it is another (a turned) image's

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 as shares of the image's sides."""

Progress = Callable[[int, int], None]


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


@dataclass
class OpenImagesReport:
    """What was written and what is missing.

    Attributes:
        classes: names of the classes, by label.
        images: images written, by split.
        objects: objects with a mask written, by split.
        ignored_regions: regions written as ``iscrowd``, by split.
        wanted_images: images asked for, by split.
        images_with_masks: images that have masks of these classes, by the CSV files.
        missing_images: of these, how many have no file here.
        missing_masks: masks of the images written that have no file here.
        unusable_masks: masks that cannot be read, are empty or of another shape than the image.
        unreadable_images: images that cannot be read, or are cut off.
        missing_list: file that names each of them; None if nothing is missing.
        download_list: file with the images that would make up the sets if all were here and are
            not, in the form that OpenImages' downloader reads; None if there are none.
    """

    classes: list[str]
    images: dict[str, int] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    ignored_regions: dict[str, int] = field(default_factory=dict)
    wanted_images: dict[str, int] = field(default_factory=dict)
    images_with_masks: int = 0
    missing_images: int = 0
    missing_masks: int = 0
    unusable_masks: int = 0
    unreadable_images: int = 0
    missing_list: str | None = None
    download_list: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-serialisable values."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """Return the report in words."""
        lines = []
        for split, count in self.images.items():
            line = (
                f'{split}: {count:,} images with {self.objects[split]:,} objects and '
                f'{self.ignored_regions[split]:,} ignored regions'
            )
            if count < self.wanted_images[split]:
                line += f' ({self.wanted_images[split]:,} images were asked for)'
            lines.append(line)
        lines.append(
            f'{self.images_with_masks:,} images have masks of the {len(self.classes)} classes; '
            f'{self.missing_images:,} of them are not here'
        )
        for number, what in (
            (self.missing_masks, 'masks are not here'),
            (self.unusable_masks, 'masks are unreadable, empty or of another shape'),
            (self.unreadable_images, 'images cannot be read, or are cut off'),
        ):
            if number:
                lines.append(f'{number:,} {what}')
        if self.missing_list:
            lines.append(f'each is named in {self.missing_list}')
        if self.download_list:
            lines.append(
                f'{self.download_list} lists what to download for the whole sets, in the form of '
                "OpenImages' downloader"
            )
        return lines


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
    with files.classes.open(newline='', encoding='utf-8') as file:
        known = {row[0]: row[1] for row in csv.reader(file) if len(row) >= 2}
    counts: Counter[str] = Counter()
    for path in files.segmentations:
        counts.update(row['LabelName'] for row in _rows(path, ('LabelName',)))
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


def write_openimages(
    source: Path,
    output: Path,
    class_names: Sequence[str] = (),
    most_classes: int = PAPER_CLASSES,
    sizes: dict[str, int] | None = None,
    copy: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> OpenImagesReport:
    """Write a COCO-format data set; a run that was broken off goes on where it ended.

    Which images become ``train`` and which ``test`` depends on nothing but their ids, so an image
    never changes sides, however many are here. Of each side, those with the least hash are taken
    until the wanted number is reached.

    Args:
        source: folder with the official files.
        output: folder to write ``annotations/instances_<split>.json``, the images as links,
            ``report.json``, ``missing.csv`` and ``download.txt`` to.
        class_names: classes by name; if none, those with the most masks.
        most_classes: how many classes then.
        sizes: images wanted by split, the paper's by default.
        copy: copy images in place of links.
        workers: threads that read masks; all cores by default.
        progress: called with (images done, images in all).

    Raises:
        FileNotFoundError: official files are missing.
        ValueError: classes or files are not as they should be, or none of the images are here.
    """
    sizes = dict(PAPER_SIZES if sizes is None else sizes)
    files = find_files(source)
    classes = choose_classes(files, class_names, most_classes)
    labels = {key: index + 1 for index, key in enumerate(classes)}
    report = OpenImagesReport(list(classes.values()), wanted_images=sizes)
    disk = _Disk(files.root, output)

    wanted = _images_of(files, labels)
    report.images_with_masks = len(wanted)
    here = {image for image in wanted if image in disk.images}
    report.missing_images = len(wanted) - len(here)
    report.download_list = _write_downloads(output, wanted, here, sizes)
    if not here:
        raise ValueError(
            f'none of the {len(wanted):,} images with masks of these classes is under {source}; '
            f'{output / DOWNLOAD_LIST} lists those to download'
        )
    splits = split_images(here, sizes)
    chosen = {image for images in splits.values() for image in images}
    masks, boxes = _read_objects(files, labels, chosen)

    # Boxes are part of the settings: with another box file, crowd regions are others.
    settings = {
        'records': 2,  # records of another form have another number
        'classes': list(classes),
        'files': [[path.name, path.stat().st_size] for path in files.segmentations + files.boxes],
    }
    missing: list[tuple[str, str, str]] = [
        ('image', image, 'no file') for image in sorted(set(wanted) - here)
    ]
    journal_file = journal_path(output / 'annotations' / '.journal', 'openimages', settings)
    with Journal(journal_file) as journal:
        todo = [image for image in sorted(chosen) if not _is_done(journal, image, disk)]
        done = len(chosen) - len(todo)
        if progress:
            progress(done, len(chosen))

        def convert(image: str) -> tuple[str, dict[str, Any]]:
            return image, _convert(
                disk, image, masks.get(image, []), boxes.get(image, []), labels
            )

        with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
            for image, record in _in_batches(pool, convert, todo):
                journal.write(image, record)
                done += 1
                if progress:
                    progress(done, len(chosen))
        for split, images in splits.items():
            _write_split(output, split, images, journal, disk, classes, copy, report, missing)
    _write_report(output, report, missing)
    return report


def split_images(images: Iterable[str], sizes: dict[str, int]) -> dict[str, list[str]]:
    """Divide images into sets by nothing but their ids.

    The hash of an id, a number from 0 to 1, says which set it may be in: the sets have parts of
    that range as large as their sizes are to each other. In each, the least hashes are taken.

    Args:
        images: ids.
        sizes: images wanted, by set.

    Returns:
        Ids by set, in order of their hashes.

    Raises:
        ValueError: no images are wanted.
    """
    total = sum(sizes.values())
    if total < 1 or min(sizes.values()) < 0:
        raise ValueError(f'{sizes} images cannot be chosen')
    names = sorted(sizes, key=lambda name: (sizes[name], name))
    limits = np.cumsum([sizes[name] for name in names]) / total
    chosen: dict[str, list[str]] = {name: [] for name in sizes}
    for image in sorted(images, key=lambda image: (hash_of(image), image)):
        place = int(np.searchsorted(limits[:-1], hash_of(image), side='right'))
        if len(chosen[names[place]]) < sizes[names[place]]:
            chosen[names[place]].append(image)
    return chosen


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


@dataclass(frozen=True)
class _MaskRow:
    """A row of the segmentation file."""

    path: str
    label: int
    box: Box


@dataclass(frozen=True)
class _BoxRow:
    """A row of the box file."""

    label: int
    box: Box
    group: bool


class _Disk:
    """The images and masks under a folder.

    Args:
        root: the folder.
        output: folder of the data set, which may be in the first one and is passed over.
    """

    def __init__(self, root: Path, output: Path) -> None:
        self.images: dict[str, str] = {}
        self._masks: dict[str, str] = {}
        archives: list[Path] = []
        seen = {output.resolve()}
        for folder, subfolders, names in os.walk(root, followlinks=True):
            here = Path(folder).resolve()
            if here in seen:
                subfolders.clear()
                continue
            seen.add(here)
            for name in names:
                stem, suffix = os.path.splitext(name)
                if '_' in stem and suffix == '.png':
                    self._masks[name] = folder
                elif suffix.lower() in IMAGE_SUFFIXES:
                    self.images[stem] = os.path.join(folder, name)
                elif suffix == '.zip' and 'mask' in stem:
                    archives.append(Path(folder) / name)
        self._members: dict[str, tuple[zipfile.ZipFile, str]] = {}
        for path in sorted(archives):
            try:
                archive = zipfile.ZipFile(path)
            except zipfile.BadZipFile as error:
                raise ValueError(f'{path} is broken: download it again') from error
            for member in archive.namelist():
                self._members[member.rpartition('/')[2]] = (archive, member)

    def has_mask(self, name: str) -> bool:
        """Return whether a mask is here."""
        return name in self._masks or name in self._members

    def read_mask(self, name: str) -> NDArray[Any] | None:
        """Return a mask, or None if it cannot be read."""
        try:
            if name in self._masks:
                data = (Path(self._masks[name]) / name).read_bytes()
            else:
                archive, member = self._members[name]
                data = archive.read(member)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error):
            return None
        if not data:
            return None
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def _find(root: Path, pattern: str) -> Iterator[Path]:
    # Folders of images have millions of entries: the CSV files are at most two folders down.
    for depth in ('', '*/', '*/*/'):
        yield from root.glob(depth + pattern)


def _rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file with a heading.

    Raises:
        ValueError: it is no such file, a column is missing, or a row is cut off.
    """
    with path.open(newline='', encoding='utf-8') as file:
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


def _images_of(files: OpenImagesFiles, labels: dict[str, int]) -> dict[str, str]:
    """Return the official split of each image that has a mask of a chosen class."""
    return {
        row['ImageID']: path.name.removesuffix(SEGMENTATION_SUFFIX)
        for path in files.segmentations
        for row in _rows(path, ('ImageID', 'LabelName'))
        if row['LabelName'] in labels
    }


def _write_downloads(
    output: Path, wanted: dict[str, str], here: set[str], sizes: dict[str, int]
) -> str | None:
    """Name the images of the whole sets that are not here; return the file's name."""
    path = output / DOWNLOAD_LIST
    path.unlink(missing_ok=True)
    whole = split_images(wanted, sizes).values()
    lines = [f'{wanted[k]}/{k}' for images in whole for k in images if k not in here]
    if not lines:
        return None
    write_atomically(path, '\n'.join(lines) + '\n')
    return path.name


def _read_objects(
    files: OpenImagesFiles, labels: dict[str, int], images: set[str]
) -> tuple[dict[str, list[_MaskRow]], dict[str, list[_BoxRow]]]:
    """Return the masks and the boxes of the chosen classes, by image."""
    masks: dict[str, list[_MaskRow]] = {}
    for path in files.segmentations:
        names = ('BoxXMin', 'BoxYMin', 'BoxXMax', 'BoxYMax')
        for row in _rows(path, ('MaskPath', 'ImageID', 'LabelName', *names)):
            if row['LabelName'] in labels and row['ImageID'] in images:
                masks.setdefault(row['ImageID'], []).append(
                    _MaskRow(row['MaskPath'], labels[row['LabelName']], _box(path, row, names))
                )
    boxes: dict[str, list[_BoxRow]] = {}
    for path in files.boxes:
        names = ('XMin', 'YMin', 'XMax', 'YMax')
        for row in _rows(path, ('ImageID', 'LabelName', 'IsGroupOf', *names)):
            if row['LabelName'] in labels and row['ImageID'] in images:
                boxes.setdefault(row['ImageID'], []).append(
                    _BoxRow(
                        labels[row['LabelName']], _box(path, row, names), row['IsGroupOf'] == '1'
                    )
                )
    return masks, boxes


def _box(path: Path, row: dict[str, str], names: tuple[str, str, str, str]) -> Box:
    try:
        x1, y1, x2, y2 = (min(max(float(row[name]), 0.0), 1.0) for name in names)
    except ValueError as error:
        raise ValueError(f'{path}, image {row["ImageID"]}: {error}') from error
    return x1, y1, x2, y2


def _in_batches(
    pool: ThreadPoolExecutor,
    work: Callable[[str], tuple[str, dict[str, Any]]],
    items: Sequence[str],
    size: int = 256,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield results in order, with no more than a batch of them in memory."""
    for start in range(0, len(items), size):
        yield from pool.map(work, items[start : start + size])


def _is_done(journal: Journal, image: str, disk: _Disk) -> bool:
    """Return whether an image is in the journal as it is now, and has all masks that it may."""
    if image not in journal:
        return False
    record = journal[image]
    # Masks that were of no use may have been downloaded again.
    if record['size'] is None or record['unusable']:
        return False
    return bool(record['stamp'] == _stamp(disk.images[image])) and not any(
        disk.has_mask(name) for name in record['missing']
    )


def _stamp(path: str) -> list[int] | None:
    """Return what changes with a file, bytes and time in nanoseconds; None if it has gone."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns]


def _convert(
    disk: _Disk, image: str, masks: list[_MaskRow], boxes: list[_BoxRow], labels: dict[str, int]
) -> dict[str, Any]:
    """Return what the journal has of an image: file, size, annotations, and what is wrong."""
    path = disk.images[image]
    record: dict[str, Any] = {
        'stamp': _stamp(path), 'size': None, 'objects': [], 'missing': [], 'unusable': []
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
        if not disk.has_mask(row.path):
            record['missing'].append(row.path)
            rle = None
        else:
            mask = disk.read_mask(row.path)
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


def _same_box(row: _MaskRow, boxes: list[_BoxRow], free: list[int]) -> int | None:
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
    """Return an object as COCO has it, without ids; None if it has no extent."""
    height, width = size
    x1, y1, x2, y2 = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    if x2 - x1 <= 0 or y2 - y1 <= 0:
        return None
    if rle is None:
        corners = [x1, y1, x2, y1, x2, y2, x1, y2]
        region = coco_mask.merge(coco_mask.frPyObjects([corners], height, width))
        rle = {'size': [height, width], 'counts': region['counts'].decode('ascii')}
    return {
        'category_id': label,
        'bbox': [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
        'segmentation': rle,
        'area': int(coco_mask.area(rle)),
        'iscrowd': int(crowd),
    }


def _write_split(
    output: Path,
    split: str,
    images: Sequence[str],
    journal: Journal,
    disk: _Disk,
    classes: dict[str, str],
    copy: bool,
    report: OpenImagesReport,
    missing: list[tuple[str, str, str]],
) -> None:
    """Write the annotations of a split and place its images; adds to the report."""
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in images:
        record = journal[image]
        for kind, reason in (('missing', 'no file'), ('unusable', 'unreadable or misfit')):
            missing += [('mask', name, reason) for name in record[kind]]
        report.missing_masks += len(record['missing'])
        report.unusable_masks += len(record['unusable'])
        if record['size'] is None:
            report.unreadable_images += 1
            missing.append(('image', image, 'unreadable or cut off'))
            continue
        path = Path(disk.images[image])
        place_image(path, output / split / path.name, copy)
        height, width = record['size']
        entries.append({
            'id': len(entries) + 1, 'file_name': path.name, 'height': height, 'width': width,
            'openimages_id': image,
        })
        annotations += [
            {'id': len(annotations) + k + 1, 'image_id': len(entries), **entry}
            for k, entry in enumerate(record['objects'])
        ]
    report.images[split] = len(entries)
    crowds = sum(entry['iscrowd'] for entry in annotations)
    report.objects[split] = len(annotations) - crowds
    report.ignored_regions[split] = crowds
    data = {
        'info': {'description': f'OpenImages, {split}: images with masks of chosen classes'},
        'images': entries,
        'annotations': annotations,
        'categories': [
            {'id': index + 1, 'name': name, 'openimages_id': key}
            for index, (key, name) in enumerate(classes.items())
        ],
    }
    path = output / 'annotations' / f'instances_{split}.json'
    write_atomically(path, json.dumps(data, separators=(',', ':')))


def _write_report(
    output: Path, report: OpenImagesReport, missing: list[tuple[str, str, str]]
) -> None:
    heading = ('kind', 'name', 'reason')
    report.missing_list = write_list(output / MISSING_LIST, heading, missing)
    write_atomically(output / 'report.json', json.dumps(report.to_dict(), indent=2) + '\n')

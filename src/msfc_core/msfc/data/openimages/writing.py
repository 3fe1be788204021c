"""Writes OpenImages as a COCO-format data set."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from msfc.data.files import hash_of, place_image, write_list
from msfc.data.openimages.media import MediaFiles
from msfc.data.openimages.objects import convert_image
from msfc.data.openimages.official_files import (
    PAPER_CLASSES,
    ObjectRows,
    OpenImagesFiles,
    choose_classes,
    find_files,
    images_with_masks,
    read_objects,
)
from msfc.data.openimages.report import OpenImagesReport
from msfc.data.ownership import claim_split, write_annotations
from msfc.files import write_atomically
from msfc.journal import Journal, journal_path
from msfc.progress import Progress

PAPER_SIZES = {'train': 176_107, 'test': 8_746}
"""Images in the paper's two sets."""

DOWNLOAD_LIST = 'download.txt'
MISSING_LIST = 'missing.csv'

RECORD_VERSION = 3  # records of another form in the journal have another number

Missing = list[tuple[str, str, str]]  # kind, name, reason


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
    """Write a COCO-format data set; resumes an interrupted run.

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
        ValueError: classes or files are not as they should be, none of the images are here, or the
            output has what this did not write.
    """
    sizes = dict(PAPER_SIZES if sizes is None else sizes)
    files = find_files(source)
    classes = choose_classes(files, class_names, most_classes)
    labels = {key: index + 1 for index, key in enumerate(classes)}
    report = OpenImagesReport(list(classes.values()), wanted_images=sizes)
    media = MediaFiles(files.root, output)
    for split in sizes:
        claim_split(
            output, split, 'msfc data openimages',
            files=('report.json', MISSING_LIST, DOWNLOAD_LIST),
        )

    wanted = images_with_masks(files, labels)
    here = _find_images(wanted, media, output, report)
    splits = split_images(here, sizes)
    chosen = {image for images in splits.values() for image in images}
    rows = read_objects(files, labels, chosen)
    report.repeated_rows = rows.repeated
    missing: Missing = [('image', image, 'no file') for image in sorted(set(wanted) - here)]
    with Journal(_journal_file(output, files, classes)) as journal:
        _convert_images(media, sorted(chosen), rows, journal, workers, progress)
        for split, images in splits.items():
            _write_split(output, split, images, journal, media, classes, copy, report, missing)
    _write_report(output, report, missing)
    return report


def _find_images(
    wanted: dict[str, str], media: MediaFiles, output: Path, report: OpenImagesReport
) -> set[str]:
    """Return which of the images are here, and list those to download; adds to the report.

    Raises:
        ValueError: none of them is here.
    """
    here = {image for image in wanted if image in media.images}
    report.images_with_masks = len(wanted)
    report.missing_images = len(wanted) - len(here)
    report.download_list = _write_downloads(output, wanted, here, report.wanted_images)
    if not here:
        raise ValueError(
            f'none of the {len(wanted):,} images with masks of these classes is under '
            f'{media.root}; {output / DOWNLOAD_LIST} lists those to download'
        )
    return here


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


def _journal_file(output: Path, files: OpenImagesFiles, classes: dict[str, str]) -> Path:
    # Boxes are part of the settings: with another box file, crowd regions are others.
    settings = {
        'records': RECORD_VERSION,
        'classes': list(classes),
        'files': [[path.name, path.stat().st_size] for path in files.segmentations + files.boxes],
    }
    return journal_path(output / 'annotations' / '.journal', 'openimages', settings)


def _convert_images(
    media: MediaFiles,
    images: Sequence[str],
    rows: ObjectRows,
    journal: Journal,
    workers: int | None,
    progress: Progress | None,
) -> None:
    """Write what the journal lacks of the images."""
    todo = [image for image in images if not _is_done(journal, image, media)]
    done = len(images) - len(todo)
    if progress:
        progress(done, len(images))

    def convert(image: str) -> tuple[str, dict[str, Any]]:
        masks, boxes = rows.masks.get(image, []), rows.boxes.get(image, [])
        return image, convert_image(media, image, masks, boxes)

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for image, record in _in_batches(pool, convert, todo):
            journal.write(image, record)
            done += 1
            if progress:
                progress(done, len(images))


def _is_done(journal: Journal, image: str, media: MediaFiles) -> bool:
    """Return whether an image is in the journal as it is now, and has all masks that it may."""
    if image not in journal:
        return False
    record = journal[image]
    # Masks that were of no use may have been downloaded again.
    if record['size'] is None or record['unusable']:
        return False
    return bool(record['stamp'] == media.stamp(image)) and not any(
        media.has_mask(name) for name in record['missing']
    )


def _in_batches(
    pool: ThreadPoolExecutor,
    work: Callable[[str], tuple[str, dict[str, Any]]],
    items: Sequence[str],
    size: int = 256,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield results in order, with no more than a batch of them in memory."""
    for start in range(0, len(items), size):
        yield from pool.map(work, items[start : start + size])


def _write_split(
    output: Path,
    split: str,
    images: Sequence[str],
    journal: Journal,
    media: MediaFiles,
    classes: dict[str, str],
    copy: bool,
    report: OpenImagesReport,
    missing: Missing,
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
        path = Path(media.images[image])
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
    write_annotations(output, split, data)


def _write_report(
    output: Path, report: OpenImagesReport, missing: Missing
) -> None:
    heading = ('kind', 'name', 'reason')
    report.missing_list = write_list(output / MISSING_LIST, heading, missing)
    write_atomically(output / 'report.json', json.dumps(report.to_dict(), indent=2) + '\n')

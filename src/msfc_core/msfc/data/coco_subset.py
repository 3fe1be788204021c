"""Checks a COCO annotation file against its images, and writes a subset that is sound."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from msfc.data.annotations import annotation_fault, make_ids_unique
from msfc.data.coco import read_coco
from msfc.data.files import hash_of, image_size, is_cut_off, place_image, write_list
from msfc.data.ownership import annotation_path, claim_split, write_annotations
from msfc.files import write_atomically
from msfc.journal import Journal, journal_path
from msfc.progress import Progress


@dataclass(frozen=True)
class Problem:
    """Something wrong with a data set.

    Attributes:
        kind: ``image`` or ``annotation``.
        key: the image's file name or the annotation's id.
        reason: in words, the same for the same fault.
    """

    kind: str
    key: str
    reason: str


@dataclass
class CocoReport:
    """What was found and written.

    Attributes:
        images: images written.
        objects: objects written, crowd regions left out.
        crowds: crowd regions written.
        classes: names of the classes written, by category id.
        objects_by_class: objects written of each class, crowd regions left out.
        found_images: images that the annotation file has.
        found_annotations: annotations that it has.
        problems: how many of each reason; what has one of them is left out.
        problem_list: file that names each of them; None if there are none.
    """

    images: int = 0
    objects: int = 0
    crowds: int = 0
    classes: list[str] = field(default_factory=list)
    objects_by_class: dict[str, int] = field(default_factory=dict)
    found_images: int = 0
    found_annotations: int = 0
    problems: dict[str, int] = field(default_factory=dict)
    problem_list: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-serialisable values."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """Return the report in words."""
        lines = [
            f'{self.images:,} of {self.found_images:,} images with {self.objects:,} objects of '
            f'{len(self.classes)} classes and {self.crowds:,} crowd regions'
        ]
        lines += [f'{count:,} times {reason}' for reason, count in self.problems.items()]
        if self.problem_list:
            lines.append(f'each is named in {self.problem_list}')
        elif not self.problems:
            lines.append('no problems found')
        return lines


def write_subset(
    annotations: Path,
    images: Path,
    output: Path,
    split: str,
    class_names: Sequence[str] = (),
    count: int | None = None,
    keep_empty: bool | None = None,
    copy: bool = False,
    progress: Progress | None = None,
) -> CocoReport:
    """Check a COCO data set and write the sound part of it, or a subset.

    Of images, name, file, size and end are checked, not all that lies between
    (:func:`msfc.data.files.is_cut_off`); of annotations, ids, box and mask. The images of a subset
    are those with the least hash of their file name, so that a larger subset has all images of a
    smaller one. Ids stay as they are, but for those of annotations that are not unique. Resumes an
    interrupted run.

    Args:
        annotations: such as ``instances_val2017.json``.
        images: its folder of images.
        output: folder to write ``annotations/instances_<split>.json``, the images as links to
            ``<split>``, ``report_<split>.json`` and ``problems_<split>.csv`` to.
        split: name of the set that is written.
        class_names: classes to keep; all by default.
        count: images to keep; all by default.
        keep_empty: keep images without objects; by default if all classes are kept.
        copy: copy images in place of links.
        progress: called with (images done, images in all).

    Raises:
        FileNotFoundError: the annotation file or the folder is missing.
        ValueError: it is not a COCO annotation file, a class is unknown, no image is left, or the
            output would overwrite the input, or what this did not write.
    """
    data = read_coco(annotations)
    target = annotation_path(output, split)
    _check_request(annotations, images, target, count)
    categories = _choose(data['categories'], class_names)
    claim_split(
        output, split, 'msfc data coco', images, (f'report_{split}.json', f'problems_{split}.csv')
    )
    problems: list[Problem] = []
    sound, objects = _sound_entries(data, {entry['id'] for entry in categories}, problems)
    keep_all = not class_names if keep_empty is None else keep_empty
    candidates = sound if keep_all else [k for k in sound if _has_objects(k, objects)]
    if count is not None:
        candidates = _by_hash(candidates)
    written = _check_images(candidates, images, output, split, copy, count, problems, progress)
    if not written:
        raise ValueError(f'no usable image is left of {annotations} and {images}')
    written.sort(key=lambda entry: str(entry['id']).zfill(20))
    entries = [entry for image in written for entry in objects.get(image['id'], [])]
    make_ids_unique(entries)
    result: dict[str, Any] = {key: data[key] for key in ('info', 'licenses') if key in data}
    result |= {'images': written, 'annotations': entries, 'categories': categories}
    write_annotations(output, split, result)
    return _write_report(output, split, _make_report(data, result, problems), problems)


def _check_request(annotations: Path, images: Path, target: Path, count: int | None) -> None:
    """Check what can be wrong before anything is read of the images.

    Raises:
        FileNotFoundError: the folder of images is missing.
        ValueError: the input would be overwritten, or no images are wanted.
    """
    if not images.is_dir():
        raise FileNotFoundError(f'{images} is not a folder of images')
    if target.resolve() == annotations.resolve():
        raise ValueError(f'{target} would be overwritten: choose another output or split')
    if count is not None and count < 1:
        raise ValueError(f'{count} images cannot be kept')


def _sound_entries(
    data: dict[str, Any], kept: set[Any], problems: list[Problem]
) -> tuple[list[dict[str, Any]], dict[Any, list[dict[str, Any]]]]:
    """Return the images' sound entries, and the sound annotations of some categories by image.

    Args:
        data: of the annotation file.
        kept: ids of the categories.
        problems: what is wrong is added here.
    """
    sound = _unique_images(data['images'], problems)
    by_id = {entry['id']: entry for entry in sound}
    categories = {entry['id'] for entry in data['categories']}
    objects: dict[Any, list[dict[str, Any]]] = {}
    for entry in data['annotations']:
        reason = annotation_fault(entry, by_id.get(entry['image_id']), categories)
        if reason:
            problems.append(Problem('annotation', str(entry['id']), reason))
        elif entry['category_id'] in kept:
            objects.setdefault(entry['image_id'], []).append(entry)
    return sound, objects


def _by_hash(images: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(images, key=lambda entry: (hash_of(str(entry['file_name'])), str(entry['id'])))


def _has_objects(image: dict[str, Any], objects: dict[Any, list[dict[str, Any]]]) -> bool:
    """Return whether an image has an object that is no crowd region."""
    return any(not entry.get('iscrowd') for entry in objects.get(image['id'], []))


def _make_report(
    found: dict[str, Any], written: dict[str, Any], problems: Sequence[Problem]
) -> CocoReport:
    """Return the report on what was found in one annotation file and written to another."""
    names = {entry['id']: str(entry['name']) for entry in written['categories']}
    tally = Counter(
        names[entry['category_id']]
        for entry in written['annotations'] if not entry.get('iscrowd')
    )
    return CocoReport(
        images=len(written['images']),
        objects=tally.total(),
        crowds=len(written['annotations']) - tally.total(),
        classes=list(names.values()),
        objects_by_class={name: tally[name] for name in names.values()},
        found_images=len(found['images']),
        found_annotations=len(found['annotations']),
        problems=dict(Counter(f'{k.kind}: {k.reason}' for k in problems)),
    )


def _choose(categories: list[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the categories of these names, all by default."""
    counts = Counter(entry['id'] for entry in categories)
    twice = [str(key) for key, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f'category id {", ".join(twice)} is there twice')
    known = {str(entry['name']).lower() for entry in categories}
    unknown = [name for name in names if name.lower() not in known]
    if unknown:
        raise ValueError(
            f'no class {", ".join(unknown)}: choose from '
            f'{", ".join(str(entry["name"]) for entry in categories)}'
        )
    wanted = {name.lower() for name in names}
    return [entry for entry in categories if not wanted or str(entry['name']).lower() in wanted]


def _unique_images(
    entries: list[dict[str, Any]], problems: list[Problem]
) -> list[dict[str, Any]]:
    """Return the first image of each id; the others are problems."""
    seen = set()
    result = []
    for entry in entries:
        if entry['id'] in seen:
            problems.append(Problem('image', str(entry['file_name']), 'the id is there twice'))
            continue
        seen.add(entry['id'])
        result.append(entry)
    return result


def _check_images(
    candidates: list[dict[str, Any]],
    images: Path,
    output: Path,
    split: str,
    copy: bool,
    count: int | None,
    problems: list[Problem],
    progress: Progress | None,
) -> list[dict[str, Any]]:
    """Return the entries of images that are sound, ``count`` at most, with the images placed.

    Opening a hundred thousand images takes minutes, so what was found is kept in a journal.
    """
    wanted = len(candidates) if count is None else min(count, len(candidates))
    written: list[dict[str, Any]] = []
    path = journal_path(
        output / 'annotations' / '.journal', f'images-{split}', {'images': str(images.resolve())}
    )
    with Journal(path) as journal:
        for entry in candidates:
            if len(written) == wanted:
                break
            reason = _image_fault(entry, images, journal)
            if reason:
                problems.append(Problem('image', str(entry['file_name']), reason))
                continue
            name = str(entry['file_name'])
            place_image(images / name, output / split / name, copy)
            written.append(entry)
            if progress:
                progress(len(written), wanted)
    return written


def _image_fault(entry: dict[str, Any], images: Path, journal: Journal) -> str | None:
    name = str(entry['file_name'])
    if Path(name).is_absolute() or '..' in Path(name).parts:
        return 'the file name leaves the folder'
    path = images / name
    try:
        state = path.stat()
    except OSError:
        return 'no file'
    stamp = [state.st_size, state.st_mtime_ns]
    known = journal.get(name)
    if known is None or known['stamp'] != stamp:
        known = {'stamp': stamp, **_look_at(path)}
        journal.write(name, known)
    if known['size'] is None:
        return 'the file is no image'
    if known['cut_off']:
        return 'the file is cut off'
    if known['size'] != [entry['height'], entry['width']]:
        return 'the file has another size than the annotation file says'
    return None


def _look_at(path: Path) -> dict[str, Any]:
    """Return what the journal has of an image: its size, None if it is none, and its end."""
    try:
        return {'size': list(image_size(path)), 'cut_off': is_cut_off(path)}
    except OSError:
        return {'size': None, 'cut_off': False}


def _write_report(
    output: Path, split: str, report: CocoReport, problems: list[Problem]
) -> CocoReport:
    """Write a report and return it, with the name of its list of problems."""
    report.problem_list = write_list(
        output / f'problems_{split}.csv', ('kind', 'key', 'reason'),
        [(k.kind, k.key, k.reason) for k in problems],
    )
    text = json.dumps(report.to_dict(), indent=2) + '\n'
    write_atomically(output / f'report_{split}.json', text)
    return report

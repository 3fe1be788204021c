"""Which files of a data set's folder were made here: nothing else is overwritten."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msfc.files import write_atomically


def annotation_path(output: Path, split: str) -> Path:
    """Return the annotation file of a split."""
    return output / 'annotations' / f'instances_{split}.json'


def claim_split(
    output: Path, split: str, maker: str, source: Path | None = None, files: Sequence[str] = ()
) -> None:
    """Note that a split is written here, or refuse if it was made by somebody else.

    Args:
        output: folder of the data set.
        split: name of the split.
        maker: the command that writes it, such as ``msfc data coco``.
        source: folder that the images come from; it may be the split's own.
        files: names of further files in the folder that are about to be written.

    Raises:
        ValueError: the annotation file, the images or a further file are there and were not made
            by this command, or the annotation file was changed since.
    """
    mark = _read_mark(output, split)
    advice = 'choose another output or split, or move it away'
    if mark is not None and mark['maker'] != maker:
        raise ValueError(f'{output}, split {split}, was made by {mark["maker"]}: {advice}')
    target, images = annotation_path(output, split), output / split
    if target.exists() and (mark is None or _digest(target) not in mark['annotations']):
        raise ValueError(f'{target} is not as {maker} wrote it: {advice}')
    in_place = source is not None and images.exists() and images.samefile(source)
    others = images.is_file() or (images.is_dir() and any(images.iterdir()))
    if others and not in_place and not (mark and mark['images']):
        raise ValueError(f'{images} was not made by {maker}: {advice}')
    for name in files:
        if mark is None and (output / name).exists():
            raise ValueError(f'{output / name} was not made by {maker}: {advice}')
    mark = mark or {'maker': maker, 'annotations': [], 'images': False}
    mark['images'] = mark['images'] or not in_place
    _write_mark(output, split, mark)


def write_annotations(output: Path, split: str, data: dict[str, Any]) -> Path:
    """Write the annotation file of a split that was claimed, and return its path."""
    target = annotation_path(output, split)
    text = json.dumps(data, separators=(',', ':'))
    mark = _read_mark(output, split)
    if mark is None:
        raise RuntimeError(f'{target} was not claimed')
    # First the note: a kill in between leaves a file that is known.
    known = [_digest(target)] if target.exists() else []
    mark['annotations'] = [*known, hashlib.sha256(text.encode()).hexdigest()]
    _write_mark(output, split, mark)
    write_atomically(target, text)
    return target


def _mark_path(output: Path, split: str) -> Path:
    return output / 'annotations' / f'.made_{split}.json'


def _read_mark(output: Path, split: str) -> dict[str, Any] | None:
    path = _mark_path(output, split)
    if not path.is_file():
        return None
    try:
        mark = json.loads(path.read_bytes())
        return {key: mark[key] for key in ('maker', 'annotations', 'images')}
    except (ValueError, KeyError, TypeError):
        return None  # not ours, or damaged: then nothing is overwritten


def _write_mark(output: Path, split: str, mark: dict[str, Any]) -> None:
    write_atomically(_mark_path(output, split), json.dumps(mark))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

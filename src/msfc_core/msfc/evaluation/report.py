"""Measurements as files: JSON with all there is to know, and CSV with the same rows."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msfc.data import CocoDataset
from msfc.data.digests import dataset_digest
from msfc.evaluation.measurement import Measurement
from msfc.evaluation.versions import library_versions
from msfc.files import write_atomically
from msfc.model import SplitModel
from msfc.output import check_output_file


def write_measurements(
    path: Path,
    measured: Sequence[Measurement],
    reference: Measurement,
    about: Mapping[str, Any],
    columns: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Write measurements as JSON, and beside it as CSV.

    Args:
        path: the JSON file; the CSV file has the suffix ``.csv``.
        measured: rows.
        reference: that differences are taken to.
        about: further entries of the JSON file.
        columns: further values of the rows, by name of the variant; a row without one has null.

    Returns:
        What is in the JSON file.

    Raises:
        OSError: one of them cannot be written.
        ValueError: the JSON file has the suffix of the other one.
    """
    check_report_path(path)
    names = dict.fromkeys(name for row in (columns or {}).values() for name in row)
    rows = [
        {
            'variant': entry.variant,
            **dict.fromkeys(names),
            **(columns or {}).get(entry.variant, {}),
            **entry.to_dict(reference),
        }
        for entry in measured
    ]
    content = {**about, 'reference': reference.variant, 'rows': rows}
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False) + '\n')
    write_atomically(path.with_suffix('.csv'), _csv(rows))
    return content


def check_report_path(path: Path) -> Path:
    """Return the path of a JSON file that can be written, and a CSV file beside it.

    Raises:
        OSError: one of them cannot be written.
        ValueError: it has the suffix of the other one.
    """
    if path.suffix == '.csv':
        raise ValueError(f'{path}: the JSON file cannot have the suffix of the CSV file beside it')
    check_output_file(path.with_suffix('.csv'))
    return check_output_file(path)


def data_digest(root: Path, split: str) -> str:
    """Return a hash of a data set's annotation file; see :mod:`msfc.data.digests` for pictures.

    Args:
        root: folder of the data set.
        split: of it.
    """
    path = root / 'annotations' / f'instances_{split}.json'
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def weights_digest(model: SplitModel) -> str:
    """Return a hash of all of a model's weights, those of the sender too, in 16 digits.

    The model's fingerprint leaves the sender's out: results depend on both.
    """
    digest = hashlib.sha256(json.dumps(model.config(), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous().numpy()
        digest.update(f'{name} {values.dtype} {values.shape}'.encode())
        digest.update(values.tobytes())
    return digest.hexdigest()[:16]


def describe_data(dataset: CocoDataset, root: Path, split: str, images: int) -> dict[str, Any]:
    """Return what a report says of the data, without the machine's own paths.

    Args:
        dataset: the data.
        root: its folder.
        split: which of its splits.
        images: how many of its images, the first by id, were measured.
    """
    return {
        'name': root.resolve().name,
        'split': split,
        'images': images,
        'images_in_split': len(dataset),
        'annotations_sha256': data_digest(root, split),
        'data_sha256': dataset_digest(dataset, images),
        'versions': library_versions(),
    }


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    flat = [
        {
            key if part is None else f'{key}_{part}': value if part is None else value[part]
            for key, value in row.items()
            for part in (value if isinstance(value, dict) else (None,))
        }
        for row in rows
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(flat[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()

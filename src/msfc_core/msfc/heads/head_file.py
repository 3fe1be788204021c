"""Files of heads: a folder ``heads/<output>`` in a model's folder, such as ``heads/semantic``.

It has ``head.safetensors`` and ``head.json``:

================== ==============================================================================
``format``         ``msfc-head``
``format_version`` 1
``head``           what :func:`msfc.heads.build_head` needs
``detector``       of which detector's pyramid it was trained on: its
                   :func:`~msfc.detectors.base.detector_digest`
``weights_sha256`` of ``head.safetensors``
``extra``          whatever its maker wants to say
================== ==============================================================================

A head belongs to a detector, whatever codec is in between: a model that has its detector from
another one finds the heads there. Neither file can make the reader run code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from msfc.detectors.base import SplitDetector, detector_digest
from msfc.files import file_sha256, write_atomically, writing
from msfc.heads import build_head
from msfc.heads.base import PyramidHead, StoredHead
from msfc.model import SplitModel
from msfc.model_file import ModelFileError, check_weights, model_folders
from msfc.zoo import DEFAULT_MODEL

FORMAT = 'msfc-head'
FORMAT_VERSION = 1
FOLDER = 'heads'
WEIGHTS_FILE = 'head.safetensors'
DESCRIPTION_FILE = 'head.json'

_TYPES: dict[str, type] = {
    'head': dict, 'detector': str, 'weights_sha256': str, 'extra': dict,
}


def save_head(
    head: StoredHead,
    directory: Path,
    detector: SplitDetector,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a head, matrices and kernels in half precision.

    Args:
        head: the head; it is not changed.
        directory: made if need be; a head in it is replaced.
        detector: on whose pyramid it was trained, with the weights of its model file.
        extra: JSON-serialisable remarks, such as data, commands and figures.

    Raises:
        OSError: it cannot be written.
    """
    tensors = {}
    for name, tensor in head.state_dict().items():
        plain = tensor.detach().cpu().float().contiguous().clone()
        tensors[name] = plain.half() if plain.dim() > 1 else plain
    directory.mkdir(parents=True, exist_ok=True)
    weights, partial = directory / WEIGHTS_FILE, directory / f'{WEIGHTS_FILE}.partial'
    with writing(weights, partial):
        save_file(tensors, partial, metadata={'format': FORMAT})
        partial.chmod(directory.stat().st_mode & 0o666)  # safetensors writes for the owner alone
        os.replace(partial, weights)
    description = {
        'format': FORMAT,
        'format_version': FORMAT_VERSION,
        'head': head.config(),
        'detector': detector_digest(detector),
        'weights_sha256': file_sha256(weights),
        'extra': dict(extra or {}),
    }
    text = json.dumps(description, indent=2, ensure_ascii=False)
    write_atomically(directory / DESCRIPTION_FILE, f'{text}\n')


def load_heads(
    model: SplitModel, path_or_name: str | os.PathLike[str] = DEFAULT_MODEL
) -> dict[str, PyramidHead]:
    """Load the heads that a model has beside that of the instances.

    Args:
        model: as :func:`msfc.model_file.load_model` returned it.
        path_or_name: what it was loaded from.

    Returns:
        By their ``output``: the detector's own, and those that lie in the model's folder or in
        that of its detector. They are in evaluation mode, on the detector's device.

    Raises:
        ModelFileError: if one is damaged, foreign, or of another detector.
    """
    detector = model.detector
    heads = detector.heads()
    digest = ''
    for folder in model_folders(path_or_name):
        for description in sorted(folder.glob(f'{FOLDER}/*/{DESCRIPTION_FILE}')):
            place = description.parent
            digest = digest or detector_digest(detector)
            head = load_head(place, digest)
            if head.output != place.name:
                raise ModelFileError(f'{place} has the head {head.output!r}: rename the folder')
            heads.setdefault(head.output, head)
    return {name: head.to(detector.device).eval() for name, head in heads.items()}


def load_head(directory: Path, digest: str) -> StoredHead:
    """Load a head.

    Args:
        directory: of its files.
        digest: of the detector that it is to work behind.

    Returns:
        The head with float32 weights, in evaluation mode, on the CPU.

    Raises:
        ModelFileError: if it is missing, damaged, foreign, or of another detector.
    """
    description = _read_description(directory / DESCRIPTION_FILE)
    if description['detector'] != digest:
        raise ModelFileError(
            f'the head in {directory} was trained behind detector {description["detector"]}, and '
            f'this is {digest}: train it anew (msfc train-head), or move it away'
        )
    weights = directory / WEIGHTS_FILE
    check_weights(weights, description['weights_sha256'], DESCRIPTION_FILE)
    try:
        head = build_head(description['head'])
        tensors = load_file(weights)
        head.load_state_dict({name: tensor.to(torch.float32) for name, tensor in tensors.items()})
    except (ValueError, TypeError, RuntimeError, SafetensorError, OSError) as error:
        raise ModelFileError(f'the head in {directory} cannot be used: {error}') from error
    return head.eval()


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f'{path} cannot be read: {error}') from error
    if not isinstance(description, dict) or description.get('format') != FORMAT:
        raise ModelFileError(f'{path} does not describe a head')
    if description.get('format_version') != FORMAT_VERSION:
        raise ModelFileError(
            f'{path} has format version {description.get("format_version")}; this version of '
            f'msfc reads {FORMAT_VERSION}'
        )
    for key, kind in _TYPES.items():
        if not isinstance(description.get(key), kind):
            raise ModelFileError(f'{path} has no {key!r}, or not as {kind.__name__}')
    return description

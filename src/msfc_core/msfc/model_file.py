"""Model files: a directory with ``model.safetensors`` and ``model.json``.

``model.json`` has:

================== ==============================================================================
``format``         ``msfc-model``
``format_version`` 2
``detector``       what :func:`msfc.detectors.build_detector` needs
``codec``          what :func:`msfc.codecs.base.build_codec` needs, or null: no codec
``class_names``    names of the classes, in order of their labels
``rate``           the default rate, one that the codec's coder knows; 0 without a codec
``fingerprint``    of the stored weights, see :func:`msfc.model.compute_fingerprint`
``weights_sha256`` of ``model.safetensors``
``detector_from``  only where ``model.safetensors`` lacks the detector's weights, as they are those
                   of another model: ``model``, its name, and ``weights_sha256``, as that model's
``extra``          whatever its maker wants to say: training data, commands, figures
================== ==============================================================================

The other model is the folder of that name beside this one, or the shipped model of that name, and
has a detector of its own. All else, the fingerprint included, is as if its weights were here.

Neither file can make the reader run code, or read files elsewhere. Files of version 1 are read as
well; their fingerprint is taken anew, as names belong to it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from msfc import model_file_v1
from msfc.codecs.base import build_codec
from msfc.detectors import build_detector
from msfc.files import file_sha256, writing
from msfc.model import SplitModel, compute_fingerprint
from msfc.wire.packet import is_fingerprint
from msfc.zoo import DEFAULT_MODEL

FORMAT = 'msfc-model'
FORMAT_VERSION = 2
WEIGHTS_FILE = 'model.safetensors'
DESCRIPTION_FILE = 'model.json'

ZOO = Path(__file__).parent / 'zoo'
"""The shipped models, a directory each."""

HALF_MAX = torch.finfo(torch.float16).max

DETECTOR_PREFIX = 'detector.'
"""What the names of the detector's tensors begin with."""

_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.-]{0,99}')
"""Names of shipped models, and of folders that a model may share a detector with."""

_TYPES: dict[str, tuple[type, ...]] = {
    'detector': (dict,),
    'codec': (dict, type(None)),
    'class_names': (list,),
    'rate': (int,),
    'fingerprint': (str,),
    'weights_sha256': (str,),
    'extra': (dict,),
}


class ModelFileError(ValueError):
    """A model file that is missing, foreign or damaged; the message says which and how."""


def shipped_models() -> list[str]:
    """Return the names of the models that come with the package."""
    return sorted(path.parent.name for path in ZOO.glob(f'*/{DESCRIPTION_FILE}'))


def save_model(
    model: SplitModel,
    directory: str | os.PathLike[str],
    *,
    half: bool = True,
    extra: Mapping[str, Any] | None = None,
    detector_from: str | os.PathLike[str] | None = None,
) -> str:
    """Write a model.

    Args:
        model: the model; it is not changed.
        directory: made if need be; a model in it is replaced.
        half: store matrices and kernels in half precision. Vectors (offsets, norm statistics)
            stay in single precision, as does what half precision cannot hold.
        extra: JSON-serialisable remarks, such as training data and commands.
        detector_from: a model whose detector has the same stored weights, by name if it is
            shipped or as the folder beside ``directory``: they are not written again.

    Returns:
        The fingerprint of the stored model. It is the loaded model's; that of ``model`` itself
        differs from it unless its weights are half-precision numbers already.

    Raises:
        ModelFileError: ``detector_from`` has other weights, or would not be found again.
        OSError: it cannot be written; an earlier model is as it was.
    """
    directory = Path(directory)
    tensors = {name: _stored(tensor, half) for name, tensor in model.state_dict().items()}
    config = model.config()
    fingerprint = compute_fingerprint(config, tensors)
    description = {
        'format': FORMAT,
        'format_version': FORMAT_VERSION,
        **config,
        'rate': model.rate,
        'fingerprint': fingerprint,
        'weights_sha256': '',
    }
    if detector_from is not None:
        description['detector_from'] = _share_detector(tensors, _find(detector_from), directory)
        tensors = {k: x for k, x in tensors.items() if not k.startswith(DETECTOR_PREFIX)}
    description['extra'] = dict(extra or {})
    json.dumps(description)  # Fails before anything is written.
    _write(directory, tensors, description)
    return fingerprint


def _write(directory: Path, tensors: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Write both files, and the digest of the one into the other."""
    directory.mkdir(parents=True, exist_ok=True)
    # Whoever reads in between, or after a kill, finds a digest that does not fit, not a mixture.
    # Both are written before either takes its place: a full disk leaves an earlier model whole.
    weights = directory / WEIGHTS_FILE
    partial = directory / f'{WEIGHTS_FILE}.partial'
    with writing(weights, partial):
        save_file(tensors, partial, metadata={'format': FORMAT})
        partial.chmod(directory.stat().st_mode & 0o666)  # safetensors writes for the owner alone.
        description['weights_sha256'] = file_sha256(partial)
        text = json.dumps(description, indent=2, ensure_ascii=False)
        described = directory / f'{DESCRIPTION_FILE}.partial'
        with writing(directory / DESCRIPTION_FILE, described):
            described.write_text(f'{text}\n', encoding='utf-8')
            os.replace(partial, weights)
            os.replace(described, directory / DESCRIPTION_FILE)


def describe_model(path_or_name: str | os.PathLike[str] = DEFAULT_MODEL) -> dict[str, Any]:
    """Return the checked contents of a model's ``model.json``, without loading weights.

    Args:
        path_or_name: a directory, or the name of a shipped model.

    Raises:
        ModelFileError: if it is missing, foreign or damaged.
    """
    return _describe(_find(path_or_name))


def model_folders(path_or_name: str | os.PathLike[str] = DEFAULT_MODEL) -> list[Path]:
    """Return the folder of a model, and behind it that of the model whose detector it shares.

    Args:
        path_or_name: a directory, or the name of a shipped model.

    Raises:
        ModelFileError: if one is missing, foreign or damaged.
    """
    directory = _find(path_or_name)
    reference = _read_description(directory / DESCRIPTION_FILE).get('detector_from')
    shared = [] if reference is None else [_find_detector(reference, directory)[0]]
    return [directory, *shared]


def stored_weights(description: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a model's stored weights, with that of a shared detector behind it.

    Args:
        description: of :func:`describe_model`.
    """
    shared = description.get('detector_from')
    own: str = description['weights_sha256']
    return f'{own} {shared["weights_sha256"]}' if shared else own


def load_model(
    path_or_name: str | os.PathLike[str] = DEFAULT_MODEL,
    device: str | torch.device = 'cpu',
) -> SplitModel:
    """Load a model.

    Args:
        path_or_name: a directory, or the name of a shipped model.
        device: where to put it.

    Returns:
        The model with float32 weights, in evaluation mode.

    Raises:
        ModelFileError: if it is missing, foreign or damaged.
    """
    directory = _find(path_or_name)
    description = _describe(directory)
    tensors = _read_weights(description, directory)
    model = _build(description, directory)
    _load_weights(model, tensors, directory / WEIGHTS_FILE)
    fingerprint = model.fingerprint
    if fingerprint != description['fingerprint']:
        raise ModelFileError(
            f'{directory} says that its fingerprint is {description["fingerprint"]}, but its '
            f'contents give {fingerprint}: it was altered, or written by another version of msfc'
        )
    return model.to(device).eval()


def _find(path_or_name: str | os.PathLike[str]) -> Path:
    """Return the directory of a model."""
    name = os.fspath(path_or_name)
    path = Path(name)
    shipped_name = _NAME.fullmatch(name) and (ZOO / name).is_dir()
    # A folder of that name, such as one with data, does not hide a shipped model.
    if name and path.is_dir() and ((path / DESCRIPTION_FILE).exists() or not shipped_name):
        return path
    if shipped_name:
        return ZOO / name
    if path.is_file():
        raise ModelFileError(f'{path} is a file; a model is the directory that it lies in')
    shipped = ', '.join(shipped_models()) or 'none'
    raise ModelFileError(f'{name!r} is no directory and no shipped model (there are: {shipped})')


def _describe(directory: Path) -> dict[str, Any]:
    """Return a directory's checked description with today's keys."""
    description = _read_description(directory / DESCRIPTION_FILE)
    if description['format_version'] == FORMAT_VERSION:
        return description
    description = model_file_v1.current_description(description)
    config = {key: description[key] for key in ('detector', 'codec', 'class_names')}
    description['fingerprint'] = compute_fingerprint(
        config, _read_weights(description, directory)
    )
    return description


def _read_description(path: Path) -> dict[str, Any]:
    """Read and check a ``model.json``, of whatever version that can be read."""
    try:
        description = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise ModelFileError(f'{path.parent} has no {DESCRIPTION_FILE}') from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f'{path} cannot be read: {error}') from error
    if not isinstance(description, dict) or description.get('format') != FORMAT:
        raise ModelFileError(f'{path} does not describe an MSFC model')
    version = description.get('format_version')
    known = {model_file_v1.VERSION: model_file_v1.TYPES, FORMAT_VERSION: _TYPES}
    if not isinstance(version, int) or version not in known:
        raise ModelFileError(
            f'{path} has format version {version}; this version of msfc reads '
            f'{" and ".join(map(str, known))}'
        )
    for key, types in known[version].items():
        if key not in description:
            raise ModelFileError(f'{path} has no {key!r}')
        if not isinstance(description[key], types):
            raise ModelFileError(f'{path}: {key!r} is a {type(description[key]).__name__}')
    if not is_fingerprint(description['fingerprint']):
        raise ModelFileError(f'{path}: the fingerprint is not 16 hexadecimal digits')
    if description.get('detector_from') is not None:
        _check_reference(description['detector_from'], path)
    return description


def _check_reference(reference: Any, path: Path) -> None:
    """Refuse what does not name another model and its weights, or leads elsewhere."""
    if not isinstance(reference, dict) or reference.keys() != {'model', 'weights_sha256'}:
        raise ModelFileError(f"{path}: 'detector_from' does not have a model and weights_sha256")
    name, digest = reference['model'], reference['weights_sha256']
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ModelFileError(
            f"{path}: 'detector_from' must have the plain name of a folder, not {name!r:.120}"
        )
    if not isinstance(digest, str) or not re.fullmatch('[0-9a-f]{64}', digest):
        raise ModelFileError(f"{path}: 'detector_from' has no SHA-256 of weights")


def _find_detector(reference: Mapping[str, str], directory: Path) -> tuple[Path, dict[str, Any]]:
    """Return the folder of the model whose detector a model has, and its description."""
    name, digest = reference['model'], reference['weights_sha256']
    beside = directory.resolve().parent / name
    found = [place for place in (beside, ZOO / name) if (place / DESCRIPTION_FILE).is_file()]
    for place in found:
        description = _read_description(place / DESCRIPTION_FILE)
        if description.get('detector_from') is not None:
            raise ModelFileError(
                f'{directory} has the detector of {place}, which has none of its own'
            )
        if description['weights_sha256'] == digest:
            return place, description
    if found:
        raise ModelFileError(
            f'{directory} has the detector of {name!r} with weights of SHA-256 {digest[:12]}…, '
            f'but {found[0]} has others: put the one that it was made with at {beside}'
        )
    raise ModelFileError(
        f'{directory} has the detector of {name!r}, which is no shipped model: put its folder '
        f'at {beside}'
    )


def _share_detector(
    tensors: Mapping[str, Tensor], source: Path, directory: Path
) -> dict[str, str]:
    """Return how a model in a directory names another model that has the same detector.

    Args:
        tensors: the model's, as they would be stored.
        source: folder of the other model.
        directory: that the model will be in.

    Raises:
        ModelFileError: if the weights differ, or it would not be found from there.
    """
    name = source.resolve().name
    if directory.resolve() == source.resolve():
        raise ModelFileError(f'{directory} cannot have its detector from itself')
    digest = _read_description(source / DESCRIPTION_FILE)['weights_sha256']
    reference = {'model': name, 'weights_sha256': digest}
    _check_reference(reference, directory / DESCRIPTION_FILE)
    own = {k: x for k, x in tensors.items() if k.startswith(DETECTOR_PREFIX)}
    other = _read_detector(reference, directory)
    different = own.keys() ^ other.keys()
    different |= {k for k in own.keys() & other.keys() if not _same_bits(own[k], other[k])}
    if different:
        raise ModelFileError(
            f'the detector is not that of {source}: {_enumerate(different)} differ; store it '
            'whole, without detector_from'
        )
    return reference


def _same_bits(x: Tensor, y: Tensor) -> bool:
    """Return whether two stored tensors are the same in single precision, to the bit."""
    if x.is_floating_point() and y.is_floating_point():
        x, y = x.float().view(torch.int32), y.float().view(torch.int32)
    return torch.equal(x, y)


def _build(description: Mapping[str, Any], directory: Path) -> SplitModel:
    """Build the described architecture, with random weights."""
    try:
        settings = description['codec']
        codec = None if settings is None else build_codec(settings)
        model = SplitModel(build_detector(description['detector']), codec, description['rate'])
    except (
        ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError, OverflowError
    ) as error:
        raise ModelFileError(f'the model in {directory} cannot be built: {error}') from error
    if list(model.class_names) != description['class_names']:
        raise ModelFileError(
            f'{directory} names {len(description["class_names"])} classes that are not those of '
            'its detector'
        )
    return model


def _read_weights(description: Mapping[str, Any], directory: Path) -> dict[str, Tensor]:
    """Read a model's tensors, by today's names, those of a shared detector too."""
    tensors = _read_file(description, directory)
    reference = description.get('detector_from')
    if reference is None:
        return tensors
    inside = [name for name in tensors if name.startswith(DETECTOR_PREFIX)]
    if inside:
        raise ModelFileError(
            f'{directory} has a detector besides that of {reference["model"]!r}: '
            f'{_enumerate(inside)}'
        )
    return {**tensors, **_read_detector(reference, directory)}


def _read_detector(reference: Mapping[str, str], directory: Path) -> dict[str, Tensor]:
    """Read the tensors of the detector that a model in this directory shares."""
    place, description = _find_detector(reference, directory)
    tensors = _read_file(description, place)
    return {name: x for name, x in tensors.items() if name.startswith(DETECTOR_PREFIX)}


def check_weights(path: Path, sha256: str, description: str) -> None:
    """Check that a file of weights is the one that its description is of.

    Args:
        path: the file.
        sha256: that it is to have, in hexadecimal digits.
        description: name of the file beside it that says so.

    Raises:
        ModelFileError: it is missing, or another one.
    """
    if not path.is_file():
        raise ModelFileError(f'{path.parent} has no {path.name}')
    if file_sha256(path) != sha256:
        raise ModelFileError(
            f'{path} is damaged, or not the one that {description} beside it describes: its '
            'SHA-256 differs'
        )


def _read_file(description: Mapping[str, Any], directory: Path) -> dict[str, Tensor]:
    """Read the tensors of a model's file, by today's names."""
    path = directory / WEIGHTS_FILE
    check_weights(path, description['weights_sha256'], DESCRIPTION_FILE)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f'{path} is not a readable safetensors file: {error}') from error
    if description['format_version'] == model_file_v1.VERSION:
        return {model_file_v1.current_name(name): x for name, x in tensors.items()}
    return tensors


def _load_weights(model: SplitModel, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Fill a model with the tensors of a file, which must be exactly the model's."""
    if model.codec is not None:
        model.codec.make_room(name.removeprefix('codec.') for name in tensors)
    state = model.state_dict()
    for names, problem in (
        (state.keys() - tensors.keys(), 'lacks'),
        (tensors.keys() - state.keys(), 'has unknown'),
    ):
        if names:
            raise ModelFileError(f'{path} {problem} tensors: {_enumerate(names)}')
    for name, tensor in sorted(tensors.items()):
        if tensor.shape != state[name].shape:
            raise ModelFileError(
                f'{path}: {name} has shape {tuple(tensor.shape)}, the model '
                f'{tuple(state[name].shape)}'
            )
    model.load_state_dict(tensors)


def _stored(tensor: Tensor, half: bool) -> Tensor:
    """Return a tensor as it goes into the file, sharing no memory with others."""
    stored = tensor.detach().cpu().contiguous().clone()
    if stored.is_floating_point():
        stored = stored.float()
        if half and stored.dim() > 1 and bool((stored.abs() <= HALF_MAX).all()):
            stored = stored.half()
    return stored


def _enumerate(names: Iterable[str], most: int = 3) -> str:
    """Write the first few of some names."""
    ordered = sorted(names)
    rest = f' and {len(ordered) - most} more' if len(ordered) > most else ''
    return ', '.join(ordered[:most]) + rest

"""Weights for Detectron2 models, read without running anything that a file brings along.

Detectron2's zoo consists of plain pickles of NumPy arrays, which its own loader opens with
``pickle.load``. Here they go through an unpickler that knows nothing but arrays; ``.pth`` files go
through ``torch.load(weights_only=True)``. Detectron2 itself then matches and converts the names.
"""

from __future__ import annotations

import _codecs
import collections
import logging
import pickle
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

_LOGGER = logging.getLogger(__name__)
_SHOWN = 4  # names in an error message
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_SCALAR = np.float64(0).__reduce__()[0]
_ALLOWED_GLOBALS = {
    ('numpy', 'ndarray'): np.ndarray,
    ('numpy', 'dtype'): np.dtype,
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('_codecs', 'encode'): _codecs.encode,
    # The module was renamed in NumPy 2; files of both ages are about.
    ('numpy.core.multiarray', '_reconstruct'): _RECONSTRUCT,
    ('numpy._core.multiarray', '_reconstruct'): _RECONSTRUCT,
    ('numpy.core.multiarray', 'scalar'): _SCALAR,
    ('numpy._core.multiarray', 'scalar'): _SCALAR,
}


def load_weights(model: nn.Module, weights: str | Path, *, partial: bool = False) -> None:
    """Load a checkpoint into a Detectron2 model.

    Args:
        model: the network, as Detectron2 built it.
        weights: a ``.pkl`` (Detectron2, Caffe2 and ImageNet zoo), ``.pth`` or ``.safetensors``
            file, or an address that Detectron2 can fetch (``detectron2://``, ``https://``).
        partial: accept weights for a part of the model, such as an ImageNet backbone; the rest
            keeps what it has.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, unsafe to read, or not of this architecture.
    """
    from detectron2.checkpoint import DetectionCheckpointer

    source = str(weights)
    if '://' not in source and not Path(source).is_file():
        raise FileNotFoundError(f'no weights at {source}')

    class Checkpointer(DetectionCheckpointer):
        """Detectron2's own, but for how a file is read."""

        incompatible: Any = None
        given = 0

        def _load_file(self, filename: str) -> dict[str, Any]:
            return _read(filename)

        def _load_model(self, checkpoint: dict[str, Any]) -> Any:
            self.given = len(checkpoint['model'])
            self.incompatible = super()._load_model(checkpoint)
            return self.incompatible

    checkpointer = Checkpointer(model)
    checkpointer.load(source, checkpointables=[])
    wrong = [key for key, _, _ in checkpointer.incompatible.incorrect_shapes]
    missing = [
        key
        for key in checkpointer.incompatible.missing_keys
        if key not in wrong and not key.endswith('num_batches_tracked')
    ]
    if partial:
        # Counted from the file's side: frozen batch norms fill in what they miss.
        loaded = checkpointer.given - len(checkpointer.incompatible.unexpected_keys) - len(wrong)
        if loaded <= 0:
            raise ValueError(f'{source} has no tensor of this model')
        _LOGGER.info('%s gave %d of %d tensors', source, loaded, len(model.state_dict()))
    elif missing or wrong:
        problems = [f'it lacks {_some(missing)}'] if missing else []
        problems += [f'it has {_some(wrong)} in another shape'] if wrong else []
        raise ValueError(f'{source} does not fit this model: ' + '; '.join(problems))


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles containers, numbers, strings and NumPy arrays; refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed global, or refuse the file."""
        try:
            return _ALLOWED_GLOBALS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f'it asks for {module}.{name}, and only arrays are read'
            ) from None


def _read(filename: str) -> dict[str, Any]:
    """Read a checkpoint into the dictionary that Detectron2's checkpointer goes on with."""
    suffix = Path(filename).suffix
    try:
        if suffix == '.safetensors':
            return {'model': load_file(filename)}
        if suffix == '.pkl':
            with open(filename, 'rb') as file:
                return _zoo_format(_unpickle(file))
    except (
        AttributeError, EOFError, IndexError, KeyError, pickle.UnpicklingError, SafetensorError,
        TypeError, ValueError,
    ) as error:
        raise ValueError(f'{filename} cannot be read as weights: {error}') from error
    try:
        loaded = torch.load(filename, map_location='cpu', weights_only=True)
    except (EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        # Not torch's own text: it advises to turn the safety off.
        raise ValueError(
            f'{filename} cannot be read as weights: it is damaged or holds more than tensors'
        ) from error
    if not isinstance(loaded, dict):
        raise ValueError(f'{filename} has a {type(loaded).__name__}, not weights by name')
    return loaded if 'model' in loaded else {'model': loaded}


def _unpickle(file: IO[bytes]) -> dict[str, Any]:
    loaded = _ArrayUnpickler(file, encoding='latin1').load()
    if not isinstance(loaded, dict):
        raise ValueError(f'it has a {type(loaded).__name__}, not weights by name')
    return loaded


def _zoo_format(data: dict[str, Any]) -> dict[str, Any]:
    """Tell a file of Detectron2's zoo from one of Caffe2's, as Detectron2's own loader does."""
    if 'model' in data and '__author__' in data:
        return data
    blobs = data.get('blobs', data)
    blobs = {key: value for key, value in blobs.items() if not key.endswith('_momentum')}
    return {'model': blobs, '__author__': 'Caffe2', 'matching_heuristics': True}


def _some(names: list[str]) -> str:
    rest = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return ', '.join(names[:_SHOWN]) + rest

"""Training checkpoints: safetensors and JSON, written so that a kill never leaves half of one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from msfc.files import writing
from msfc.model_file_v1 import current_name

# safetensors needs names for the optimiser's state: parameter number, then entry.
_OPTIMIZER = 'optimizer/'
_MODEL = 'model/'


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: Optimizer, progress: dict[str, Any]
) -> None:
    """Write weights, optimiser state and progress (JSON-serialisable) to one file.

    Raises:
        ValueError: some of them are not finite; what was written before stays.
        OSError: it cannot be written; what was written before stays.
    """
    tensors: dict[str, Tensor] = {
        _MODEL + name: value.detach().contiguous().cpu()
        for name, value in model.state_dict().items()
    }
    for index, state in optimizer.state_dict()['state'].items():
        for key, value in state.items():
            tensor = torch.as_tensor(value).detach().contiguous().cpu()
            tensors[f'{_OPTIMIZER}{index}/{key}'] = tensor
    endless = find_endless(tensors)
    if endless:
        raise ValueError(f'{endless.removeprefix(_MODEL)} is not finite')
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix('.partial')
    with writing(path, partial):
        save_file(tensors, partial, metadata={'progress': json.dumps(progress)})
        os.replace(partial, path)


def find_endless(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of a tensor with infinite values or values that are no numbers, or None."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return name
    return None


def read_progress(path: Path) -> dict[str, Any] | None:
    """Return the progress of a checkpoint, or None where there is none.

    Raises:
        ValueError: the file is not a checkpoint.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework='pt') as file:
            progress: dict[str, Any] = json.loads((file.metadata() or {})['progress'])
        if not isinstance(progress['step'], str) or not isinstance(progress['iteration'], int):
            raise ValueError('it does not say where it is')
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, error) from error
    return progress


def load_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Load weights and optimiser state that :func:`save_checkpoint` wrote for the same model.

    Raises:
        ValueError: the checkpoint is another model's, or damaged.
    """
    weights: dict[str, Tensor] = {}
    state: dict[int, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework='pt') as file:
            names = file.keys()  # a method of its own: the file is no mapping
            for name in names:
                if name.startswith(_MODEL):
                    weights[current_name(name.removeprefix(_MODEL))] = file.get_tensor(name)
                else:
                    index, key = name.removeprefix(_OPTIMIZER).split('/')
                    state.setdefault(int(index), {})[key] = file.get_tensor(name)
    except (SafetensorError, ValueError) as error:
        raise _unreadable(path, error) from error
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    if shapes != {name: value.shape for name, value in weights.items()}:
        raise ValueError(f'{path} is the checkpoint of another model')
    model.load_state_dict(weights)
    groups = optimizer.state_dict()['param_groups']
    optimizer.load_state_dict({'state': state, 'param_groups': groups})
    # Into the parameters' memory layout: another one is slower, and may round in another way.
    for parameter, entries in optimizer.state.items():
        for key, value in entries.items():
            if value.shape == parameter.shape:
                entries[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f'{path} is not a readable checkpoint ({error}): delete it to begin its step anew'
    )

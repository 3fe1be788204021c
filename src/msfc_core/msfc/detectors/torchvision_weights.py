"""Weights of torchvision's Mask R-CNNs and Keypoint R-CNNs as detectors of this project."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision.models import WeightsEnum, get_model_weights
from torchvision.ops import FrozenBatchNorm2d

from msfc.detectors.torchvision import TorchvisionDetector

ARCHITECTURES: dict[str, dict[str, Any]] = {
    'maskrcnn_resnet50_fpn': {'norm': 'frozen'},
    'maskrcnn_resnet50_fpn_v2': {'norm': 'batch', 'design': 'v2'},
    'keypointrcnn_resnet50_fpn': {'norm': 'frozen', 'masks': False},
}
"""torchvision's models by name, with what their detectors differ in from the defaults."""

CLASS_LAYER = 'roi_heads.box_predictor.cls_score.weight'
KEYPOINT_LAYER = 'roi_heads.keypoint_predictor.kps_score_lowres.weight'
WITHOUT_EPSILON = ('bf2d0c1e', 'fc266e95')
"""Beginnings of the SHA-256 of COCO_V1's files: they were made before frozen batch norm had an
epsilon, and torchvision sets it to 0 for these weights."""


def import_torchvision(
    architecture: str, weights: str | Path, class_names: Sequence[str] | None = None
) -> TorchvisionDetector:
    """Make a detector of torchvision's weights.

    Args:
        architecture: torchvision's name of the model.
        weights: a file of a state dict, as ``torch.save`` writes it (also one with it under
            ``model``, as torchvision's training scripts write it), or the name of weights that
            torchvision downloads, such as ``COCO_V1``.
        class_names: without background; None for COCO's of torchvision, which 91 classes have.

    Raises:
        OSError: the file is not there, or cannot be downloaded.
        ValueError: an unknown name, weights of another architecture, or classes that do not fit.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f'unknown model {architecture!r}: choose from {", ".join(ARCHITECTURES)}'
        )
    known = get_model_weights(architecture)
    path = Path(weights)
    if str(weights) in known.__members__:
        state, without_epsilon = _download(known[str(weights)])
    elif path.is_file():
        state, without_epsilon = _read(path)
    else:
        raise FileNotFoundError(
            f'{weights} is no file, and no weights of {architecture}: '
            f'{", ".join(known.__members__)}'
        )
    detector = TorchvisionDetector.from_config({
        'class_names': _class_names(state, path, class_names, known),
        'keypoint_names': _keypoint_names(state, path, known),
        **ARCHITECTURES[architecture],
    })
    try:
        detector.model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f'{weights} does not fit {architecture}: {error}') from error
    if without_epsilon:
        _without_epsilon(detector)
    return detector.eval()


def _download(entry: WeightsEnum) -> tuple[dict[str, Tensor], bool]:
    try:
        state = entry.get_state_dict(progress=False, check_hash=True)
    except URLError as error:
        raise OSError(
            f'{entry.url} cannot be downloaded ({error.reason}): download it where that is '
            'possible, and give the file as --weights'
        ) from error
    return dict(state), any(digest in entry.url for digest in WITHOUT_EPSILON)


def _read(path: Path) -> tuple[dict[str, Tensor], bool]:
    try:
        state: Any = torch.load(path, map_location='cpu', weights_only=True)
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise ValueError(f'{path} is no file of PyTorch weights: {error}') from error
    if isinstance(state, dict) and isinstance(state.get('model'), dict):
        state = state['model']
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f'{path} has no state dict: save model.state_dict() with torch.save')
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return state, digest.startswith(WITHOUT_EPSILON)


def _class_names(
    state: dict[str, Tensor], path: Path, given: Sequence[str] | None, known: type[WeightsEnum]
) -> list[str]:
    """Return the names of the classes that weights are for.

    Raises:
        ValueError: there are none, or not as many as the weights have.
    """
    if CLASS_LAYER not in state:
        raise ValueError(f'{path} has no {CLASS_LAYER}: these are not weights of a Mask R-CNN')
    count = len(state[CLASS_LAYER]) - 1
    if given is None:
        names = next(iter(known.__members__.values())).meta['categories'][1:]
        # COCO's ids have gaps, which torchvision gives one name.
        given = [f'unused {k}' if name == 'N/A' else name for k, name in enumerate(names, 1)]
        if len(given) != count:
            raise ValueError(
                f'{path} has {count} classes, not the {len(given)} of COCO: give their names'
            )
    if len(given) != count:
        raise ValueError(f'{path} has {count} classes, and {len(given)} names are given')
    return list(given)


def _keypoint_names(
    state: dict[str, Tensor], path: Path, known: type[WeightsEnum]
) -> tuple[str, ...]:
    """Return the names of the keypoints that weights are for: COCO's, where they are as many.

    Raises:
        ValueError: it is a Keypoint R-CNN, and the weights are not of one.
    """
    names = next(iter(known.__members__.values())).meta.get('keypoint_names')
    if names is None:
        return ()
    if KEYPOINT_LAYER not in state:
        raise ValueError(
            f'{path} has no {KEYPOINT_LAYER}: these are not weights of a Keypoint R-CNN'
        )
    count = state[KEYPOINT_LAYER].shape[1]
    return tuple(names) if len(names) == count else tuple(f'keypoint {k}' for k in range(count))


@torch.no_grad()
def _without_epsilon(detector: TorchvisionDetector) -> None:
    """Take the epsilon that layers will add off their variances."""
    for module in detector.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_var.sub_(module.eps)

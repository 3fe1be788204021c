"""Detectron2 model configurations as self-contained, JSON-serialisable data.

Detectron2 describes a model in one of two ways: as a YAML file (*yacs*), or as a Python file of
lazy calls (*LazyConfig*). :func:`read_config` turns either into a plain dictionary that needs no
file any more, and :func:`build_model` builds the network from such a dictionary:

=================  =========================================================================
key                meaning
=================  =========================================================================
``format``         ``yaml`` or ``lazy``
``model``          ``yaml``: the resolved configuration as YAML text; ``lazy``: a tree of calls
``min_size``       ``lazy`` only: length in pixels that the shortest edge is resized to
``max_size``       ``lazy`` only: limit of the longest edge in pixels
=================  =========================================================================

A dictionary may come with a model file from somewhere else, so building from it runs nothing but
classes and functions of :data:`TRUSTED_PACKAGES`, and YAML is only ever loaded safely. For saved
lazy configurations Detectron2's own loader (``yaml.unsafe_load``, any ``_target_``) is not used.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import nn

CONFIG_KEYS = ('format', 'model', 'min_size', 'max_size')
"""Keys of a configuration as data."""

TRUSTED_PACKAGES = ('detectron2.modeling', 'detectron2.layers', 'torch.nn')
"""Packages whose classes and functions a lazy configuration may call."""

_CALL = '_target_'
_OBJECT = '_object_'
_YAML_NODES = ('VERSION', 'MODEL', 'INPUT', 'TEST')  # what a network and its input depend on
_NORMS = ('BN', 'SyncBN', 'FrozenBN', 'GN', 'naiveSyncBN', 'naiveSyncBN_N', 'LN')
_PROBE_CHANNELS = 64  # a multiple of GroupNorm's 32 groups


def read_config(
    source: str | Path, overrides: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], str | None]:
    """Read a Detectron2 configuration file.

    Args:
        source: a ``.yaml`` or LazyConfig ``.py`` file, or the name of one in the model zoo, such
            as ``COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml``.
        overrides: dotted key to value, as the file names them: ``MODEL.ROI_HEADS.NUM_CLASSES`` or
            ``model.roi_heads.num_classes``.

    Returns:
        The configuration as data, and the name of the data set that the file tests on, if any.

    Raises:
        FileNotFoundError: neither a file nor a zoo name.
        ValueError: the file cannot be expressed as data; the text says which part.
    """
    path = _find(source)
    if path.suffix == '.py':
        return _read_lazy(path, overrides or {})
    return _read_yaml(path, overrides or {})


def build_model(config: Mapping[str, Any]) -> Any:
    """Build the network that :func:`read_config` described, with random weights, on the CPU.

    Raises:
        ValueError: the configuration is malformed, of another version, or not trusted.
    """
    if config.get('format') not in ('yaml', 'lazy'):
        raise ValueError(
            f"Detectron2 configuration of format {config.get('format')!r}: "
            "expected 'yaml' or 'lazy'"
        )
    try:
        if config['format'] == 'yaml':
            from detectron2.modeling import build_model as build

            model = build(_load_yaml(config['model']))
        else:
            model = _decode(config['model'])
    except (AssertionError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f'the installed Detectron2 cannot build this model: {error!r}'
        ) from error
    if not isinstance(model, nn.Module):
        raise ValueError(
            f'the Detectron2 configuration describes a {type(model).__name__}, not a network'
        )
    return model


def input_edges(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return the shortest edge that images are resized to and the longest allowed, in pixels.

    Raises:
        ValueError: the configuration is malformed.
    """
    try:
        if config.get('format') == 'yaml':
            node = _load_yaml(config['model']).INPUT
            return int(node.MIN_SIZE_TEST), int(node.MAX_SIZE_TEST)
        return int(config['min_size']), int(config['max_size'])
    except (KeyError, TypeError) as error:
        raise ValueError(f'the Detectron2 configuration lacks {error}') from error


def with_num_classes(config: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return a configuration of the same model for another number of classes.

    Args:
        config: as :func:`read_config` returns it.
        count: how many classes, without background.

    Raises:
        ValueError: it does not say where its classes are.
    """
    if config.get('format') == 'yaml':
        tree = yaml.safe_load(config['model'])
        try:
            tree['MODEL']['ROI_HEADS']['NUM_CLASSES'] = count
        except (KeyError, TypeError) as error:
            raise ValueError(f'the Detectron2 configuration lacks {error}') from error
        return {**config, 'model': yaml.safe_dump(tree)}
    heads = config['model'].get('roi_heads') if isinstance(config.get('model'), dict) else None
    if not isinstance(heads, dict) or 'num_classes' not in heads:
        raise ValueError('the Detectron2 configuration lacks model.roi_heads.num_classes')
    return {**config, 'model': {**config['model'], 'roi_heads': _recount(heads, count)}}


def _recount(tree: Any, count: int) -> Any:
    """Return a tree of calls with each number of classes in it replaced."""
    if isinstance(tree, list):
        return [_recount(item, count) for item in tree]
    if not isinstance(tree, Mapping):
        return tree
    # Masks of no class in particular stay so.
    return {
        key: count if key == 'num_classes' and value != 1 else _recount(value, count)
        for key, value in tree.items()
    }


def zoo_directory() -> Path:
    """Return the directory of the configurations that the installed Detectron2 brings along."""
    import detectron2

    # Not detectron2.model_zoo.get_config_file: it needs pkg_resources, gone in setuptools 82.
    return Path(detectron2.__file__).parent / 'model_zoo' / 'configs'


def _find(source: str | Path) -> Path:
    for path in (Path(source), zoo_directory() / source):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f'{source} is neither a file nor the name of a configuration in the Detectron2 model zoo '
        '(such as COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml)'
    )


def _read_yaml(path: Path, overrides: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    from detectron2.config import CfgNode, get_cfg

    cfg = get_cfg()
    cfg.merge_from_file(str(path), allow_unsafe=False)
    cfg.merge_from_list([item for pair in overrides.items() for item in pair])
    data_set = cfg.DATASETS.TEST[0] if cfg.DATASETS.TEST else None
    cfg.MODEL.WEIGHTS = ''
    cfg.MODEL.DEVICE = 'cpu'
    cfg.VIS_PERIOD = 0
    kept = CfgNode({name: cfg[name] for name in _YAML_NODES})
    return {'format': 'yaml', 'model': kept.dump()}, data_set


def _load_yaml(text: str) -> Any:
    from detectron2.config import CfgNode, get_cfg

    cfg = get_cfg()
    try:
        cfg.merge_from_other_cfg(CfgNode.load_cfg(text))
    except Exception as error:  # yacs lets through whatever the YAML parser raises
        raise ValueError(
            'the installed Detectron2 does not understand the configuration of this model: '
            f'{error}'
        ) from error
    # A file from elsewhere decides neither where this runs nor what it loads.
    cfg.MODEL.WEIGHTS = ''
    cfg.MODEL.DEVICE = 'cpu'
    cfg.VIS_PERIOD = 0
    return cfg


def _read_lazy(path: Path, overrides: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    from detectron2.config import LazyConfig
    from omegaconf import OmegaConf, SCMode

    cfg = LazyConfig.load(str(path))
    if 'model' not in cfg:
        raise ValueError(f'{path} defines no `model`')
    for key, value in overrides.items():
        OmegaConf.update(cfg, key, value)
    tree = OmegaConf.to_container(
        cfg.model, resolve=True, structured_config_mode=SCMode.INSTANTIATE
    )
    min_size, max_size = _lazy_edges(cfg)
    config = {
        'format': 'lazy',
        'model': _encode(tree, 'model'),
        'min_size': min_size,
        'max_size': max_size,
    }
    names = OmegaConf.select(cfg, 'dataloader.test.dataset.names')
    return config, names if isinstance(names, str) else (names[0] if names else None)


def _lazy_edges(cfg: Any) -> tuple[int, int]:
    """Read the edges of the test-time resize; Detectron2's defaults where there is none."""
    from omegaconf import OmegaConf

    augmentations = OmegaConf.select(cfg, 'dataloader.test.mapper.augmentations') or []
    for augmentation in augmentations:
        edge = augmentation.get('short_edge_length')
        if edge is not None:
            edge = edge if isinstance(edge, int) else edge[0]
            return int(edge), int(augmentation.get('max_size') or 1333)
    return 800, 1333


def _encode(value: Any, where: str) -> Any:
    """Turn a resolved tree of lazy calls into JSON data; ``where`` names the place for errors."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_encode(item, f'{where}[{i}]') for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        data = {
            key: _encode(item, f'{where}.{key}') for key, item in value.items() if key != _CALL
        }
        if _CALL in value:
            data[_CALL] = _name(value[_CALL], where)
        return data
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: _encode(getattr(value, field.name), f'{where}.{field.name}')
            for field in dataclasses.fields(value)
        }
        return {_CALL: _name(type(value), where), **fields}
    if callable(value):
        if where.endswith('norm') and not isinstance(value, type):
            return _norm_name(value, where)
        return {_OBJECT: _name(value, where)}
    raise ValueError(f'{where} is a {type(value).__name__}, which cannot be kept in a model file')


def _decode(data: Any) -> Any:
    """Make the calls of an encoded tree, innermost first."""
    if isinstance(data, list):
        return [_decode(item) for item in data]
    if isinstance(data, Mapping):
        if _OBJECT in data:
            return _resolve(data[_OBJECT])
        values = {key: _decode(item) for key, item in data.items() if key != _CALL}
        if _CALL not in data:
            return values
        return _resolve(data[_CALL])(**values)
    return data


def _norm_name(function: Any, where: str) -> str:
    """Return Detectron2's name for a normalisation given as a function of the channels.

    The zoo's *new baselines* give theirs as a lambda, which has no name of its own.
    """
    from detectron2.layers import get_norm

    layer = function(_PROBE_CHANNELS)
    for name in _NORMS:
        known = get_norm(name, _PROBE_CHANNELS)
        if type(known) is type(layer) and _settings(known) == _settings(layer):
            return name
    raise ValueError(
        f'{where} makes a {type(layer).__name__} that Detectron2 has no name for; use one of '
        + ', '.join(_NORMS)
    )


def _settings(layer: nn.Module) -> tuple[str, Any]:
    return repr(layer), getattr(layer, '_stats_mode', None)


def _name(target: Any, where: str) -> str:
    """Return the dotted name of a class or function, if it can be found under it again."""
    if isinstance(target, str):
        name = target
        target = None
    else:
        name = f"{target.__module__}.{getattr(target, '__qualname__', type(target).__name__)}"
    try:
        found = _resolve(name)
    except ValueError as error:
        raise ValueError(f'{where}: {error}') from error
    if target is not None and found is not target:
        raise ValueError(f'{where}: {name} is not what can be imported under that name')
    return name


def _trusted(name: str) -> bool:
    return any(name == package or name.startswith(package + '.') for package in TRUSTED_PACKAGES)


def _resolve(name: str) -> Any:
    """Find a trusted class or function by its dotted name."""
    refusal = ValueError(
        f'{name} is not a class or function of ' + ', '.join(TRUSTED_PACKAGES)
    )
    if not isinstance(name, str) or not _trusted(name):
        raise refusal
    parts = name.split('.')
    found: Any = None
    for length in range(len(parts) - 1, 1, -1):
        try:
            found = importlib.import_module('.'.join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None)
        break
    # A trusted module has others as attributes: what counts is where the object was defined.
    if not callable(found) or not _trusted(getattr(found, '__module__', None) or ''):
        raise refusal
    return found

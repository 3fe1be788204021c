"""Edge bundles: the robot's half of a model for runtimes other than PyTorch.

A bundle is a folder with ``edge.json``, a graph from the network input to the code, and the
coder's tables where its coding needs them. ``edge.json`` has:

==================  =============================================================================
``format``          ``msfc-edge``
``format_version``  1
``graph``           ``format``, ``onnx`` or ``openvino``; ``precision``, that it is meant to run in
``preprocessing``   what becomes of a camera image first, see :mod:`msfc.preprocessing`
``code``            ``channels`` C' and ``stride`` in network input pixels, of the code
``pyramid``         ``channels`` C of the pyramid, and ``strides`` of its levels
``coder``           what :func:`msfc.wire.coders.build_coder` needs
``rate``            the default rate
``fingerprint``     of the model whose decoder is needed
``files``           the SHA-256 of each other file
``check``           how the graph differed from PyTorch where it was made, and with which pictures
``versions``        of what made it
==================  =============================================================================

Importing this module imports neither PyTorch nor a runtime. No file of a bundle can make the
reader run code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from msfc.files import file_sha256, write_atomically
from msfc.preprocessing import Preprocessing
from msfc.settings import check_number
from msfc.types import Size, pyramid_sizes
from msfc.wire.coder import PayloadCoder
from msfc.wire.coders import build_coder
from msfc.wire.packet import is_fingerprint

FORMAT = 'msfc-edge'
FORMAT_VERSION = 1
DESCRIPTION_FILE = 'edge.json'
TABLES_FILE = 'coder.safetensors'

GRAPH_FILES = {'onnx': ('graph.onnx',), 'openvino': ('graph.xml', 'graph.bin')}
"""The files of each format's graph; the first one names it."""

PRECISIONS = {
    'onnx': ('fp32', 'fp16', 'int8'),
    'openvino': ('fp32', 'fp16', 'bf16', 'int8'),
}
"""The precisions that each format's graphs can have."""

_MOST = 2**16


class BundleError(ValueError):
    """An edge bundle that is missing, foreign or damaged; the message says which and how."""


@dataclass(frozen=True)
class EdgeBundle:
    """What an edge needs to know, beside the graph.

    Attributes:
        graph_format: ``onnx`` or ``openvino``.
        precision: that the graph is meant to run in.
        preprocessing: makes the network input of a camera image.
        code_channels: channels C' of the code.
        code_stride: of the code in network input pixels.
        feature_channels: channels C of the pyramid.
        strides: of the pyramid's levels, without ``p6``.
        coder_settings: for :func:`msfc.wire.coders.build_coder`.
        rate: the default rate.
        fingerprint: of the model whose decoder is needed.
        check: how the graph differed from PyTorch; JSON data.
        versions: of what made it.
        folder: that it was read from.
        files: SHA-256 of the files in it, in hexadecimal digits.
        coder: makes bytes of codes.

    Raises:
        ValueError: a value is impossible.
    """

    graph_format: str
    precision: str
    preprocessing: Preprocessing
    code_channels: int
    code_stride: int
    feature_channels: int
    strides: Mapping[str, int]
    coder_settings: Mapping[str, Any]
    rate: int
    fingerprint: str
    coder: PayloadCoder = field(compare=False)
    check: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    folder: Path = Path()
    files: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_format(self.graph_format, self.precision)
        for name in ('code_channels', 'code_stride', 'feature_channels'):
            check_number(getattr(self, name), name, 1, _MOST, whole=True)
        if not self.strides:
            raise ValueError('the pyramid has no levels')
        for level, stride in self.strides.items():
            check_number(stride, f'the stride of {level}', 1, _MOST, whole=True)
        check_number(self.rate, 'rate', 0, 255, whole=True)
        self.coder.check_rate(self.rate)
        if not is_fingerprint(self.fingerprint):
            raise ValueError('the fingerprint is not 16 hexadecimal digits')

    @property
    def graph(self) -> Path:
        """The graph's file."""
        return self.folder / GRAPH_FILES[self.graph_format][0]

    def code_size(self, padded: Size) -> Size:
        """Return height and width of the code for a padded network input size."""
        return (-(-padded[0] // self.code_stride), -(-padded[1] // self.code_stride))

    def pyramid_sizes(self, padded: Size) -> dict[str, Size]:
        """Return the size of each level ``p2`` .. ``p6`` for a padded network input size."""
        return pyramid_sizes(self.strides, padded)


def check_format(graph_format: str, precision: str) -> None:
    """Refuse a format or a precision that bundles do not have.

    Raises:
        ValueError: it is none, or they do not go together.
    """
    if graph_format not in PRECISIONS:
        raise ValueError(
            f'unknown format {graph_format!r}: choose {" or ".join(PRECISIONS)}'
        )
    known = PRECISIONS[graph_format]
    if precision not in known:
        raise ValueError(
            f'a graph of format {graph_format} has precision {", ".join(known)}, '
            f'not {precision!r}'
        )


def is_bundle(path: str | Path) -> bool:
    """Return whether a path is a folder that says that it is an edge bundle."""
    return (Path(path) / DESCRIPTION_FILE).is_file()


def write_description(
    bundle: EdgeBundle, folder: Path, arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Complete a folder, in which the graph is already, to a bundle.

    Args:
        bundle: what to write of it.
        folder: where.
        arrays: the coder's tables.

    Raises:
        OSError: it cannot be written.
    """
    names = list(GRAPH_FILES[bundle.graph_format])
    if arrays:
        # safetensors takes memory as it lies, and torch may have it in another order.
        tables = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_atomically(folder / TABLES_FILE, save(tables))
        names.append(TABLES_FILE)
    description = {
        'format': FORMAT,
        'format_version': FORMAT_VERSION,
        'graph': {'format': bundle.graph_format, 'precision': bundle.precision},
        'preprocessing': bundle.preprocessing.to_dict(),
        'code': {'channels': bundle.code_channels, 'stride': bundle.code_stride},
        'pyramid': {'channels': bundle.feature_channels, 'strides': dict(bundle.strides)},
        'coder': dict(bundle.coder_settings),
        'rate': bundle.rate,
        'fingerprint': bundle.fingerprint,
        'files': {name: file_sha256(folder / name) for name in names},
        'check': dict(bundle.check),
        'versions': dict(bundle.versions),
    }
    write_atomically(folder / DESCRIPTION_FILE, f'{json.dumps(description, indent=2)}\n')


def read_bundle(folder: str | Path) -> EdgeBundle:
    """Read a bundle and check all of its files.

    Raises:
        BundleError: it is missing, foreign or damaged.
    """
    folder = Path(folder)
    description = _read_description(folder)
    try:
        graph, code, pyramid = (description[name] for name in ('graph', 'code', 'pyramid'))
        check_format(graph['format'], graph['precision'])
        _check_files(folder, description)
        arrays = _read_tables(folder, description['files'])
        return EdgeBundle(
            graph_format=graph['format'],
            precision=graph['precision'],
            preprocessing=Preprocessing.from_dict(description['preprocessing']),
            code_channels=code['channels'],
            code_stride=code['stride'],
            feature_channels=pyramid['channels'],
            strides=dict(pyramid['strides']),
            coder_settings=description['coder'],
            rate=description['rate'],
            fingerprint=description['fingerprint'],
            coder=build_coder(description['coder'], arrays),
            check=description['check'],
            versions=description['versions'],
            folder=folder,
            files=dict(description['files']),
        )
    except BundleError:
        raise
    except KeyError as error:
        raise BundleError(f'{folder / DESCRIPTION_FILE} lacks {error}') from error
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(f'the edge bundle {folder} is not usable: {error}') from error


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION_FILE
    try:
        description = json.loads(path.read_text(encoding='utf-8'))
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f'{folder} has no {DESCRIPTION_FILE}: it is no edge bundle') from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f'{path} cannot be read: {error}') from error
    if not isinstance(description, dict) or description.get('format') != FORMAT:
        raise BundleError(f'{path} does not describe an edge bundle')
    version = description.get('format_version')
    if version != FORMAT_VERSION:
        raise BundleError(
            f'{path} has format version {version}; this version of msfc reads {FORMAT_VERSION}: '
            'export the bundle again'
        )
    return description


def _check_files(folder: Path, description: Mapping[str, Any]) -> None:
    """Refuse a bundle whose files are not those that its description names."""
    needed = {*GRAPH_FILES[description['graph']['format']]}
    digests = description['files']
    if not needed <= set(digests) <= {*needed, TABLES_FILE}:
        raise BundleError(
            f'{folder / DESCRIPTION_FILE} names the files {", ".join(sorted(digests))}, '
            f'not {", ".join(sorted(needed))}'
        )
    for name, digest in digests.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f'{folder} has no {name}')
        if file_sha256(path) != digest:
            raise BundleError(
                f'{path} is damaged, or not the one that {DESCRIPTION_FILE} beside it '
                'describes: its SHA-256 differs'
            )


def _read_tables(folder: Path, digests: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    if TABLES_FILE not in digests:
        return {}
    try:
        return load_file(folder / TABLES_FILE)
    except (SafetensorError, OSError) as error:
        raise BundleError(f'{folder / TABLES_FILE} cannot be read: {error}') from error

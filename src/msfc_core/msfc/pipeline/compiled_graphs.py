"""Graphs as OpenVINO has compiled them, kept in the user's cache folder.

Compiling takes a third of a node's start. OpenVINO's own cache takes a file with wrong bytes in it
for what it wrote; here each file begins with the SHA-256 of the rest, and one that is not whole is
made again. Where nothing can be kept, nothing is.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import openvino

from msfc.files import write_atomically

KEPT = 8
"""Files that are kept, those that were used last."""

PROCESSOR = ('FULL_DEVICE_NAME', 'OPTIMIZATION_CAPABILITIES')
"""What OpenVINO says of it."""

DIGEST_BYTES = hashlib.sha256().digest_size


def compile_graph(
    core: openvino.Core,
    graph: Path,
    digests: Mapping[str, str],
    device: str,
    settings: Mapping[str, Any],
) -> openvino.CompiledModel:
    """Compile a graph, or take it as it was compiled before on this processor.

    Args:
        core: of this process.
        graph: its file.
        digests: what tells the graph from all others, by name; none to keep nothing.
        device: as OpenVINO names it.
        settings: for the device.

    Raises:
        RuntimeError: OpenVINO cannot load it.
    """
    path = _path(core, digests, device, settings) if digests else None
    if path is not None and (known := _read(path)) is not None:
        # What another build of the plugin wrote is refused.
        with suppress(RuntimeError):
            return core.import_model(io.BytesIO(known), device, dict(settings))
    compiled = core.compile_model(core.read_model(graph), device, dict(settings))
    if path is not None:
        # Not every device can write one; nor is there always room.
        with suppress(RuntimeError, OSError):
            _write(path, compiled.export_model().getvalue())
    return compiled


def cache_folder() -> Path | None:
    """Return the folder of the files, after the XDG base directory specification.

    ``None`` where there is no home, or where the folder is somebody else's.
    """
    try:
        base = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
        folder = base / 'msfc' / 'openvino'
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder if folder.stat().st_uid == os.geteuid() else None
    except (OSError, RuntimeError):
        return None


def _path(
    core: openvino.Core, digests: Mapping[str, str], device: str, settings: Mapping[str, Any]
) -> Path | None:
    """Return where a graph is kept that was compiled so, by all that it depends on."""
    folder = cache_folder()
    if folder is None:
        return None
    hardware = [str(core.get_property(device, name)) for name in PROCESSOR]
    known = [openvino.get_version(), device, hardware, sorted(settings.items())]
    content = json.dumps([*known, sorted(digests.items())])
    return folder / f'{hashlib.sha256(content.encode()).hexdigest()[:32]}.blob'


def _read(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    graph = content[DIGEST_BYTES:]
    return graph if hashlib.sha256(graph).digest() == content[:DIGEST_BYTES] else None


def _write(path: Path, graph: bytes) -> None:
    write_atomically(path, hashlib.sha256(graph).digest() + graph)
    used = sorted(path.parent.glob('*.blob'), key=lambda one: one.stat().st_mtime, reverse=True)
    for old in used[KEPT:]:
        old.unlink(missing_ok=True)

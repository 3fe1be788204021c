"""What a robot without PyTorch imports: the wire and the edge's pipeline."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import msfc.geometry
import msfc.link
import msfc.wire

BLOCKED = """
import importlib.abc, sys

class NoTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('torch', 'torchvision'):
            raise ImportError(f'{name} is not here')

sys.meta_path.insert(0, NoTorch())
"""

WIRE = ['msfc.wire'] + [
    f'msfc.wire.{module.name}' for module in pkgutil.iter_modules(msfc.wire.__path__)
]
GEOMETRY = [f'msfc.geometry.{m.name}' for m in pkgutil.iter_modules(msfc.geometry.__path__)]
EDGE = ['msfc.edge_bundle', 'msfc.preprocessing'] + [
    f'msfc.pipeline.{name}'
    for name in (
        'edge', 'edge_network', 'graph_network', 'onnxruntime_graph', 'openvino_graph',
        'rate_control', 'stopwatch',
    )
]
LINK = [f'msfc.link.{module.name}' for module in pkgutil.iter_modules(msfc.link.__path__)]


def run_without_torch(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, where torch cannot be imported."""
    return subprocess.run(
        [sys.executable, '-c', BLOCKED + code], capture_output=True, text=True, check=False
    )


def test_torch_is_really_blocked() -> None:
    done = run_without_torch('import torch')
    assert done.returncode != 0
    assert 'torch is not here' in done.stderr


def test_the_wire_has_all_its_modules() -> None:
    assert {'msfc.wire.packet', 'msfc.wire.coder', 'msfc.wire.packed'} <= set(WIRE)


@pytest.mark.parametrize('name', ['msfc', 'msfc.types', *WIRE, *LINK, *GEOMETRY, *EDGE])
def test_imports_without_torch(name: str) -> None:
    done = run_without_torch(f'import {name}')
    assert done.returncode == 0, done.stderr


def test_the_edge_works_without_torch() -> None:
    """A network of NumPy alone, the packed coder, a packet that a receiver accepts."""
    done = run_without_torch("""
import numpy as np
from msfc.pipeline.edge import EdgePipeline
from msfc.pipeline.edge_network import EdgeOutput
from msfc.types import ImageSizes
from msfc.wire.packed import PackedCoder
from msfc.wire.packet import PacketSpec, validate

def network(image):
    code = np.full((3, 1, 2), 0.2, np.float32)
    sizes = ImageSizes((image.shape[:2],), ((32, 64),), (32, 64))
    return EdgeOutput(code, sizes, {'preprocess': 0.1, 'backbone': 0.2, 'encode': 0.3})

edge = EdgePipeline(network, PackedCoder(), '0123456789abcdef', 4)
packet = edge.encode(np.zeros((16, 32, 3), np.uint8), 7)
spec = PacketSpec('0123456789abcdef', 3, 32, lambda size: (size[0] // 32, size[1] // 32),
                  PackedCoder())
validate(packet, spec)
print(packet.data.hex(), packet.rate, packet.reference, packet.sequence)
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ['999999', '4', '0', '7']

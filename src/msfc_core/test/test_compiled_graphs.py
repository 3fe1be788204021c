"""Graphs that OpenVINO has compiled are kept, and never taken for what they are not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip('openvino', reason='OpenVINO is not in this environment')

import openvino
from openvino import opset13 as ops

from msfc.pipeline.compiled_graphs import KEPT, cache_folder, compile_graph
from msfc.pipeline.openvino_graph import shared_core

SETTINGS = {'INFERENCE_NUM_THREADS': 1}
PIXELS = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the folder of what is kept in this test."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    folder = cache_folder()
    assert folder is not None
    return folder


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """Return the file of a graph: a convolution."""
    pixels = ops.parameter([1, 3, -1, -1], np.float32, 'pixels')
    weights = np.random.default_rng(1).standard_normal((4, 3, 3, 3)).astype(np.float32)
    output = ops.convolution(pixels, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    openvino.save_model(openvino.Model([output], [pixels]), tmp_path / 'graph.xml')
    return tmp_path / 'graph.xml'


def code(graph: Path, digest: str = 'a', **settings: object) -> NDArray[np.float32]:
    """Return what the graph computes, compiled or kept."""
    compiled = compile_graph(
        shared_core(), graph, {'graph.xml': digest}, 'CPU', SETTINGS | settings
    )
    return np.asarray(compiled(PIXELS)[0])


def test_what_was_kept_computes_the_same(cache: Path, graph: Path) -> None:
    first = code(graph)
    (kept,) = cache.iterdir()
    # It is what is taken: the graph itself is no longer there.
    graph.unlink()
    np.testing.assert_array_equal(code(graph), first)
    assert [*cache.iterdir()] == [kept]


def test_another_graph_or_setting_is_compiled_anew(cache: Path, graph: Path) -> None:
    code(graph)
    code(graph, digest='b')
    code(graph, INFERENCE_PRECISION_HINT='f32')
    assert len([*cache.iterdir()]) == 3


@pytest.mark.parametrize('place', [0, 40, -1])
def test_damaged_file_is_made_again(cache: Path, graph: Path, place: int) -> None:
    expected = code(graph)
    (kept,) = cache.iterdir()
    content = bytearray(kept.read_bytes())
    content[place] ^= 1
    kept.write_bytes(content)
    np.testing.assert_array_equal(code(graph), expected)
    content[place] ^= 1
    assert kept.read_bytes() == content


@pytest.mark.parametrize('size', [0, 31, 32, 100])
def test_cut_file_is_made_again(cache: Path, graph: Path, size: int) -> None:
    expected = code(graph)
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:size])
    np.testing.assert_array_equal(code(graph), expected)
    assert kept.read_bytes() == whole


def test_those_used_last_are_kept(cache: Path, graph: Path) -> None:
    code(graph, digest='first')
    (first,) = cache.iterdir()
    for number in range(KEPT - 1):
        code(graph, digest=str(number))
    for age, path in enumerate(sorted(cache.iterdir(), key=lambda one: one == first)):
        os.utime(path, (1e9 - age, 1e9 - age))
    code(graph, digest='first')  # now it is the newest
    code(graph, digest='one more')
    assert first in cache.iterdir()
    assert len([*cache.iterdir()]) == KEPT


def test_no_place_to_keep_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, graph: Path
) -> None:
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    assert cache_folder() is None
    assert code(graph).shape == (1, 4, 6, 6)


def test_no_home(monkeypatch: pytest.MonkeyPatch, graph: Path) -> None:
    def home() -> Path:
        raise RuntimeError('no home')

    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.setattr(Path, 'home', home)
    assert cache_folder() is None
    assert code(graph).shape == (1, 4, 6, 6)

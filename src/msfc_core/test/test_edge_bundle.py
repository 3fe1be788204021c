"""Edge bundles: the same codes as PyTorch's, in both runtimes; what is damaged is refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from typer.testing import CliRunner

from edge_bundles import CODECS, picture, save_small_model, small_model
from msfc import export_edge as exporting
from msfc.cli.main import app
from msfc.edge_bundle import BundleError, EdgeBundle, is_bundle, read_bundle
from msfc.export_edge import compare, export_edge
from msfc.files import file_sha256
from msfc.model import SplitModel
from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.edge import EdgePipeline
from msfc.pipeline.graph_network import bundle_pipeline, choose_backend, open_graph
from msfc.pipeline.onnxruntime_graph import choose_providers
from msfc.pipeline.torch_network import edge_pipeline
from tiny import tiny_model

pytestmark = pytest.mark.usefixtures('one_thread')

FORMATS = ('onnx', 'openvino')
RUNTIMES = (('onnx', 'onnxruntime'), ('onnx', 'openvino'), ('openvino', 'openvino'))
TOLERANCE = 1e-4
"""Of an element of the code, relative to the code's largest."""


def state_of(model: SplitModel) -> bytes:
    return b''.join(x.contiguous().numpy().tobytes() for x in model.state_dict().values())


@pytest.fixture(scope='module', autouse=True)
def graphs_written_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep each model's graph, which takes ten seconds to trace."""
    folder, real = tmp_path_factory.mktemp('graphs'), exporting.write_onnx

    def write(model: SplitModel, path: Path, divisibility: int) -> None:
        kept = folder / hashlib.sha256(state_of(model)).hexdigest()
        if not kept.exists():
            real(model, kept, divisibility)
        shutil.copy(kept, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, 'write_onnx', write)
        yield


@pytest.fixture(scope='module')
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('pictures')
    for index, size in enumerate([(120, 160), (97, 151), (200, 60)]):
        cv2.imwrite(str(folder / f'{index}.png'), picture(size))
    return folder


@pytest.fixture(scope='module')
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp('models')
    return {codec: save_small_model(root / codec, codec) for codec in CODECS}


@pytest.fixture(scope='module')
def bundles(
    models: dict[str, Path], pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Path]:
    """A bundle of each codec in each format."""
    root = tmp_path_factory.mktemp('bundles')
    made = {}
    for codec in CODECS:
        for graph_format in FORMATS:
            made[codec, graph_format] = root / f'{codec}-{graph_format}'
            export_edge(
                str(models[codec]), made[codec, graph_format], graph_format, images=pictures
            )
    return made


def open_pipeline(folder: Path, backend: str, **settings: Any) -> EdgePipeline:
    bundle = read_bundle(folder)
    return bundle_pipeline(bundle, open_graph(bundle, backend, threads=1), **settings)


@pytest.mark.parametrize('codec', CODECS)
def test_codes_are_those_of_pytorch_at_all_sizes(
    codec: str, models: dict[str, Path], bundles: dict[tuple[str, str], Path]
) -> None:
    expected = edge_pipeline(load_model(models[codec]))
    given_ = {
        (graph_format, backend): open_pipeline(bundles[codec, graph_format], backend)
        for graph_format, backend in RUNTIMES
    }

    @settings(max_examples=10)
    @given(height=st.integers(1, 400), width=st.integers(1, 400))
    @example(height=1, width=1)
    @example(height=400, width=3)
    @example(height=3, width=400)
    @example(height=128, width=128)
    def check(height: int, width: int) -> None:
        image = picture((height, width))
        exact = expected.analyse(image).output
        scale = max(1.0, float(np.abs(exact.code).max()))
        for runtime, edge in given_.items():
            output = edge.analyse(image).output
            assert output.sizes == exact.sizes
            assert output.code.dtype == np.float32
            assert output.code.shape == exact.code.shape, runtime
            assert np.abs(output.code - exact.code).max() <= TOLERANCE * scale, runtime
            assert set(output.durations) == {'preprocess', 'backbone', 'encode'}

    check()


@pytest.mark.parametrize(('graph_format', 'backend'), RUNTIMES)
@pytest.mark.parametrize('codec', CODECS)
def test_the_cloud_decodes_a_bundle_s_packets(
    codec: str, graph_format: str, backend: str, models: dict[str, Path],
    bundles: dict[tuple[str, str], Path],
) -> None:
    model = load_model(models[codec])
    edge = open_pipeline(bundles[codec, graph_format], backend)
    cloud = CloudPipeline(model)
    assert edge.rate == model.rate
    assert edge.rates == model.require_codec().coder().rates
    image = picture((120, 160))
    for rate in edge.rates:
        packet = edge.analyse(image).packet(rate, 9)
        assert packet.model == model.fingerprint
        assert packet.image_size == (120, 160)
        result = cloud.decode(packet)
        assert result.instances.masks.shape[1:] == (120, 160)
        exact = edge_pipeline(model, rate).encode(image, 9)
        assert (packet.rate, packet.coding) == (exact.rate, exact.coding)
        assert packet.padded_size == exact.padded_size


WITHOUT_TORCH = """
import sys
sys.modules['torch'] = sys.modules['torchvision'] = None  # what imports them fails
import numpy as np
from msfc.edge_bundle import read_bundle
from msfc.pipeline.graph_network import bundle_pipeline, open_graph
bundle = read_bundle(sys.argv[1])
edge = bundle_pipeline(bundle, open_graph(bundle, sys.argv[2], threads=1))
print(edge.encode(np.load(sys.argv[3])).data.hex())
"""


@pytest.mark.parametrize('backend', ['onnxruntime', 'openvino'])
def test_a_bundle_works_without_torch(
    backend: str, bundles: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    folder, image = bundles['learned', 'onnx'], picture((120, 160))
    np.save(tmp_path / 'image.npy', image)
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT_TORCH, folder, backend, tmp_path / 'image.npy'],
        capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == open_pipeline(folder, backend).encode(image).data.hex()


def test_key_frames_of_a_bundle(bundles: dict[tuple[str, str], Path]) -> None:
    edge = open_pipeline(bundles['learned', 'onnx'], 'onnxruntime', key_interval=4)
    assert edge.keys.interval == 4
    with pytest.raises(ValueError, match='key'):
        open_pipeline(bundles['msfc', 'onnx'], 'onnxruntime', key_interval=4)


def test_what_the_description_says(
    models: dict[str, Path], bundles: dict[tuple[str, str], Path]
) -> None:
    for (codec, graph_format), folder in bundles.items():
        model, bundle = load_model(models[codec]), read_bundle(folder)
        assert is_bundle(folder)
        assert not is_bundle(models[codec])
        assert bundle.fingerprint == model.fingerprint
        assert bundle.graph_format == graph_format
        assert bundle.precision == 'fp32'
        assert bundle.preprocessing == model.detector.preprocessing()
        for padded in ((32, 32), (128, 224), (960, 32)):
            assert bundle.pyramid_sizes(padded) == model.detector.pyramid_sizes(padded)
            assert (bundle.code_channels, *bundle.code_size(padded)) == model.code_shape(padded)
        check = bundle.check
        assert check['pictures'] == 3
        assert check['symbols'] > check['changed'] == 0
        assert 0 < check['largest_difference'] < 1e-4
        assert {'torch', 'onnx', 'msfc'} <= set(bundle.versions)


@pytest.mark.parametrize(
    ('graph_format', 'precision'), [('onnx', 'fp16'), ('openvino', 'fp16'), ('openvino', 'bf16')]
)
def test_half_precision(
    graph_format: str, precision: str, models: dict[str, Path], pictures: Path, tmp_path: Path,
    bundles: dict[tuple[str, str], Path],
) -> None:
    bundle = export_edge(
        str(models['learned']), tmp_path / 'half', graph_format, precision, pictures
    )
    assert read_bundle(tmp_path / 'half').precision == precision
    assert 1e-6 < bundle.check['relative_difference'] < 1e-2

    def size(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.glob('graph.*'))

    assert size(tmp_path / 'half') < 0.65 * size(bundles['learned', graph_format])


def test_detectron2(pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip('detectron2', reason='needs Detectron2: scripts/setup.sh --detectron2')
    source = save_small_model(tmp_path / 'model', 'msfc', 'detectron2')
    for graph_format in FORMATS:
        bundle = export_edge(str(source), tmp_path / graph_format, graph_format, 'fp32', pictures)
        assert bundle.preprocessing.channels == 'bgr'
        assert bundle.check['changed'] == 0


# -- what is wrong --


def edit(change: Callable[[dict[str, Any]], object], folder: Path) -> None:
    path = folder / 'edge.json'
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))


def flip_byte(name: str, folder: Path) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)


def cut(name: str, folder: Path) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:100])


def name_other_file(folder: Path) -> None:
    edit(lambda d: d['files'].update({'../graph.onnx': 'ab'}), folder)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    'no description': (lambda f: (f / 'edge.json').unlink(), 'has no edge.json: it is no edge'),
    'half a description': (partial(cut, 'edge.json'), 'edge.json cannot be read'),
    'no JSON object': (lambda f: (f / 'edge.json').write_text('[]'), 'does not describe an edge'),
    'foreign': (partial(edit, lambda d: d.update(format='msfc-model')), 'does not describe'),
    'newer': (partial(edit, lambda d: d.update(format_version=2)), 'version 2; .* reads 1'),
    'no graph': (lambda f: (f / 'graph.onnx').unlink(), 'has no graph.onnx'),
    'a flipped bit': (partial(flip_byte, 'graph.onnx'), 'graph.onnx is damaged'),
    'half a graph': (partial(cut, 'graph.onnx'), 'graph.onnx is damaged'),
    'half the tables': (partial(cut, 'coder.safetensors'), 'coder.safetensors is damaged'),
    'files elsewhere': (name_other_file, 'names the files ../graph.onnx'),
    'no files': (partial(edit, lambda d: d.update(files={})), 'names the files'),
    'files are a list': (partial(edit, lambda d: d.update(files=['graph.onnx'])), 'not usable'),
    'a key less': (partial(edit, lambda d: d.pop('rate')), "lacks 'rate'"),
    'a rate of others': (partial(edit, lambda d: d.update(rate=77)), 'rate 77 is not one of'),
    'a rate in words': (partial(edit, lambda d: d.update(rate='4')), "rate is the text '4'"),
    'no fingerprint': (partial(edit, lambda d: d.update(fingerprint='x')), 'fingerprint is not'),
    'unknown format': (
        partial(edit, lambda d: d['graph'].update(format='tflite')), "unknown format 'tflite'"
    ),
    'unknown precision': (
        partial(edit, lambda d: d['graph'].update(precision='int1')), "not 'int1'"
    ),
    'graph is a text': (partial(edit, lambda d: d.update(graph='onnx')), 'not usable'),
    'unknown coding': (partial(edit, lambda d: d['coder'].update(coding=7)), 'unknown coding 7'),
    'no tables named': (
        partial(edit, lambda d: d['files'].pop('coder.safetensors')), 'arrays of coding 1 do not'
    ),
    'slices of others': (partial(edit, lambda d: d['coder'].update(slices=[3])), 'not usable'),
    'slices are a text': (
        partial(edit, lambda d: d['coder'].update(slices='2')), 'slices are whole numbers'
    ),
    'no stride': (partial(edit, lambda d: d['code'].update(stride=0)), 'code_stride is 0'),
    'preprocessing of others': (
        partial(edit, lambda d: d['preprocessing'].update(resize='cubic')), 'unknown resize'
    ),
    'no preprocessing': (partial(edit, lambda d: d.update(preprocessing=None)), 'just the keys'),
}  # fmt: skip


@pytest.fixture
def copied(bundles: dict[tuple[str, str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundles['learned', 'onnx'], tmp_path / 'bundle'))


@pytest.mark.parametrize('damage', DAMAGE)
def test_what_is_damaged_is_refused(damage: str, copied: Path) -> None:
    read_bundle(copied)
    spoil, message = DAMAGE[damage]
    spoil(copied)
    with pytest.raises(BundleError, match=message) as caught:
        read_bundle(copied)
    assert '\n' not in str(caught.value)


@settings(max_examples=40)
@given(data=st.data())
def test_no_change_of_the_description_is_more_than_refused(
    bundles: dict[tuple[str, str], Path], data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whatever a value becomes: the bundle is read, or a sentence says why not."""
    folder = bundles['learned', 'onnx']
    description = json.loads((folder / 'edge.json').read_text())
    spoiled = tmp_path_factory.mktemp('spoiled')
    for path in folder.iterdir():
        (spoiled / path.name).symlink_to(path)
    (spoiled / 'edge.json').unlink()
    place: Any = description
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        break
    values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    place[key] = data.draw(values | st.lists(values, max_size=4) | st.dictionaries(
        st.text(max_size=5), values, max_size=3))  # fmt: skip
    (spoiled / 'edge.json').write_text(json.dumps(description))
    with suppress(BundleError):
        assert isinstance(read_bundle(spoiled), EdgeBundle)


@pytest.mark.parametrize('backend', ['onnxruntime', 'openvino'])
def test_a_graph_that_a_runtime_cannot_load(backend: str, copied: Path) -> None:
    (copied / 'graph.onnx').write_bytes(b'no graph at all')
    digest = file_sha256(copied / 'graph.onnx')
    edit(lambda d: d['files'].update({'graph.onnx': digest}), copied)
    with pytest.raises(BundleError, match=r'cannot load .*graph.onnx'):
        open_graph(read_bundle(copied), backend)


@pytest.mark.parametrize('backend', ['onnxruntime', 'openvino'])
def test_a_graph_of_another_bundle(
    backend: str, copied: Path, bundles: dict[tuple[str, str], Path]
) -> None:
    shutil.copy(bundles['msfc', 'onnx'] / 'graph.onnx', copied)
    digest = json.loads((bundles['msfc', 'onnx'] / 'edge.json').read_text())['files']['graph.onnx']
    edit(lambda d: d['files'].update({'graph.onnx': digest}), copied)
    bundle = read_bundle(copied)
    with pytest.raises(BundleError, match='codes of 5 channels, its description says 4'):
        bundle_pipeline(bundle, open_graph(bundle, backend))


def test_backends(
    bundles: dict[tuple[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx, openvino = (read_bundle(bundles['msfc', name]) for name in FORMATS)
    assert choose_backend(onnx) == 'onnxruntime'
    assert choose_backend(onnx, 'openvino') == 'openvino'
    assert choose_backend(openvino) == 'openvino'
    with pytest.raises(ValueError, match="runs in openvino, not in 'onnxruntime'"):
        choose_backend(openvino, 'onnxruntime')
    with pytest.raises(ValueError, match="runs in onnxruntime or openvino, not in 'torch'"):
        choose_backend(onnx, 'torch')
    with pytest.raises(ValueError, match='providers are those of ONNX Runtime'):
        open_graph(openvino, providers=['CPU'])
    with pytest.raises(ValueError, match=r"device is 'npu7', but OpenVINO finds .*CPU"):
        open_graph(openvino, device='npu7')
    with pytest.raises(ValueError, match=r"device is 'cuda', but ONNX Runtime .* providers"):
        open_graph(onnx, device='cuda')
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ImportError, match='needs onnxruntime or openvino, and neither'):
        choose_backend(onnx)
    with pytest.raises(ImportError, match='needs openvino, which is not installed'):
        choose_backend(openvino)


def test_providers(bundles: dict[tuple[str, str], Path]) -> None:
    cpu, cuda, tensorrt = (f'{name}ExecutionProvider' for name in ('CPU', 'CUDA', 'Tensorrt'))
    assert choose_providers([], [tensorrt, cuda, cpu]) == [cuda, cpu]
    assert choose_providers([], [cpu]) == [cpu]
    assert choose_providers(['Tensorrt', cpu], [tensorrt, cuda, cpu]) == [tensorrt, cpu]
    bundle = read_bundle(bundles['msfc', 'onnx'])
    with pytest.raises(ValueError, match=r'no provider MagicExecutionProvider here; it has .*CPU'):
        open_graph(bundle, providers=['Magic'])
    assert open_graph(bundle, providers=['CPU']).hardware.endswith(', CPU')


# -- the export --


def other_weights(codec: str) -> SplitModel:
    model = small_model(codec)
    for parameter in model.require_codec().analysis.parameters():
        parameter.data *= -1.5
    return model


def test_the_check_sees_another_graph(
    bundles: dict[tuple[str, str], Path], pictures: Path
) -> None:
    for codec in CODECS:
        bundle = read_bundle(bundles[codec, 'onnx'])
        check = compare(other_weights(codec), bundle, sorted(pictures.iterdir()))
        assert check.relative_difference > 0.5
        assert check.changed > 0.1 * check.symbols


def test_a_graph_that_differs_is_not_written(
    models: dict[str, Path], pictures: Path, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    right = exporting.write_graph

    def wrong(model: SplitModel, bundle: EdgeBundle, *others: Any) -> None:
        right(other_weights('learned'), bundle, *others)

    monkeypatch.setattr(exporting, 'write_graph', wrong)
    with pytest.raises(ValueError, match=r'gives other codes than PyTorch: ONNX Runtime'):
        export_edge(str(models['learned']), copied, images=pictures)
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before


def test_a_bundle_is_replaced_whole(
    models: dict[str, Path], pictures: Path, copied: Path
) -> None:
    export_edge(str(models['msfc']), copied, 'openvino', images=pictures)
    assert sorted(path.name for path in copied.iterdir()) == [
        'edge.json', 'graph.bin', 'graph.xml'
    ]
    assert read_bundle(copied).graph_format == 'openvino'


def test_what_cannot_be_exported(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match='has a model in it: choose another'):
        export_edge(str(models['msfc']), models['msfc'])
    with pytest.raises(ValueError, match=r'format onnx has precision fp32, fp16, int8, not .bf16'):
        export_edge(str(models['msfc']), tmp_path / 'out', 'onnx', 'bf16')
    monkeypatch.setattr(exporting, 'load_model', lambda source: tiny_model())
    with pytest.raises(ValueError, match='TinyDetector does not say'):
        export_edge('tiny', tmp_path / 'out')
    monkeypatch.setattr(exporting, 'load_model', lambda source: tiny_model(codec=False))
    with pytest.raises(ValueError, match='the model has no codec'):
        export_edge('tiny', tmp_path / 'out')
    assert not is_bundle(tmp_path / 'out')


def test_the_command(models: dict[str, Path], tmp_path: Path) -> None:
    """With the pictures that come with msfc."""
    arguments = ['export-edge', str(models['msfc']), str(tmp_path / 'out')]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    bundle = read_bundle(tmp_path / 'out')
    written = f'edge bundle {tmp_path / "out"}: model {bundle.fingerprint}, onnx in fp32'
    assert lines[-2].startswith(written)
    checked = r'4 pictures in ONNX Runtime .* of \d+ symbols at rate 4 0 changed'
    assert re.search(checked, lines[-1])
    assert 'coder.safetensors' not in {path.name for path in (tmp_path / 'out').iterdir()}
    result = CliRunner().invoke(app, [*arguments, '--format', 'tflite'])
    assert result.exit_code == 1
    assert "unknown format 'tflite': choose onnx or openvino" in result.output


def test_the_tables_of_a_bundle_are_the_model_s(
    models: dict[str, Path], bundles: dict[tuple[str, str], Path]
) -> None:
    codec = load_model(models['learned']).require_codec()
    arrays = load_file(bundles['learned', 'openvino'] / 'coder.safetensors')
    expected = codec.coder_arrays()
    assert arrays.keys() == expected.keys()
    assert all(np.array_equal(arrays[name], expected[name]) for name in arrays)


RELOADED = """
import gc, os, signal, sys
from pathlib import Path
from msfc.edge_bundle import read_bundle
from msfc.pipeline.graph_network import open_graph

bundle = read_bundle(Path(sys.argv[1]))
graphs = [open_graph(bundle, 'openvino') for _ in range(2)]
assert not sys.modules.get('openvino_telemetry')  # a robot reports to nobody
while graphs:
    graphs.pop(0)
    gc.collect()
signal.signal(signal.SIGINT, lambda number, frame: print('handled'))
os.kill(os.getpid(), signal.SIGINT)
"""


def test_signals_reach_a_process_that_loaded_graphs_in_openvino(
    bundles: dict[tuple[str, str], Path],
) -> None:
    run = subprocess.run(
        [sys.executable, '-c', RELOADED, str(bundles['msfc', 'openvino'])],
        stdout=subprocess.PIPE, text=True, timeout=100,
    )
    assert (run.returncode, run.stdout) == (0, 'handled\n')

"""Edge bundles in whole numbers of 8 bits: close to PyTorch, and what calibration refuses."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from detector_models import make_images
from edge_bundles import picture, save_small_model
from image_bags import write_image_bag
from msfc import export_edge as exporting
from msfc.bags.reading import BagError
from msfc.cli.main import app
from msfc.edge_bundle import read_bundle
from msfc.edge_calibration import CHECKED, FEWEST_PICTURES, choose_pictures, is_bag, spread
from msfc.export_edge import export_edge
from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.graph_network import bundle_pipeline, open_graph
from msfc.pipeline.torch_network import edge_pipeline

pytestmark = pytest.mark.usefixtures('one_thread')

ENOUGH = FEWEST_PICTURES + CHECKED


def write_pictures(folder: Path, count: int) -> Path:
    """Write views of one scene, each moved on."""
    folder.mkdir(parents=True)
    (image,) = make_images([(96, 128)])
    for index in range(count):
        moved = image.roll(9 * index, -1).permute(1, 2, 0).numpy()[:, :, ::-1]
        cv2.imwrite(str(folder / f'{index:02d}.png'), moved)
    return folder


@pytest.fixture(scope='module')
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp('model') / 'learned', 'learned')


@pytest.fixture(scope='module')
def bundles(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles of one model: in single precision, and in 8 bits in each format."""
    root = tmp_path_factory.mktemp('bundles')
    pictures = write_pictures(root / 'pictures', ENOUGH)
    real = exporting.write_onnx
    with pytest.MonkeyPatch.context() as patch:
        export_edge(str(source), root / 'fp32', images=pictures)
        kept = (root / 'fp32' / 'graph.onnx').read_bytes()
        # It takes ten seconds to trace.
        patch.setattr(exporting, 'write_onnx', lambda model, path, unit: path.write_bytes(kept))
        for graph_format in ('onnx', 'openvino'):
            export_edge(
                str(source), root / graph_format, graph_format, 'int8', calibration=pictures
            )
    assert exporting.write_onnx is real
    return {name: root / name for name in ('fp32', 'onnx', 'openvino')}


def test_backbone_and_fpn_are_in_whole_numbers(bundles: dict[str, Path]) -> None:
    graph = onnx.load(bundles['onnx'] / 'graph.onnx').graph
    made = {name: node for node in graph.node for name in node.output}
    counted = {'whole': 0, 'floating': 0}
    for node in graph.node:
        if node.op_type == 'Conv':
            origin = made.get(node.input[0])
            whole = origin is not None and origin.op_type == 'DequantizeLinear'
            counted['whole' if whole else 'floating'] += 1
            codec = any("'codec." in entry.value for entry in node.metadata_props)
            assert whole != codec, node.name
    assert counted['whole'] > 20
    assert counted['floating']
    sizes = {
        name: sum(path.stat().st_size for path in folder.glob('graph.*'))
        for name, folder in bundles.items()
    }
    assert sizes['onnx'] < 0.6 * sizes['fp32']
    assert sizes['openvino'] < 0.6 * sizes['fp32']


def test_no_folder_of_this_machine_is_in_a_bundle(bundles: dict[str, Path]) -> None:
    home = str(Path(exporting.__file__).parent).encode()
    for folder in bundles.values():
        assert not any(home in path.read_bytes() for path in folder.iterdir())


@pytest.mark.parametrize(
    ('graph_format', 'backend'),
    [('onnx', 'onnxruntime'), ('onnx', 'openvino'), ('openvino', 'openvino')],
)
def test_its_packets_are_decoded(
    graph_format: str, backend: str, source: Path, bundles: dict[str, Path]
) -> None:
    model, bundle = load_model(source), read_bundle(bundles[graph_format])
    assert bundle.precision == 'int8'
    edge = bundle_pipeline(bundle, open_graph(bundle, backend, threads=1))
    for size in ((96, 128), (61, 150)):
        image = picture(size)
        exact = edge_pipeline(model).analyse(image).output.code
        code = edge.analyse(image).output.code
        difference = np.sqrt(np.square(code - exact).mean() / np.square(exact).mean())
        assert 1e-4 < difference < 0.2
        CloudPipeline(model).decode(edge.encode(image))


def test_what_the_check_says(bundles: dict[str, Path]) -> None:
    for graph_format in ('onnx', 'openvino'):
        check = read_bundle(bundles[graph_format]).check
        assert check['calibrated'] == FEWEST_PICTURES
        assert check['pictures'] == CHECKED
        assert 0 < check['relative_difference'] < 0.2
    assert read_bundle(bundles['fp32']).check['calibrated'] == 0


def test_pictures_of_something_else(
    source: Path, bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges of black pictures cut off all that is brighter."""
    kept = (bundles['fp32'] / 'graph.onnx').read_bytes()
    monkeypatch.setattr(exporting, 'write_onnx', lambda model, path, unit: path.write_bytes(kept))
    (tmp_path / 'black').mkdir()
    for index in range(FEWEST_PICTURES):
        cv2.imwrite(str(tmp_path / 'black' / f'{index}.png'), np.zeros((96, 128, 3), np.uint8))
    images = write_pictures(tmp_path / 'images', 2)
    with pytest.raises(ValueError, match=r'gives other codes .* pictures for calibration have to'):
        export_edge(
            str(source), tmp_path / 'out', 'onnx', 'int8', images, calibration=tmp_path / 'black'
        )
    assert not list((tmp_path / 'out').iterdir())


def test_the_pictures_that_are_chosen(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / 'pictures', ENOUGH)
    others = write_pictures(tmp_path / 'others', 1)
    chosen = choose_pictures(None, folder, tmp_path)
    assert (len(chosen.check), len(chosen.calibration)) == (CHECKED, FEWEST_PICTURES)
    assert not set(chosen.check) & set(chosen.calibration)
    chosen = choose_pictures(others, folder, tmp_path)
    assert [path.parent for path in chosen.check] == [others]
    assert len(chosen.calibration) == ENOUGH
    assert spread(list(map(Path, 'abcdefg')), 3) == [Path('a'), Path('c'), Path('e')]
    assert spread([Path('a')], 3) == [Path('a')]


def test_the_images_of_a_bag(tmp_path: Path) -> None:
    write_image_bag(tmp_path / 'bag', [picture((24, 32))] * ENOUGH)
    assert is_bag(tmp_path / 'bag')
    assert is_bag(next((tmp_path / 'bag').glob('*.mcap')))
    assert not is_bag(tmp_path)
    (tmp_path / 'scratch').mkdir()
    chosen = choose_pictures(None, tmp_path / 'bag', tmp_path / 'scratch')
    assert (len(chosen.check), len(chosen.calibration)) == (CHECKED, FEWEST_PICTURES)
    write_image_bag(tmp_path / 'empty', [])
    with pytest.raises(BagError):
        choose_pictures(None, tmp_path / 'empty', tmp_path / 'none')


def test_calibration_that_does_not_go(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / 'pictures', ENOUGH - 1)
    out = tmp_path / 'out'
    with pytest.raises(ValueError, match=r'int8 needs calibration: pictures .* \(--calibration\)'):
        export_edge('tabletop', out, 'onnx', 'int8')
    with pytest.raises(ValueError, match='is for precision int8, but precision is fp16'):
        export_edge('tabletop', out, 'onnx', 'fp16', calibration=pictures)
    with pytest.raises(ValueError, match=f'has {ENOUGH - 1} pictures, but .* needs {ENOUGH} or'):
        export_edge('tabletop', out, 'onnx', 'int8', calibration=pictures)
    with pytest.raises(FileNotFoundError, match='is neither a folder of pictures nor a bag'):
        export_edge('tabletop', out, 'onnx', 'int8', calibration=tmp_path / 'nothing')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='has no pictures'):
        export_edge('tabletop', out, 'onnx', 'int8', calibration=tmp_path / 'empty')
    result = CliRunner().invoke(app, ['export-edge', 'x', str(out), '--precision', 'int8'])
    assert result.exit_code == 1
    assert re.search(r'int8\s+needs\s+calibration', result.output)
    assert not out.exists() or not list(out.iterdir())


def test_a_picture_that_is_none(source: Path, bundles: dict[str, Path], tmp_path: Path,
                                monkeypatch: pytest.MonkeyPatch) -> None:
    kept = (bundles['fp32'] / 'graph.onnx').read_bytes()
    monkeypatch.setattr(exporting, 'write_onnx', lambda model, path, unit: path.write_bytes(kept))
    pictures = write_pictures(tmp_path / 'pictures', ENOUGH)
    (pictures / '01.png').write_text('no picture')
    with pytest.raises(FileNotFoundError, match=r'01\.png is missing or not an image'):
        export_edge(str(source), tmp_path / 'out', 'onnx', 'int8', calibration=pictures)

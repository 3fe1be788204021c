"""``msfc evaluate``: several models and bit depths in one run with the uncompressed detector."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from hostile import small_learned_codec
from msfc.cli.main import app
from msfc.data import CocoDataset
from msfc.data.digests import dataset_digest
from msfc.evaluation import measurement
from msfc.evaluation.model_set import make_labels, share_detectors
from msfc.evaluation.report import data_digest
from msfc.evaluation.versions import library_versions
from msfc.model import SplitModel
from msfc.model_file import load_model, save_model
from msfc.wire.message_size import compressed_feature_bytes
from tiny import tiny_model
from tiny_data import build_small_model, write_split

IMAGES = 4


pytestmark = pytest.mark.usefixtures('one_thread')


def run(*arguments: Any, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.output


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, a detector, and what two C' made of it: codec alone, then all."""
    root = tmp_path_factory.mktemp('models')
    write_split(root / 'data', 'test', IMAGES)
    detector = build_small_model(4, seed=1).detector
    save_model(SplitModel(detector), root / 'detector', half=False)
    for width in (2, 4):
        model = build_small_model(width, seed=width)
        save_model(model, root / f'c{width}' / 'joint', half=False)
        model.detector = detector
        save_model(model, root / f'c{width}' / 'msfc', half=False)
    return root


def evaluate(folder: Path, *arguments: Any, status: int = 0) -> str:
    return run(
        'evaluate', *arguments, '--data', folder / 'data', '--replicates', 30, status=status
    )


def test_several_widths_and_depths_beside_the_uncompressed_detector(
    folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / 'out' / 'figures.json'
    told = evaluate(
        folder, folder / 'c2' / 'joint', folder / 'c4' / 'joint', '--bits', 2, '--bits', 32,
        '--reference', folder / 'detector', '--json', path,
    )
    content = json.loads(path.read_text())
    rows = {row['variant']: row for row in content['rows']}
    assert list(rows) == [
        'uncompressed', "C'=2, n=2", "C'=2, n=32", "C'=4, n=2", "C'=4, n=32"
    ]
    for name in rows:
        assert name in told
    assert content['reference'] == 'uncompressed'
    assert content['data'] == {
        'name': 'data', 'split': 'test', 'images': IMAGES, 'images_in_split': IMAGES,
        'annotations_sha256': data_digest(folder / 'data', 'test'),
        'data_sha256': dataset_digest(CocoDataset(folder / 'data', 'test')),
        'versions': library_versions(),
    }
    assert [model['code_channels'] for model in content['models']] == [2, 4]
    assert content['models'][0]['fingerprint'] == load_model(folder / 'c2' / 'joint').fingerprint
    assert content['bootstrap'] == {'replicates': 30, 'confidence': 0.95}
    assert content['notes'] == []
    # 64 x 83 pixels, padded to 64 x 96: a code of 2 x 3 cells.
    row = rows["C'=4, n=2"]
    assert (row['model'], row['code_channels'], row['bit_depth']) == ("C'=4", 4, 2)
    assert row['payload_bytes'] == 4 * 6 * 2 / 8
    assert row['message_bytes'] == compressed_feature_bytes(6)
    assert row['payload_bpfe'] == pytest.approx(48 / (16 * 6 * (64 + 16 + 4 + 1) + 16 * 2))
    assert rows["C'=2, n=32"]['payload_bytes'] == 2 * 6 * 4
    for row in rows.values():
        for measure in ('box_map', 'mask_map', 'box_map50', 'mask_map50'):
            assert 0 <= row[measure]['low'] <= row[measure]['high'] <= 1
            change = row[measure]['value'] - rows['uncompressed'][measure]['value']
            assert row[f'{measure}_change']['value'] == pytest.approx(change)
    assert rows['uncompressed']['payload_bytes'] is None
    assert set(rows['uncompressed']['mask_map_change'].values()) == {0}
    with path.with_suffix('.csv').open() as file:
        table = list(csv.DictReader(file))
    assert [row['variant'] for row in table] == list(rows)
    assert table[3]['bit_depth'] == '2'
    assert table[0]['bit_depth'] == table[0]['payload_bytes'] == ''
    assert float(table[3]['box_map_low']) == rows["C'=4, n=2"]['box_map']['low']


def test_rates_of_a_learned_codec_beside_packed_codes(folder: Path, tmp_path: Path) -> None:
    detector = build_small_model(4, seed=1).detector
    codec = small_learned_codec(detector.feature_channels)
    codec.synthesis.statistics.set('p2', torch.ones(16), torch.ones(16))
    save_model(SplitModel(detector, codec, rate=1), tmp_path / 'learned', half=False)
    path = tmp_path / 'figures.json'
    evaluate(
        folder, tmp_path / 'learned', folder / 'c4' / 'msfc', '--rate', 0, '--rate', 2,
        '--reference', folder / 'detector', '--json', path,
    )
    rows = {row['variant']: row for row in json.loads(path.read_text())['rows']}
    # n = 0 is none of the packed ones.
    assert list(rows) == ['uncompressed', 'learned, rate 0', 'learned, rate 2', 'msfc, n=2']
    assert (rows['learned, rate 2']['rate'], rows['learned, rate 2']['bit_depth']) == (2, None)
    assert rows['msfc, n=2']['bit_depth'] == 2
    assert rows['learned, rate 0']['payload_bytes'] < rows['learned, rate 2']['payload_bytes']
    told = evaluate(folder, tmp_path / 'learned', '--rate', 3, status=1)
    assert 'rate 3 is not one of 0, 1, 2' in ' '.join(told.split())


def test_a_learned_codec_that_was_never_trained_is_left_out(
    folder: Path, tmp_path: Path
) -> None:
    detector = build_small_model(4, seed=1).detector
    model = SplitModel(detector, small_learned_codec(detector.feature_channels))
    save_model(model, tmp_path / 'model', half=False)
    told = evaluate(folder, tmp_path / 'model')
    assert 'was never trained and is left out' in ' '.join(told.split())


def test_steps_of_one_width_are_told_apart(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / 'figures.json'
    told = evaluate(
        folder, folder / 'c4' / 'msfc', folder / 'c4' / 'joint', '--json', path, '--limit', 2,
    )
    content = json.loads(path.read_text())
    assert [row['variant'] for row in content['rows']] == [
        'uncompressed', 'msfc, n=4', 'joint, n=4'
    ]
    assert {row['images'] for row in content['rows']} == {2}
    (note,) = content['notes']
    assert 'may have been trained behind the codec' in note
    assert 'may have been trained behind the codec' in ' '.join(told.split())
    # Whose detector it is does not matter to what is already measured.
    before = sorted(path.with_name('figures_journal').iterdir())
    evaluate(
        folder, folder / 'c4' / 'msfc', folder / 'c2' / 'joint', '--reference',
        folder / 'detector', '--json', path, '--limit', 2,
    )
    after = sorted(path.with_name('figures_journal').iterdir())
    assert len(before) == 3
    assert len(after) == 4
    assert set(before) < set(after)


def test_it_goes_on_after_a_break(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (
        folder / 'c2' / 'msfc', '--bits', 2, '--bits', 8, '--reference', folder / 'detector',
        '--json',
    )
    evaluate(folder, *arguments, tmp_path / 'whole.json')
    convert, calls = measurement.to_coco_results, []

    def break_off(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return convert(*given)

    monkeypatch.setattr(measurement, 'to_coco_results', break_off)
    path = tmp_path / 'broken.json'
    told = evaluate(folder, *arguments, path, status=130)
    assert 'the same command resumes from' in told
    assert not path.exists()
    evaluate(folder, *arguments, path)
    assert len(calls) == 6 + (3 * IMAGES - 5)
    assert json.loads(path.read_text()) == json.loads((tmp_path / 'whole.json').read_text())


def test_a_pyramid_and_a_code_are_computed_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from msfc.codecs.msfc.codec import MSFC
    from msfc.detectors.torchvision import TorchvisionDetector

    counts = {'extract': 0, 'analyse': 0}
    for kind, name in ((TorchvisionDetector, 'extract'), (MSFC, 'analyse')):
        original = getattr(kind, name)

        def counted(self: Any, *given: Any, name: str = name, original: Any = original) -> Any:
            counts[name] += 1
            return original(self, *given)

        monkeypatch.setattr(kind, name, counted)
    # The detector of the second step is the reference, to the last bit.
    evaluate(
        folder, folder / 'c2' / 'msfc', folder / 'c4' / 'msfc', '--bits', 2, '--bits', 4,
        '--bits', 8, '--reference', folder / 'detector',
    )
    assert counts == {'extract': IMAGES, 'analyse': 2 * IMAGES}


def test_plain_detectors(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / 'figures.json'
    evaluate(folder, folder / 'detector', '--quick', '--json', path)
    content = json.loads(path.read_text())
    assert [row['variant'] for row in content['rows']] == ['uncompressed']
    assert content['notes'] == ['quick: a check that it works; its figures mean nothing']


def test_a_codec_that_was_never_trained_is_left_out(folder: Path, tmp_path: Path) -> None:
    save_model(build_small_model(2, seed=2, trained=False), tmp_path / 'first', half=False)
    path = tmp_path / 'figures.json'
    told = evaluate(folder, tmp_path / 'first', '--json', path, '--limit', 1)
    content = json.loads(path.read_text())
    assert [row['variant'] for row in content['rows']] == ['uncompressed']
    (note,) = content['notes']
    assert note.endswith('never trained and is left out: its detector is measured without one')
    assert 'never trained and is left out' in ' '.join(told.split())
    path = tmp_path / 'both.json'
    evaluate(
        folder, folder / 'c2' / 'msfc', tmp_path / 'first', '--json', path, '--limit', 1,
        '--reference', folder / 'detector',
    )
    content = json.loads(path.read_text())
    assert [row['variant'] for row in content['rows']] == ['uncompressed', 'msfc, n=4', 'first']
    told = run(
        'baselines', tmp_path / 'first', '--data', folder / 'data', '--output', tmp_path / 'out',
        status=1,
    )
    assert 'was never trained: it cannot be compared' in ' '.join(told.split())


def test_unwritable_figures_are_told_before_anything_is_measured(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, 'to_coco_results', None)
    file = tmp_path / 'file'
    file.touch()
    (tmp_path / 'figures.csv').mkdir()
    for output, words in (
        (tmp_path, f'{tmp_path} is a folder: name a file'),
        (file / 'figures.json', f'{file} is none: name another'),
        (tmp_path / 'figures.json', 'figures.csv is a folder'),
    ):
        told = evaluate(folder, folder / 'detector', '--json', output, status=1)
        assert words in told.replace('\n', '')


def test_wrong_arguments_are_refused(folder: Path, tmp_path: Path) -> None:
    model = folder / 'c2' / 'msfc'
    assert 'given twice' in evaluate(folder, model, model, status=1)
    save_model(load_model(model), tmp_path / 'copy', half=False)
    told = ' '.join(evaluate(folder, model, tmp_path / 'copy', status=1).split())
    assert 'msfc, n=4 and copy, n=4 are the same' in told
    told = ' '.join(evaluate(folder, model, '--json', tmp_path / 'a.csv', status=1).split())
    assert 'cannot have the suffix' in told


def test_labels() -> None:
    models = [tiny_model(), tiny_model(codec=False)]
    assert make_labels(models[:1], ['a']) == ['']
    assert make_labels(models, ['a/b', 'a/c']) == ['b', 'c']
    assert make_labels(models * 2, ['a/b', 'a/c', 'd/b', 'd/c']) == ['a/b', 'a/c', 'd/b', 'd/c']


def test_only_equal_detectors_are_shared() -> None:
    first, second, third = tiny_model(1), tiny_model(1), tiny_model(2)
    share_detectors([first, second, third])
    assert first.detector is second.detector
    assert first.detector is not third.detector

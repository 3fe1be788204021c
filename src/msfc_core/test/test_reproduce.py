"""``msfc reproduce``: all measurements of the paper in one command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from msfc.cli.main import app
from msfc.evaluation.report import weights_digest
from msfc.model_file import load_model, save_model
from tiny_data import build_small_model, write_data, write_experiment, write_split

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Data, a sweep over two C' of 16 channels, and a trained detector."""
    write_data(tmp_path / 'data')
    write_split(tmp_path / 'data', 'test', 3)
    write_experiment(tmp_path / 'base.yaml')
    values = {'experiment': 'base.yaml', 'code_channels': [2, 4], 'bits': [4, 32]}
    (tmp_path / 'sweep.yaml').write_text(yaml.safe_dump(values))
    save_model(build_small_model(4, seed=1), tmp_path / 'detector', half=False)
    return tmp_path


def reproduce(folder: Path, *arguments: Any, status: int = 0) -> str:
    result = CliRunner().invoke(
        app,
        [
            'reproduce', str(folder / 'sweep.yaml'), '--data', str(folder / 'data'), '--output',
            str(folder / 'out'), '--workers', '0', '--replicates', '10', '--codec', 'JPEG',
            *map(str, arguments),
        ],
    )
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return ' '.join((result.output + result.stderr).split())


def read(folder: Path, name: str) -> dict[str, Any]:
    stem = name.removesuffix('_relative')
    return json.loads((folder / 'out' / name / 'quick' / f'{stem}.json').read_text())


def test_from_nothing(folder: Path) -> None:
    told = reproduce(folder, '--quick')
    assert '5 of 5' in told
    swept = folder / 'out' / 'sweep' / 'quick'
    # 16 channels, so that C'=4 is what the paper's 64 of 256 is.
    wanted = weights_digest(load_model(swept / 'c4' / 'joint'))
    for name in ('evaluate', 'baselines'):
        content = read(folder, name)
        (model,) = content['models']
        assert (model['code_channels'], model['weights']) == (4, wanted)
    plain = weights_digest(load_model(swept / 'detector'))
    assert read(folder, 'baselines')['reference_detector']['weights'] == plain
    assert read(folder, 'importance')['variance'] == 100
    assert read(folder, 'importance_relative')['variance'] != 100
    assert {row['images'] for row in read(folder, 'evaluate')['rows']} == {3}
    # Again: nothing is trained or measured anew.
    before = {path: path.stat().st_mtime_ns for path in swept.rglob('*.safetensors')}
    reproduce(folder, '--quick')
    assert {path: path.stat().st_mtime_ns for path in swept.rglob('*.safetensors')} == before


def test_with_a_trained_detector_and_model(folder: Path) -> None:
    save_model(build_small_model(8, seed=1), folder / 'given', half=False)
    reproduce(
        folder, '--quick', '--detector', folder / 'detector', '--model', folder / 'given'
    )
    (model,) = read(folder, 'baselines')['models']
    assert (model['label'], model['code_channels']) == ('given', 8)
    plain = read(folder, 'baselines')['reference_detector']['weights']
    assert plain == read(folder, 'importance')['models'][0]['weights']


def test_a_missing_model_is_told_at_once(folder: Path) -> None:
    told = reproduce(folder, '--model', folder / 'nothing', status=1)
    assert 'nothing' in told
    assert not (folder / 'out').exists()

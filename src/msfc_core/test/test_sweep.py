"""``msfc sweep``: a codec for each C' behind one detector, each measured at every n."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from msfc.cli.main import app
from msfc.evaluation.bootstrap import MEASURES, BootstrapResult, Interval
from msfc.evaluation.measurement import Measurement
from msfc.evaluation.model_set import NamedModel
from msfc.evaluation.sweep_report import SweepModel, compare_steps, model_label, plot_sweep
from msfc.model import SplitModel
from msfc.model_file import describe_model, load_model, save_model
from msfc.training.processes import launch_fabric
from msfc.training.sweep import load_sweep, place_detector
from tiny import tiny_model
from tiny_data import build_small_model, write_data, write_experiment, write_split

ROOT = Path(__file__).resolve().parents[3]


pytestmark = pytest.mark.usefixtures('one_thread')


def write_sweep(folder: Path, **changes: Any) -> Path:
    """Write a sweep over two C' and two n, and its base experiment."""
    write_experiment(folder / 'base.yaml')
    path = folder / 'sweep.yaml'
    values = {'experiment': 'base.yaml', 'code_channels': [2, 4], 'bits': [2, 32], **changes}
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a sweep, and a trained detector behind which a codec that counts for nothing is."""
    root = tmp_path_factory.mktemp('sweep')
    write_data(root / 'data')
    write_split(root / 'data', 'test', 3)
    write_sweep(root)
    save_model(build_small_model(4, seed=1), root / 'detector', half=False)
    return root


def sweep(folder: Path, output: Path, *arguments: Any, status: int = 0) -> str:
    result = CliRunner().invoke(
        app,
        [
            'sweep', str(folder / 'sweep.yaml'), '--data', str(folder / 'data'), '--output',
            str(output), '--workers', '0', '--replicates', '20', *map(str, arguments),
        ],
    )
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return ' '.join(result.output.split())


@pytest.fixture(scope='module')
def swept(folder: Path) -> tuple[Path, str]:
    """The folder of a sweep, and what was printed."""
    output = folder / 'out'
    return output, sweep(folder, output, '--detector', folder / 'detector')


def test_each_width_is_trained_behind_the_given_detector(
    folder: Path, swept: tuple[Path, str]
) -> None:
    output, told = swept
    assert "C'=2, msfc" in told
    assert 'detector_run' not in {path.name for path in output.iterdir()}
    given = load_model(folder / 'detector').detector.state_dict()
    for width in (2, 4):
        alone = load_model(output / f'c{width}' / 'msfc')
        joint = load_model(output / f'c{width}' / 'joint')
        assert alone.codec.code_channels == joint.codec.code_channels == width
        frozen = alone.detector.state_dict()
        assert all(torch.equal(value, frozen[name]) for name, value in given.items())
        trained = joint.detector.state_dict()
        assert not all(torch.equal(value, trained[name]) for name, value in given.items())


def test_tables_and_plots(swept: tuple[Path, str]) -> None:
    output, told = swept
    content = json.loads((output / 'sweep.json').read_text())
    rows = {row['variant']: row for row in content['rows']}
    assert list(rows) == [
        'uncompressed',
        "C'=2 msfc, n=2", "C'=2 msfc, n=32", "C'=4 msfc, n=2",
        "C'=4 msfc, n=32", "C'=2, n=2", "C'=2, n=32", "C'=4, n=2", "C'=4, n=32",
    ]
    for name in rows:
        assert name in told
    row = rows["C'=4 msfc, n=2"]
    assert (row['code_channels'], row['bit_depth'], row['step']) == (4, 2, 'msfc')
    assert rows["C'=4, n=2"]['step'] == 'joint'
    assert rows["C'=4, n=2"]['payload_bytes'] == 4 * 6 * 2 / 8
    assert content['quick'] is False
    assert content['notes'] == []
    assert content['steps'] == [
        {'name': 'msfc', 'trains': 'codec', 'iterations': 2},
        {'name': 'joint', 'trains': 'all', 'iterations': 3},
    ]
    assert [model['last_step'] for model in content['models']] == [False, False, True, True]
    assert [(k['code_channels'], k['bit_depth']) for k in content['gains']] == [
        (2, 2), (2, 32), (4, 2), (4, 32)
    ]
    for gain in content['gains']:
        before = rows[f"C'={gain['code_channels']} msfc, n={gain['bit_depth']}"]
        after = rows[f"C'={gain['code_channels']}, n={gain['bit_depth']}"]
        assert gain['mask_map'] == before['mask_map']
        assert gain['mask_map_last'] == after['mask_map']
        assert gain['mask_map_gain']['value'] == pytest.approx(
            after['mask_map']['value'] - before['mask_map']['value']
        )
    # Random detectors find nothing: all points are under the floor, and it is said.
    assert content['floor'] == 0.1
    for kind in ('box', 'mask'):
        for width in (2, 4):
            sentence = (
                f"{kind} mAP: 2 of 2 points of C'={width} are under 0.1 and not shown"
            )
            assert sentence in content['not_drawn']
            assert sentence in told
    with (output / 'sweep.csv').open() as file:
        table = list(csv.DictReader(file))
    assert [row['variant'] for row in table] == list(rows)
    for name in ('sweep', 'sweep-steps'):
        for suffix in ('.png', '.pdf'):
            assert (output / f'{name}{suffix}').stat().st_size > 5000


def test_it_goes_on_and_does_nothing_twice(
    folder: Path, swept: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / 'moved'
    shutil.copytree(swept[0], output)
    before = json.loads((output / 'sweep.json').read_text())
    # As a kill after the first width, and in the middle of the measuring.
    shutil.rmtree(output / 'c4')
    first = sorted((output / 'journal').iterdir())[0]
    first.write_text(first.read_text().splitlines(keepends=True)[0])
    trained = []

    def counted(model: SplitModel, folder: Path, **options: Any) -> str:
        trained.append((folder.parent.name, folder.name))
        return save_model(model, folder, **options)

    monkeypatch.setattr('msfc.training.trainer.save_model', counted)
    # The detector is in the folder already, and where that lies does not matter.
    sweep(folder, output)
    assert trained == [('c4', 'msfc'), ('c4', 'joint')]
    assert json.loads((output / 'sweep.json').read_text()) == before


def test_another_detector_is_refused(folder: Path, swept: tuple[Path, str]) -> None:
    save_model(build_small_model(4, seed=5), folder / 'another', half=False)
    told = sweep(folder, swept[0], '--detector', folder / 'another', status=1)
    assert 'is another detector than the one to start from' in told


def test_other_settings_are_refused(folder: Path, swept: tuple[Path, str], tmp_path: Path) -> None:
    write_sweep(tmp_path, steps=[{'name': 'msfc', 'trains': 'codec', 'iterations': 9}])
    shutil.copytree(folder / 'data', tmp_path / 'data')
    assert 'other settings' in sweep(tmp_path, swept[0], status=1)


def test_a_run_is_taken_for_its_width(
    folder: Path, swept: tuple[Path, str], tmp_path: Path
) -> None:
    told = sweep(
        folder, tmp_path / 'out', '--detector', folder / 'another_copy', status=1,
    )
    assert 'no shipped model' in told
    told = sweep(
        folder, tmp_path / 'out', '--detector', folder / 'detector', '--run', swept[0] / 'c2',
        '--code-channels', '2', '--bits', '4', '--limit', '1',
    )
    assert "C'=2 was not trained by the sweep but given" in told
    assert 'another detector' not in told
    assert sorted(path.name for path in (tmp_path / 'out').iterdir() if path.is_dir()) == [
        'detector', 'journal'
    ]
    content = json.loads((tmp_path / 'out' / 'sweep.json').read_text())
    assert [row['variant'] for row in content['rows']] == [
        'uncompressed', "C'=2 msfc, n=4", "C'=2, n=4"
    ]
    told = sweep(
        folder, tmp_path / 'twice', '--run', swept[0] / 'c2', '--run', swept[0] / 'c2', status=1
    )
    assert "both have C'=2" in told
    told = sweep(
        folder, tmp_path / 'twice', '--run', swept[0] / 'c2', '--code-channels', '4', status=1
    )
    assert "C'=2, which the sweep does not have" in told
    assert 'no shipped model' in sweep(
        folder, tmp_path / 'none', '--run', folder / 'detector', status=1
    )


def test_quick_trains_a_detector_and_says_what_it_is(folder: Path, tmp_path: Path) -> None:
    told = sweep(folder, tmp_path, '--quick', '--code-channels', '2', '--bits', '4')
    assert told.count('its figures mean nothing') == 2
    assert [path.name for path in tmp_path.iterdir()] == ['quick']
    quick = tmp_path / 'quick'
    assert describe_model(quick / 'detector')['codec'] is None
    trained = load_model(quick / 'detector_run' / 'detector').detector.state_dict()
    kept = load_model(quick / 'detector').detector.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in trained.items())
    content = json.loads((quick / 'sweep.json').read_text())
    assert content['quick'] is True
    assert content['notes'] == ['quick: a check that it works; its figures mean nothing']
    assert {step['iterations'] for step in content['steps']} == {2}


def test_a_detector_that_was_trained_by_other_settings_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    output, fabric = tmp_path / 'out', launch_fabric('cpu', '32-true')
    steps = [
        {'name': 'detector', 'trains': 'detector', 'iterations': 1, 'batch_size': 2},
        {'name': 'all', 'trains': 'all', 'iterations': 1, 'batch_size': 2},
    ]
    path = write_sweep(tmp_path)
    for count in (1, 1, 2):
        steps[0]['iterations'] = count
        write_experiment(tmp_path / 'base.yaml', steps=steps, val_images=0)
        options: dict[str, Any] = {'workers': 0}
        if count == 1:
            place = place_detector(load_sweep(path), folder / 'data', output, fabric, **options)
            assert load_model(place).codec is None
        else:
            with pytest.raises(ValueError, match='other settings of this experiment'):
                place_detector(load_sweep(path), folder / 'data', output, fabric, **options)


def test_interrupted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(trainer: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr('msfc.training.trainer.Trainer.run', interrupt)
    told = sweep(folder, tmp_path / 'out', '--detector', folder / 'detector', status=130)
    assert 'the same command resumes from' in told


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'experiment': None}, 'must name its experiment'),
        ({'width': 3}, r"unknown keys \['width'\]"),
        ({'code_channels': [8, 8]}, 'each of them once'),
        ({'code_channels': []}, 'each of them once'),
        ({'code_channels': 'all'}, 'list of whole numbers'),
        ({'code_channels': [0]}, '1 or more'),
        ({'bits': [3]}, 'bit depth 3'),
        ({'steps': [{'name': 'a', 'trains': 'detector', 'iterations': 1}]}, 'trained once'),
        ({'steps': [{'name': 'a', 'trains': 'all', 'iterations': 1}] * 2}, 'two steps'),
        ({'steps': [{'name': 'a', 'trains': 'all', 'iterations': 0}]}, 'iterations'),
        ({'steps': 'none'}, 'must be a list'),
    ],
)
def test_wrong_files_are_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        load_sweep(write_sweep(tmp_path, **changes))


def test_a_sweep_without_detector_step_needs_a_detector(folder: Path, tmp_path: Path) -> None:
    steps = [{'name': 'a', 'trains': 'all', 'iterations': 1}]
    path = write_sweep(tmp_path, steps=steps)
    write_experiment(tmp_path / 'base.yaml', steps=steps)
    with pytest.raises(ValueError, match='give a trained one'):
        load_sweep(path).detector_experiment()
    start = folder / 'detector'
    write_experiment(tmp_path / 'base.yaml', steps=steps, detector={}, start_from=str(start))
    place = place_detector(
        load_sweep(path), folder / 'data', tmp_path / 'out', launch_fabric('cpu', '32-true')
    )
    model = load_model(place)
    assert model.codec is None
    wanted = load_model(start).detector.state_dict()
    found = model.detector.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in wanted.items())


@pytest.mark.skipif(
    not (ROOT / 'experiments').is_dir(), reason='the package is outside its repository'
)
@pytest.mark.parametrize('name', ['tabletop', 'coco', 'openimages'])
def test_the_shipped_sweeps_are_the_papers(name: str) -> None:
    plan = load_sweep(ROOT / 'experiments' / f'{name}_sweep.yaml')
    assert plan.code_channels == (8, 16, 32, 64)
    assert plan.bits == (2, 4, 8, 16, 32)
    assert [step.trains for step in plan.steps] == ['codec', 'all']
    base = plan.experiment
    assert plan.of_width(base.codec['code_channels']).codec == base.codec
    first = plan.detector_experiment()
    if name == 'coco':
        assert first is None  # the zoo's weights
    else:
        assert [step.trains for step in first.steps] == ['detector']


def fake(name: str, bpfe: float | None, value: float) -> Measurement:
    replicates = {measure: value + torch.linspace(-0.01, 0.01, 9).numpy() for measure in MEASURES}
    return Measurement(
        name, 5, BootstrapResult(dict.fromkeys(MEASURES, value), replicates), bpfe, bpfe, bpfe,
        bpfe,
    )


def test_gains_are_paired_and_points_under_the_floor_left_out(tmp_path: Path) -> None:
    model = tiny_model()
    models = [
        SweepModel(8, step, last, NamedModel(model_label(8, step, last), model, ''))
        for step, last in (('msfc', False), ('joint', True))
    ]
    values = {"C'=8 msfc": (0.05, 0.2), "C'=8": (0.3, 0.4)}
    measured = {
        f'{label}, n={n}': fake(f'{label}, n={n}', n / 100, value)
        for label, pair in values.items() for n, value in zip((2, 4), pair, strict=True)
    }
    first, second = compare_steps(models, [2, 4], measured)
    # What images have in common cancels.
    assert first.gain('mask_map') == Interval(
        *(pytest.approx(number) for number in (0.25, 0.25, 0.25))
    )
    assert second.to_dict()['box_map_gain']['value'] == pytest.approx(0.2)
    clean = {'mask mAP': Interval(0.5, 0.45, 0.55)}
    left_out = plot_sweep(
        models, [2, 4], measured, clean, {'mask_map': 'mask mAP'}, tmp_path / 'steps', 0.1,
        all_steps=True,
    )
    assert left_out == [
        "mask mAP: 1 of 2 points of C'=8 msfc are under 0.1 and not shown"
    ]
    assert plot_sweep(
        models, [2, 4], measured, clean, {'mask_map': 'mask mAP'}, tmp_path / 'last', 0.1
    ) == []
    assert (tmp_path / 'steps.pdf').is_file()

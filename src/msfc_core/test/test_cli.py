"""The command ``msfc``."""

from __future__ import annotations

import json
import re
import sys

import pytest
import torch
import typer
from torch._utils import ExceptionWrapper
from typer.testing import CliRunner

from msfc.cli.console import Bar, report_errors
from msfc.cli.main import app
from msfc.detectors import build_detector
from msfc.model import SplitModel
from msfc.model_file import load_model, save_model
from tiny_data import experiment_values, write_data, write_experiment

COMMANDS = (
    (), ('data',), ('data', 'tabletop'), ('train',), ('evaluate',), ('export',), ('info',)
)


pytestmark = pytest.mark.usefixtures('one_thread')


def run(*arguments):
    """Run a command and return its exit status and output."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def assert_refused(pattern, *arguments):
    """Assert that a command ends with one line of words."""
    status, output = run(*arguments)
    assert status == 1, output
    assert len(output.strip().splitlines()) == 1, output
    assert re.search(rf'^error: .*{pattern}', output), output


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    """The folder of a run by the command, and what it printed."""
    folder = tmp_path_factory.mktemp('run')
    steps = [{**step, 'iterations': 1} for step in experiment_values()['steps'][:2]]
    plan = write_experiment(folder / 'tiny.yaml', steps=steps)
    status, output = run(
        'train', plan, '--data', data, '--output', folder / 'out', '--accelerator', 'cpu',
        '--workers', 0,
    )
    assert status == 0, output
    return folder, output


@pytest.mark.parametrize('command', COMMANDS, ids=' '.join)
def test_each_command_has_help(command):
    status, output = run(*command, '--help')
    assert status == 0
    assert 'Usage' in output


def test_help_does_not_wait_for_torch():
    import subprocess

    script = (
        'import sys; from msfc.cli.main import app\n'
        'sys.exit(any(name in sys.modules for name in ("torch", "mujoco", "lightning_fabric")))'
    )
    assert subprocess.run([sys.executable, '-c', script]).returncode == 0


def test_training_prints_losses_figures_and_where_things_are(trained):
    folder, output = trained
    assert re.search(r'detector: loss \d+\.\d+, 1 of 1', output)
    assert re.search(r'msfc: loss \d+\.\d+, 1 of 1', output)
    assert 'uncompressed' in output
    assert 'n=4' in output
    assert 'mask mAP' in output
    assert str(folder / 'out') in output.replace('\n', '')


def test_a_trained_model_is_measured_exported_and_described(trained, data, tmp_path):
    run_folder = trained[0] / 'out'
    figures = tmp_path / 'new' / 'figures.json'
    status, output = run(
        'evaluate', run_folder / 'msfc', '--data', data, '--split', 'val', '--bits', 2,
        '--bits', 8, '--reference', run_folder / 'detector', '--limit', 2, '--json', figures,
    )
    assert status == 0, output
    content = json.loads(figures.read_text())
    rows = content['rows']
    assert [row['variant'] for row in rows] == ['uncompressed', 'n=2', 'n=8']
    assert {row['images'] for row in rows} == {2}
    assert rows[2]['payload_bpfe'] == pytest.approx(4 * rows[1]['payload_bpfe'], rel=0.05)
    for row in rows:
        assert row['variant'] in output

    shipped = tmp_path / 'shipped'
    status, output = run(
        'export', run_folder / 'msfc', shipped, '--bits', 8, '--figures', figures,
        '--note', 'a note',
    )
    assert status == 0, output
    model = load_model(shipped)
    assert model.rate == 8
    assert output.strip() == model.fingerprint
    size = (shipped / 'model.safetensors').stat().st_size
    assert size < 0.6 * (run_folder / 'msfc' / 'model.safetensors').stat().st_size

    alone = tmp_path / 'alone'
    status, output = run('export', run_folder / 'detector', alone, '--detector-only')
    assert status == 0, output
    assert load_model(alone).codec is None

    status, output = run(
        'export', run_folder / 'msfc', tmp_path / 'codec', '--bits', 8, '--detector-from', alone
    )
    assert status == 0, output
    assert output.strip() == model.fingerprint == load_model(tmp_path / 'codec').fingerprint
    assert (tmp_path / 'codec' / 'model.safetensors').stat().st_size < size / 2
    status, output = run('info', tmp_path / 'codec')
    assert json.loads(output)['detector_from']['model'] == 'alone'

    status, output = run('info', shipped)
    assert status == 0
    described = json.loads(output)
    assert described['fingerprint'] == model.fingerprint
    assert described['extra'] == {'note': 'a note', 'figures': content}


def test_training_goes_on_after_ctrl_c(trained, data, monkeypatch):
    def interrupt(trainer):
        raise KeyboardInterrupt

    monkeypatch.setattr('msfc.training.trainer.Trainer.run', interrupt)
    status, output = run(
        'train', trained[0] / 'tiny.yaml', '--data', data, '--output', trained[0] / 'out',
        '--accelerator', 'cpu',
    )
    assert status == 130
    assert 'the same command resumes' in output


class TestErrors:
    def test_train(self, trained, data, tmp_path):
        plan = trained[0] / 'tiny.yaml'
        where = ('--data', data, '--output', tmp_path)
        assert_refused('No such file', 'train', tmp_path / 'no.yaml', *where)
        (tmp_path / 'bad.yaml').write_text('[x]: [')
        assert_refused('is not YAML', 'train', tmp_path / 'bad.yaml', *where)
        # Nothing of a message is taken for the terminal's markup.
        (tmp_path / 'foreign.yaml').write_text('"[bold]": 1')
        assert_refused(r"unknown keys \['\[bold\]'\]", 'train', tmp_path / 'foreign.yaml', *where)
        assert_refused('no/annotations', 'train', plan, '--data', 'no', '--output', tmp_path)
        assert_refused("unknown device 'tpu'", 'train', plan, *where, '--accelerator', 'tpu')
        other = write_experiment(tmp_path / 'other.yaml', seed=9)
        assert_refused(
            'other settings', 'train', other, '--data', data, '--output', trained[0] / 'out',
            '--accelerator', 'cpu',
        )

    def test_evaluate(self, trained, data, tmp_path):
        model = trained[0] / 'out' / 'msfc'
        assert_refused('no shipped model', 'evaluate', 'nothing', '--data', data)
        assert_refused('instances_none', 'evaluate', model, '--data', data, '--split', 'none')
        assert_refused('rate 3', 'evaluate', model, '--data', data, '--bits', 3)
        assert_refused("device 'x'", 'evaluate', model, '--data', data, '--device', 'x')
        if not torch.cuda.is_available():
            assert_refused('no CUDA', 'evaluate', model, '--data', data, '--device', 'cuda')
        detector = load_model(model).detector
        other = build_detector({**detector.config(), 'class_names': ['fork', 'ball']})
        save_model(SplitModel(other), tmp_path / 'other')
        assert_refused(
            'fork, ball; the data set has cup, ball', 'evaluate', tmp_path / 'other', '--data',
            data, '--split', 'val',
        )

    def test_export_and_info(self, trained, tmp_path):
        model = trained[0] / 'out' / 'msfc'
        assert_refused('rate 5', 'export', model, tmp_path / 'a', '--bits', 5)
        assert_refused('no.json', 'export', model, tmp_path / 'a', '--figures', 'no.json')
        (tmp_path / 'half.json').write_text('{"rows": [')
        assert_refused(
            r'half\.json is not JSON', 'export', model, tmp_path / 'a', '--figures',
            tmp_path / 'half.json',
        )
        assert_refused('would be overwritten', 'export', model, model)
        assert_refused(
            'cannot leave its detector out', 'export', model, tmp_path / 'a', '--detector-only',
            '--detector-from', 'tabletop_detector',
        )
        assert_refused(
            'the detector is not that of .*tabletop_detector', 'export', model, tmp_path / 'a',
            '--detector-from', 'tabletop_detector',
        )
        assert not (tmp_path / 'a').exists()
        assert_refused('has no model.json', 'info', tmp_path)
        assert_refused(r'\[/x\]', 'info', '[/x]')


    def test_of_a_process_that_reads_data_only_the_sentence_is_shown(self, capsys):
        try:
            raise ValueError('000.png is cut off: mend it')
        except ValueError:
            caught = ExceptionWrapper(where='in DataLoader worker process 0')
        with pytest.raises(typer.Exit), report_errors():
            caught.reraise()
        assert capsys.readouterr().err == 'error: 000.png is cut off: mend it\n'


class TestBar:
    def test_without_a_terminal_it_prints_a_line_per_stage_and_at_the_end(self, capsys):
        with Bar('one') as update:
            for done in range(1, 101):
                update(done, 100)
            update(1, 50, 'two', 'loss 1')
            update(2, 50, 'two', 'loss 2')
        assert capsys.readouterr().out.splitlines() == [
            'one, 1 of 100', 'one, 100 of 100', 'two: loss 1, 1 of 50'
        ]

    def test_lines_say_what_is_left(self, capsys, monkeypatch):
        now = [100.0]
        monkeypatch.setattr('msfc.cli.console.time.monotonic', lambda: now[0])
        with Bar('one') as update:
            update(20, 100)  # done by an earlier run
            now[0] += 90
            update(50, 100)
            now[0] += 10
            update(51, 100)
            now[0] += 3600
            update(100, 100)
        assert capsys.readouterr().out.splitlines() == [
            'one, 20 of 100', 'one, 50 of 100, about 0:02:30 left', 'one, 100 of 100'
        ]

    def test_it_can_be_silent(self, capsys):
        with Bar('one', shown=False) as update:
            update(1, 1)
        assert capsys.readouterr().out == ''

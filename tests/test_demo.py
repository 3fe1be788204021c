"""The demo as a user runs it, with a small model of random weights."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import cv2
import pytest
import torch

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from ament_index_python.packages import get_package_prefix

from msfc_demo.arrangements import namespaces_obstacle

pytestmark = pytest.mark.dds

KEYS = {
    'frames_sent', 'frames_decoded', 'payload_bytes_per_frame', 'message_bytes_per_frame',
    'payload_bpfe', 'bits_per_pixel', 'mask_map', 'box_map', 'latency_ms', 'stage_ms', 'c_prime',
    'rate', 'jpeg_q90_bytes_per_frame', 'raw_bytes_per_frame', 'compared',
}
OUR_EXECUTABLES = ('msfc_edge/edge_node', 'msfc_cloud/cloud_node', 'msfc_sim/clip_player')


@pytest.fixture(scope='module')
def tabletop_model(tmp_path_factory):
    """Write a model with the classes of the simulated world."""
    from msfc.codecs.msfc.codec import MSFC, MSFCConfig
    from msfc.detectors.torchvision import TorchvisionConfig, TorchvisionDetector
    from msfc.model import SplitModel
    from msfc.model_file import save_model
    from msfc.simulation.objects import CLASS_NAMES

    torch.manual_seed(0)
    detector = TorchvisionDetector(
        TorchvisionConfig(
            class_names=CLASS_NAMES, backbone='resnet18', fpn_channels=32, box_head_channels=64,
            min_size=128, max_size=256, max_detections=10,
        )
    )
    codec = MSFC(MSFCConfig(channels=32, code_channels=8))
    directory = tmp_path_factory.mktemp('model')
    save_model(SplitModel(detector.eval(), codec, rate=4), directory)
    return directory


@pytest.fixture(scope='module')
def learned_model(tmp_path_factory):
    """Write an untrained learned codec for the shipped detector."""
    from msfc.codecs.base import build_codec
    from msfc.model import SplitModel
    from msfc.model_file import load_model, save_model

    torch.manual_seed(0)
    detector = load_model('tabletop_detector').detector
    codec = build_codec({'type': 'learned', 'channels': detector.feature_channels})
    directory = tmp_path_factory.mktemp('learned')
    save_model(SplitModel(detector, codec), directory, detector_from='tabletop_detector')
    return directory


class DemoRun:
    """A run of the demo in a folder of its own."""

    def __init__(self, folder, model, *arguments):
        self.folder = folder
        program = Path(get_package_prefix('msfc_demo')) / 'lib' / 'msfc_demo' / 'demo'
        self.process = subprocess.Popen(
            [program, '--model', str(model), '--json', 'out.json', *arguments],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
        )

    def end(self, timeout=200):
        """Wait for its end; return exit status and output."""
        output, _ = self.process.communicate(timeout=timeout)
        return self.process.returncode, output

    def log(self, name):
        """Return the log of a node so far."""
        path = self.folder / 'demo_out' / 'logs' / f'{name}.log'
        return path.read_text() if path.exists() else ''

    def wait_for_log(self, name, words):
        """Wait until a node has said something."""
        end = time.monotonic() + 100
        while words not in self.log(name):
            assert time.monotonic() < end, self.log(name)
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.1)

    def nodes(self):
        """Return the process ids of its nodes by executable: those whose folder is its own."""
        found = {}
        for entry in Path('/proc').iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / 'cmdline').read_bytes().decode(errors='replace')
                same_folder = (entry / 'cwd').resolve() == self.folder.resolve()
            except OSError:
                continue
            for executable in OUR_EXECUTABLES:
                if executable in command and same_folder:
                    found[executable] = int(entry.name)
        return found


@pytest.fixture
def demo(tmp_path):
    runs = []

    def demo(*arguments):
        runs.append(DemoRun(tmp_path, *arguments))
        return runs[-1]

    yield demo
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()


def test_run_to_the_end(demo, tabletop_model):
    run = demo(tabletop_model, '--frames', '4')
    status, output = run.end()
    assert status == 0, output
    assert not run.nodes()
    values = json.loads((run.folder / 'out.json').read_text())
    assert set(values) >= KEYS
    assert values['frames_decoded'] == values['frames_sent'] == 4
    assert (values['c_prime'], values['rate']) == (8, 4)
    assert values['raw_bytes_per_frame'] == 640 * 480 * 3
    # 128 x 170 pixels, padded to 128 x 192: a map of 4 x 6 cells.
    assert values['payload_bytes_per_frame'] == 8 * 4 * 6 * 4 / 8
    assert values['payload_bpfe'] == pytest.approx(
        8 * 4 * 24 / (32 * (24 * (64 + 16 + 4 + 1) + 6)), rel=1e-4
    )
    assert 0 < values['message_bytes_per_frame'] - values['payload_bytes_per_frame'] < 200
    assert values['bits_per_pixel'] == pytest.approx(
        8 * values['message_bytes_per_frame'] / (640 * 480), rel=1e-4
    )
    assert 0 <= values['mask_map'] <= values['mask_map50'] <= 1
    assert 0 < values['latency_ms']['p50'] <= values['latency_ms']['p95']
    assert all(value > 0 for value in values['stage_ms'].values())
    assert '4 of 4' in output
    assert [row['payload_bytes'] for row in values['compared']['rates']] == [
        8 * 4 * 6 * n / 8 for n in (2, 4, 8, 16, 32)
    ]
    assert 'n=32: payload, bytes' in output
    assert 'H.265 intra' in output
    assert cv2.imread(str(run.folder / 'demo_out' / 'contact_sheet.jpg')) is not None
    assert (run.folder / 'demo_out' / 'camera_and_masks.mp4').stat().st_size > 10_000


def test_shipped_model_finds_what_is_there(demo):
    """Camera, edge and cloud on the recorded clip, against its ground truth."""
    run = demo('tabletop_msfc', '--frames', '30', '--compare', '2')
    status, output = run.end(280)
    assert status == 0, output
    values = json.loads((run.folder / 'out.json').read_text())
    assert values['frames_decoded'] == 30
    # The paper's operating point, on a 128-channel pyramid.
    assert (values['c_prime'], values['rate']) == (32, 4)
    assert values['payload_bytes_per_frame'] == 1280
    assert values['payload_bpfe'] == pytest.approx(0.0117, abs=1e-4)
    assert values['mask_map'] > 0.45
    assert values['box_map'] > 0.45
    assert [row['payload_bytes'] for row in values['compared']['rates']] == [
        640, 1280, 2560, 5120, 10240
    ]
    assert values['compared']['images']['detector'] == 'tabletop_detector'


def test_learned_codec_behind_the_shipped_detector(demo, learned_model):
    run = demo(learned_model, '--frames', '3', '--codec-rate', '1', '--compare', '1')
    status, output = run.end()
    assert status == 0, output
    values = json.loads((run.folder / 'out.json').read_text())
    assert values['rate'] == 1
    assert values['frames_decoded'] == 3
    compared = values['compared']
    assert compared['frames'] == 1
    assert compared['images']['detector'] == 'tabletop_detector'
    assert [row['rate'] for row in compared['rates']] == list(range(8))
    assert compared['rates'][1]['payload_bytes'] == compared['payload_bytes']
    assert 'rate 7: payload, bytes' in output


def check_link(run, output, frames):
    """Check what a demo with a link of 64 kbit/s and packets lost says of it."""
    values = json.loads((run.folder / 'out.json').read_text())
    assert values['frames_decoded'] == frames
    link = values['link']
    messages = link['messages']
    # Of those that are still under way nothing is known.
    assert all(one['known'] for one in messages if one['decoded'])
    arrived = [one for one in messages if one['delay'] is not None]
    assert len(arrived) >= frames
    for one in arrived:
        assert one['delay'] >= 0.02 + 8 * one['message_bytes'] / 64e3
    assert sum(window['sent'] for window in link['windows']) == len(messages)
    assert sum(window['decoded'] for window in link['windows']) == frames
    assert 'The link: 64 kbit/s' in output
    assert cv2.imread(str(run.folder / 'demo_out' / 'link.png')) is not None
    return values


LINK = ('--link', '64kbit,loss=20%', '--frames', '8', '--compare', '0')


def test_paced_link(demo, tabletop_model):
    run = demo(tabletop_model, *LINK, '--paced')
    status, output = run.end(280)
    assert status == 0, output
    assert not run.nodes()
    assert 'held back by the demo itself, as asked for' in ' '.join(output.split())
    assert 'best of 5 rates' in output
    check_link(run, output, 8)


def test_link_between_namespaces(demo, tabletop_model):
    why_not = namespaces_obstacle()
    if why_not:
        pytest.skip(why_not)
    run = demo(tabletop_model, *LINK)
    status, output = run.end(280)
    assert status == 0, output
    assert not run.nodes()
    assert 'two network namespaces with a shaped link' in ' '.join(output.split())
    check_link(run, output, 8)


def test_rate_that_is_given_cannot_follow_the_link(demo, tabletop_model):
    run = demo(tabletop_model, *LINK, '--paced', '--codec-rate', '8')
    status, output = run.end(280)
    assert status == 0, output
    assert 'The edge cannot adapt its messages, as its rate is given' in output
    values = check_link(run, output, 8)
    assert {one['rate'] for one in values['link']['messages']} == {8}


def test_ctrl_c(demo, tabletop_model):
    run = demo(tabletop_model, '--frames', '100000')
    run.wait_for_log('camera', 'active')
    assert len(run.nodes()) == 3
    run.process.send_signal(signal.SIGINT)
    status, output = run.end(30)
    assert status == 128 + signal.SIGINT
    assert 'Broken off: stopped by SIGINT' in output
    assert not run.nodes()


def test_node_that_dies(demo, tabletop_model):
    run = demo(tabletop_model, '--frames', '100000')
    run.wait_for_log('cloud', 'active')
    os.kill(run.nodes()['msfc_cloud/cloud_node'], signal.SIGKILL)
    status, output = run.end(60)
    assert status == 1
    assert 'the cloud ended by signal SIGKILL' in output
    assert 'The end of demo_out/logs/cloud.log' in output
    assert not run.nodes()


def test_killed_demo_leaves_no_node(demo, tabletop_model):
    run = demo(tabletop_model, '--frames', '100000')
    run.wait_for_log('camera', 'active')
    run.process.kill()
    run.process.communicate()
    end = time.monotonic() + 20
    while run.nodes() and time.monotonic() < end:
        time.sleep(0.1)
    assert not run.nodes()


def test_model_that_is_not_there(demo):
    status, output = demo('no_such_model').end(60)
    assert status == 1
    assert "'no_such_model' is no directory and no shipped model" in output


def test_nothing_decoded(demo, tabletop_model, tmp_path):
    """A model without a codec can be loaded, but not sent."""
    from msfc.model import SplitModel
    from msfc.model_file import load_model, save_model

    plain = tmp_path / 'plain'
    save_model(SplitModel(load_model(tabletop_model).detector), plain)
    run = demo(plain, '--frames', '2')
    status, output = run.end()
    assert status == 1
    assert 'the model has no codec' in output
    assert json.loads((run.folder / 'out.json').read_text())['frames_decoded'] == 0
    assert not run.nodes()

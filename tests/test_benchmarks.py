"""The arithmetic of the benchmarks, and that a day of features is counted from real bytes."""

import argparse
import importlib.util
import shutil
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc.codecs.learned import LearnedCodec, LearnedConfig
from msfc.model import SplitModel
from msfc.model_file import load_model
from msfc.simulation.scene import Frame
from msfc.types import Instances

BENCHMARKS = Path(__file__).resolve().parents[1] / 'benchmarks'


def load(name):
    """Import a benchmark, which is no package's."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_ratios_are_of_medians():
    pipeline = load('pipeline')
    samples = pipeline.Samples()
    values = {
        'unsplit': (100, 90, 400), 'pair': (104, 110, 103), 'in one process': (102, 102, 102),
        'pair backbone': (50, 50, 90), 'pair encode': (1, 1, 9), 'pair pack': (0.5, 0.5, 0.5),
        'in one process unpack': (1, 1, 1), 'in one process decode': (2, 2, 2),
        'echo empty': (1, 1, 1), 'echo feature': (1.5, 1.5, 9), 'echo jpeg': (2, 2, 2),
        'echo raw': (4.5, 4.5, 4.5), 'feature bytes': (1000, 1000, 1000),
        'raw bytes': (100_000,) * 3, 'jpeg bytes': (10_000,) * 3,
    }  # fmt: skip
    for name, row in values.items():
        for value in row:
            samples.add(name, value)
    found = pipeline.ratios(samples)
    assert found['pair / unsplit'] == pytest.approx(1.04)
    assert found['pair from its camera image on / unsplit'] == pytest.approx(1.0)
    assert found['edge codec / backbone'] == pytest.approx(0.03)
    assert found['cloud codec / unsplit'] == pytest.approx(0.03)
    assert found['feature serialised, sent, deserialised, ms'] == pytest.approx(1.0)
    assert found['feature bytes / raw bytes'] == pytest.approx(0.01)
    assert samples.summary('unsplit')['minimum'] == 90


def test_what_a_model_is_sure_of_is_counted():
    faults = load('camera_faults')
    count = faults.Count()
    count.add(torch.tensor([0.9, 0.5, 0.4]), 3)
    count.add(torch.tensor([]), 0)
    count.add(torch.tensor([0.2]), 1)
    assert count == faults.Count(
        images=3, visible=4, with_instances=1, instances=2, highest=pytest.approx(0.9)
    )
    assert list(faults.spread(range(200), 20)) == list(range(0, 200, 10))
    assert list(faults.spread(range(3), 20)) == [0, 1, 2]


def test_choosing_is_compared_with_writing_once():
    choice = load('rate_choice')
    costs = choice.Costs([0.2, 0.4], [0.1, 0.2], [2, 3], 1)
    found = {'skipped': 1, 'writes': 2.5, 'choosing / writing': pytest.approx(2.0)}
    assert costs.summary() == found
    assert choice.Costs(skipped=4).summary() == {'skipped': 4}


def test_summary_of_several_cameras():
    cameras = load('cameras')
    counts = [
        cameras.CameraCount(sent=100, answered=40, latencies=[10.0, 20.0]),
        cameras.CameraCount(sent=100, answered=50, disordered=1, foreign=2, latencies=[30.0]),
    ]
    found = cameras.summarise(counts, 10.0, 8)
    assert found['cameras'] == 2
    assert found['offered_hz'] == 20
    assert found['answered_hz'] == 9
    assert (found['least_hz'], found['most_hz']) == (4, 5)
    assert found['latency_ms'] == {'p50': 20, 'p95': 29}
    assert (found['disordered'], found['foreign_headers']) == (1, 2)
    assert cameras.summarise([cameras.CameraCount()], 1.0, 1)['latency_ms']['p50'] is None


def test_summary_of_a_fleet():
    fleet = load('fleet')
    robots = [
        fleet.Robot(ages=[0.1, 0.3]), fleet.Robot(ages=[0.2], lost={'engine_busy': 2}),
        fleet.Robot(lost={'engine_busy': 1, 'engine_away': 1}),
    ]
    found = fleet.summarise(robots, 5.0, 10.0)
    assert (found['offered_hz'], found['least_hz']) == (15.0, 0.0)
    assert found['answered_hz'] == pytest.approx(0.3)
    assert found['age_mean_s'] == pytest.approx(0.2)
    assert found['lost'] == {'engine_busy': 3, 'engine_away': 1}
    assert fleet.summarise([fleet.Robot()], 5.0, 1.0)['age_p95_s'] is None


def test_page_of_a_fleet():
    fleet = load('fleet')
    row = {
        'robots': 8, 'replicas': 2, 'offered_hz': 40.0, 'answered_hz': 31.26, 'age_mean_s': 0.5,
        'age_p95_s': None, 'lost': {'engine_busy': 3}, 'model': {'answered': 33.0, 'age': 0.4},
    }
    page = fleet.page({
        'model': 'f00', 'device': 'cpu', 'threads': 1, 'cores': 2, 'torch': '2', 'fleets': [row],
        'replica': {'fixed': 0.01, 'each': 0.05, 'max_batch': 4}, 'proxy_hz': 900.4,
        'batches': {1: 0.06, 4: 0.2},
        'overhead': {'local_s': 0.06, 'ray_s': 0.066, 'outside_decoding_s': 0.0051},
        'need': {'robots': 1000, 'rate_hz': 5.0, 'replicas': 358, 'proxies': 8},
    })
    assert '| 4 | 200 | 210 | 20.0 |' in page
    assert '| 8 | 2 | 40 | 31.3 | 33.0 | 0.50 | 0.40 |  | 3 |' in page
    assert '66 ms through the service, of which 5.1 ms are not decoding' in page
    assert '1,000 robots at 5 Hz: 358 such replicas' in page


def test_robots_of_a_fleet_send_their_newest_frame():
    fleet = load('fleet')
    asked, lock = [], threading.Lock()

    class Remote:
        def decode(self, packet):
            with lock:
                asked.append(packet)
            time.sleep(0.25)

    found = fleet.play(Remote(), list(range(1000)), 2, 20.0, 2.0, 0.0)
    assert found['offered_hz'] == 40
    # Each waits for its answer before the next frame, which is the newest then.
    assert 0 < len(asked) <= 2 * 10
    assert max(asked) > 20
    assert found['age_mean_s'] >= 0.25


def test_summary_of_a_load():
    overload = load('overload')
    player = argparse.Namespace(latencies=[10.0, 20.0, 30.0, 80.0], answered=5)
    found = overload.summarise('2 x', 8.0, player, 2.0)
    assert found['answered_hz'] == 2.5
    assert found['latency_ms']['p50'] == 25
    assert found['latency_ms']['max'] == 80
    assert found['p50_first_half_ms'] == 20
    assert found['p50_second_half_ms'] == 55
    assert found['frames'] == 4


def test_space_of_a_day(model_directory, monkeypatch):
    bag_space = load('bag_space')
    frames = bag_space.read_frames(bag_space.CLIP)[:4]
    assert frames[0].dtype == np.uint8
    monkeypatch.setattr(bag_space, 'read_frames', lambda path: frames)
    options = argparse.Namespace(
        model=str(model_directory), clip=bag_space.CLIP, rate=5.0, crf=[30], jpeg=[50]
    )
    spaces = {s.name: s for s in bag_space.measure(options, Console(quiet=True))}
    raw, features = spaces['raw images'], spaces['features']
    assert raw.frame_bytes == frames[0].nbytes
    assert raw.day_bytes == raw.frame_bytes * 5 * 86400
    assert features.minutes == pytest.approx(24 * 60)
    assert raw.minutes == pytest.approx(24 * 60 * features.frame_bytes / raw.frame_bytes)
    assert features.frame_bytes < spaces['JPEG, quality 50'].frame_bytes < raw.frame_bytes
    if shutil.which('ffmpeg'):
        assert 0 < spaces['H.264 video, CRF 30'].frame_bytes < raw.frame_bytes


def test_what_a_message_of_some_bytes_is_worth():
    quality = load('link_quality')
    curve = quality.frontier('JPEG', [(900, 0.5), (300, 0.2), (500, 0.1), (2000, 0.4)])
    assert curve.message_bytes == (300, 900)
    assert [curve.at(size) for size in (299, 300, 899, 5000)] == [None, 0.2, 0.2, 0.5]


def link_run(link, late=1.0, **conditions):
    """Return a run of messages of 1,404 bytes, each ``late`` times the delay of an idle link."""
    loss, tcp = conditions.get('loss', 0.0), conditions.get('tcp', False)
    run = link.Run(loss, tcp, fair=False, segment=None, loop=True, on_link=True)
    for tenth in range(800):
        at = tenth / 10
        rate = [bits for begin, bits in run.scenario.rates if begin <= at][-1]
        lost = tenth % 10 == 0
        delay = None if lost else late * run.idle_delay(1616, rate)
        run.messages.append((at, 1616, delay))
    return run


def test_figures_of_a_link_are_those_after_it_has_settled():
    quality, link = load('link_quality'), load('link')
    curve = quality.Quality('JPEG', (700.0, 1404.0), (0.3, 0.6))
    first, second, third = link.summarise(link_run(link, 1.2), {'JPEG': curve})
    assert [row['link_kbit_s'] for row in (first, second, third)] == [10_000, 200, 2000]
    for row in (first, second, third):
        assert row['p50_idle'] == pytest.approx(1.2)
        assert row['hz'] == pytest.approx(9.0, rel=0.01)
        assert row['lost'] == pytest.approx(0.1, rel=0.02)
        # On the link 1,616 bytes are those of a message of 1,404.
        assert row['map_JPEG'] == pytest.approx(0.6)
    assert second['p50_ms'] == pytest.approx(1e3 * 1.2 * (0.02 + 8 * 1616 / 200e3))


def test_shares_are_those_of_messages_after_all_have_settled():
    link = load('link')
    sharing = link.Sharing(1e6, 0.0, settled=10.0, end=20.0, on_link=True)
    # Of 764 and 1,404 bytes; the second of twice the weight, half a part too few of the fourth.
    for size, each in ((911, 0.2), (1616, 0.2), (911, 0.2), (911, 0.4)):
        times = [each * number for number in range(round(20.0 / each))]
        sharing.edges.append([(at, size, 0.1 if at >= 10.0 else None) for at in times])
    row = link.summarise_sharing(sharing)
    parts = [row[f'edge_{n}_weight_{w}'] for n, w in ((1, 1), (2, 2), (3, 1), (4, 1))]
    whole = 5 * 764 * 2.5 + 5 * 1404
    assert parts == pytest.approx(
        [5 * value / whole for value in (5 * 764, 5 * 1404 / 2, 5 * 764, 2.5 * 764)]
    )
    assert row['p50_ms'] == pytest.approx(100.0)
    assert row['longest_gap_ms'] == pytest.approx(400.0)


def test_runs_are_told_by_the_second():
    link = load('link')
    told = link.describe(link_run(link))
    assert len(told['seconds']) == 80
    assert told['seconds'][30]['sent'] == 10
    assert told['seconds'][30]['arrived'] == 9
    assert told['seconds'][30]['bytes'] == 9 * 1616
    milliseconds = 1e3 * (0.02 + 8 * 1616 / 200e3)
    assert told['seconds'][30]['p50_ms'] == pytest.approx(milliseconds, abs=0.01)


def moving_squares(tracking, count, places):
    """Return a shot: squares that move to the right, found just as they are."""
    shot = []
    for k in range(count):
        masks = np.zeros((len(places), 120, 160), bool)
        for mask, (x, y) in zip(masks, places, strict=True):
            mask[y : y + 20, x + 2 * k : x + 2 * k + 20] = True
        corners = torch.tensor([(x + 2 * k, y) for x, y in places], dtype=torch.float32)
        found = Instances(
            torch.cat([corners, corners + 20], 1),
            torch.full((len(places),), 0.9),
            torch.zeros(len(places), dtype=torch.int64),
            torch.from_numpy(masks),
        )
        image = np.zeros((120, 160, 3), np.uint8)
        labels, ids = [0] * len(places), list(range(1, len(places) + 1))
        shot.append(tracking.Seen(found, Frame(image, labels, list(masks), ids), 1.0))
    return shot


@pytest.mark.parametrize('loss', [0.0, 0.3])
def test_objects_that_are_found_as_they_are_keep_their_identities(loss):
    tracking = load('tracking')
    shots = [moving_squares(tracking, 20, [(0, 0), (60, 60)]) for _ in range(2)]
    found, seconds = tracking.follow(shots, loss, 0)
    assert found['switches'] == 0
    assert found['objects'] == 4
    assert found['precision'] == 1
    assert found['frames'] == len(seconds)
    assert (found['frames'] == 40) == (loss == 0)
    # They have no identity in the first frame of each shot.
    assert found['recall'] == pytest.approx(1 - 2 / found['frames'])
    assert found['IDF1'] == pytest.approx(2 * found['recall'] / (1 + found['recall']))


def test_exchanged_and_missing_identities_are_counted():
    tracking = load('tracking')
    (first, second) = moving_squares(tracking, 2, [(0, 0), (60, 60)])
    counts = tracking.Counts()
    for seen, ids in ((first, [5, 6]), (second, [6, 5]), (second, [6, 0])):
        counts.add(replace(seen.found, track_ids=torch.tensor(ids)), seen.truth)
    assert counts.clear()['IDSW'] == 2
    assert counts.clear()['CLR_FN'] == 1
    assert counts.identity()['IDF1'] == pytest.approx(2 * 3 / (6 + 5))


def test_overlap_of_masks():
    tracking = load('tracking')
    one = np.zeros((2, 4, 4), bool)
    one[0, :2], one[1, 2:] = True, True
    other = np.zeros((1, 4, 4), bool)
    other[0, 1:3] = True
    np.testing.assert_allclose(tracking.overlaps(one, other), [[1 / 3], [1 / 3]])
    assert tracking.overlaps(one, other[:0]).shape == (2, 0)
    assert tracking.overlaps(other[:0].reshape(0), one).shape == (0, 2)


def test_the_table_of_edge_backends():
    backends = load('edge_backends')
    eager = backends.Way('torch', 'fp32', 'model', [90, 100, 400], [80, 100, 120])
    eager.figures = {'peak_mb': 600, 'box_map': 60.0, 'mask_map': 50.0}
    other = backends.Way('openvino', 'int8', 'bundle', [50, 60, 61], [30, 40, 50])
    other.figures = {
        'peak_mb': 180, 'box_map': 59.8, 'mask_map': 49.6, 'restart_seconds': 0.9,
        'message_bytes': 1404.2,
    }
    rows = backends.summarise([eager, other])
    assert rows[1]['ms'] == 60
    assert (rows[1]['ms_ratio'], rows[1]['cpu_ms_ratio'], rows[1]['peak_mb_ratio']) == (
        0.6, 0.4, 0.3,
    )
    lines = backends.markdown(rows).splitlines()
    assert lines[2] == (
        '| torch | fp32 | 100.0 | 1.00 | 100.0 | 1.00 | 600 | 1.00 |  |  | 60.0 (+0.0) '
        '| 50.0 (+0.0) |'
    )
    assert lines[3] == (
        '| openvino | int8 | 60.0 | 0.60 | 40.0 | 0.40 | 180 | 0.30 | 0.90 | 1404 | 59.8 (-0.2) '
        '| 49.6 (-0.4) |'
    )
    assert len({line.count('|') for line in lines}) == 1
    (verdict,) = backends.verdicts(rows)
    assert 'of eager met, at most 0.3 points of mAP NOT met, 1 s to the first frame met' in verdict


def test_an_edge_in_a_process_of_its_own(model_directory, tmp_path):
    backends = load('edge_backends')
    np.save(tmp_path / 'frames.npy', np.zeros((2, 48, 64, 3), np.uint8))
    way = backends.Way('torch', 'fp32', str(model_directory))
    with backends.Worker(way, 1, tmp_path / 'frames.npy') as worker:
        worker.start()
        worker.encode(0, counts=False)
        worker.encode(1, counts=True)
        worker.finish()
    assert len(way.times) == len(way.cpu_times) == 1
    assert way.times[0] > 0
    assert way.figures['peak_mb'] > 100
    lost = backends.Way('torch', 'fp32', str(tmp_path))
    with (
        backends.Worker(lost, 1, tmp_path / 'frames.npy') as worker,
        pytest.raises(ValueError, match='process of torch:fp32 ended'),
    ):
        worker.start()


def test_what_is_left_out_of_an_entropy_model_is_not_used():
    ablation = load('context_ablation')
    config = LearnedConfig(
        channels=8, code_channels=4, slices=(2, 2), hyper_channels=2, rates=2, context_width=4,
        hidden_width=4, hyper_width=4,
    )  # fmt: skip
    torch.manual_seed(0)
    codec = LearnedCodec(config)
    codes = 3 * torch.randn(2, 4, 8, 8)
    rates = torch.tensor([0, 1])
    for variant in ablation.VARIANTS:
        made = ablation.Ablated(codec, variant)
        torch.nn.init.normal_(made.entropy.hyper_last.weight)
        for layer in made.entropy.update:
            torch.nn.init.normal_(layer.weight)
        for _ in range(2):
            made.restrict()
        changed = codes.clone()
        changed[:, 0, 0, 0] += 40
        torch.manual_seed(1)
        before = made.bits(codes, rates)[1]
        (made.bits(changed, rates)[0]).sum().backward()
        kept = made.entropy.update[0].weight[: config.context_width]
        assert bool(kept.any()) == variant.checkerboard
        assert len(made.entropy.update) == (2 if variant.slices else 1)
        hyper = made.hyper.second.weight.grad
        assert bool(hyper.any()) == variant.hyper
        assert (before > 0).all()


@pytest.fixture
def eight_rates() -> LearnedCodec:
    config = LearnedConfig(
        channels=32, code_channels=4, slices=(2, 2), hyper_channels=2, rates=8, context_width=4,
        hidden_width=4, hyper_width=4, analysis_widths=(8, 8), synthesis_widths=(8, 8, 8, 8),
    )  # fmt: skip
    torch.manual_seed(0)
    return LearnedCodec(config).eval()


def test_a_codec_of_one_rate_sends_what_the_whole_one_sends_at_it(eight_rates):
    ablation = load('training_ablation')
    with torch.no_grad():
        for name, parameter in eight_rates.named_parameters():
            if 'rate_' in name:
                parameter.uniform_(-1, 1)
    pyramid = {f'p{k}': torch.randn(1, 32, 128 >> k, 128 >> k) for k in range(2, 7)}
    single = ablation.one_rate(eight_rates, 3).eval()
    with torch.no_grad():
        rebuilt, whole = single.compress(pyramid, torch.tensor([0]))
        wanted, coded = eight_rates.compress(pyramid, torch.tensor([3]))
    assert float(whole.sent) == pytest.approx(float(coded.sent))
    for level, features in rebuilt.items():
        torch.testing.assert_close(features, wanted[level])


def test_every_ablation_of_the_training_is_one_that_can_be_run(
    eight_rates, model_directory, tmp_path
):
    ablation = load('training_ablation')
    detector = load_model(model_directory).detector
    options = argparse.Namespace(
        model='small', output=tmp_path, iterations=10, bytes=[10.0 * k for k in range(1, 9)]
    )
    for variant in ablation.VARIANTS:
        plan = ablation.experiment(variant, SplitModel(detector, eight_rates), options)
        codec = load_model(plan.start_from).require_codec()
        assert codec.settings.rates == len(plan.steps[0].byte_targets)
        assert sum(codec.settings.slices) == codec.settings.code_channels
    with pytest.raises(ValueError, match='small has no learned codec'):
        ablation.experiment(ablation.VARIANTS[0], SplitModel(detector), options)

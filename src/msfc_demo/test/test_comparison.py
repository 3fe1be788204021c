import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import Instance, InstanceArray

from msfc.codecs.base import build_codec
from msfc.detectors.torchvision import TorchvisionConfig, TorchvisionDetector
from msfc.evaluation.image_codecs import find_codecs
from msfc.model import SplitModel
from msfc.model_file import load_model, save_model
from msfc.pipeline.torch_network import edge_pipeline
from msfc_demo import comparison as module
from msfc_demo.comparison import (
    Comparison,
    ImagePoint,
    RateBytes,
    Reference,
    compare,
    find_reference,
)
from msfc_demo.sample import FrameSample, SampledFrame, middles

CLASSES = ('ball', 'mug')
CODECS = {
    'msfc': {'type': 'msfc', 'channels': 16, 'code_channels': 4},
    'learned': {
        'type': 'learned', 'channels': 16, 'code_channels': 6, 'slices': [2, 4],
        'hyper_channels': 3, 'rates': 3, 'analysis_widths': [8, 8],
        'synthesis_widths': [8, 8, 12, 8], 'synthesis_blocks': [1, 1, 1, 1], 'context_width': 8,
        'hidden_width': 8, 'hyper_width': 8,
    },
}
RATES = {'msfc': ['n=2', 'n=4', 'n=8', 'n=16', 'n=32'], 'learned': ['rate 0', 'rate 1', 'rate 2']}

NO_H265 = find_codecs()[1].get('H.265', '')

needs_h265 = pytest.mark.skipif(bool(NO_H265), reason=f'no H.265: {NO_H265}')


def make_model(kind='msfc', names=CLASSES):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = TorchvisionDetector(TorchvisionConfig(
            class_names=names, backbone='resnet18', fpn_channels=16, box_head_channels=16,
            min_size=64, max_size=96, max_detections=5,
        ))
        return SplitModel(detector, build_codec(CODECS[kind])).eval()


def make_frames(count=2):
    rng = np.random.default_rng(0)
    truth = InstanceArray(image_height=72, image_width=96, instances=[
        Instance(class_id=0, class_name='ball', score=1.0, x=10, y=10, width=30, height=20,
                 mask=np.full(600, 255, np.uint8)),
    ])
    return [
        SampledFrame(rng.integers(0, 256, (72, 96, 3), np.uint8), truth, truth, 50 + 100 * k)
        for k in range(count)
    ]


def ignore(done, total):
    pass


def no_encoder():
    return [], {'H.265': 'PyAV is not installed'}


@pytest.mark.parametrize('kind', ['msfc', 'learned'])
def test_every_rate_has_the_bytes_that_the_edge_sends(kind, monkeypatch):
    monkeypatch.setattr(module, 'find_codecs', no_encoder)
    model, frames = make_model(kind), make_frames()
    found = compare(model, frames, Reference('own', model.detector), ignore)
    assert [rate.name for rate in found.rates] == RATES[kind]
    for rate in found.rates:
        edge = edge_pipeline(model, rate.rate)
        sent = [len(edge.encode(frame.image).data) for frame in frames]
        assert rate.payload_bytes == np.mean(sent)
    assert (found.frames, found.payload_bytes, found.mask_map) == (2, 100, 1)
    assert found.points == ()
    assert found.ratio is None
    assert found.sentence() == 'no comparison with H.265 intra: PyAV is not installed'


@needs_h265
def test_images_are_sent_at_several_settings():
    model, frames = make_model(), make_frames()
    steps = []
    found = compare(model, frames, Reference('own', model.detector),
                    lambda done, total: steps.append((done, total)))
    total = 2 * (1 + len(found.points))
    assert steps == [(done, total) for done in range(1, total + 1)]
    assert len({point.setting for point in found.points}) == len(found.points) == 5
    assert all('H.265 intra' in point.setting for point in found.points)
    assert len({point.payload_bytes for point in found.points}) == len(found.points)
    assert all(0 <= point.mask_map < 1 for point in found.points)
    # What was found in the run is the truth, and a detector of random weights is far from it.
    assert found.ratio.status == 'never'
    assert 'reaches it at no setting measured' in found.sentence()
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))['images']['detector'] == 'own'


@needs_h265
def test_it_can_be_broken_off():
    def stop(done, total):
        raise KeyboardInterrupt

    model = make_model()
    with pytest.raises(KeyboardInterrupt):
        compare(model, make_frames(), Reference('own', model.detector), stop)


def test_classes_that_the_model_does_not_have(monkeypatch):
    model = make_model(names=('cup', 'mug'))
    found = compare(model, make_frames(1), Reference('own', model.detector), ignore)
    assert math.isnan(found.mask_map)
    assert len(found.rates) == 5
    assert 'does not have the classes' in found.sentence()
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))['mask_map'] is None


def make_comparison(precision, missing=''):
    points = () if missing else tuple(
        ImagePoint(f'q={k}', 200.0 * 2**k, 0.4 + 0.1 * k) for k in range(3)
    )
    return Comparison(
        8, 200.0, precision, (RateBytes(2, 'n=2', 100.0),), 'detector', points, missing
    )


@pytest.mark.parametrize(
    ('precision', 'ratio', 'words'),
    [
        (0.5, 2.0, 'H.265 intra needs 400 bytes, 2.00 times as many'),
        (0.6, 4.0, '8 of the frames, mask mAP 0.600 by 200 bytes of features: H.265 intra needs'),
        (0.3, 1.0, 'needs at most 200 bytes, 1.00 times as many'),
        (0.7, None, 'reaches it at no setting measured'),
    ],
)
def test_bytes_at_equal_precision(precision, ratio, words):
    found = make_comparison(precision)
    assert found.ratio.ratio == (ratio and pytest.approx(ratio))
    assert words in found.sentence()
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert values['images']['ratio'] == (ratio and pytest.approx(ratio))
    assert values['rates'] == [{'rate': 2, 'name': 'n=2', 'payload_bytes': 100}]


@pytest.mark.parametrize('precision', [0.0, math.nan])
def test_nothing_found_is_not_compared(precision):
    found = make_comparison(precision)
    assert found.ratio is None
    assert found.sentence() == 'no comparison with H.265 intra: no object was found rightly'


class TestReference:
    def test_is_what_the_figures_of_a_model_are_against(self):
        model = load_model('tabletop_msfc')
        reference = find_reference('tabletop_msfc', model)
        assert reference.name == 'tabletop_detector'
        assert reference.detector is not model.detector

    @pytest.mark.parametrize(
        'figures', [None, 7, {}, {'reference_detector': {'label': 'runs/detector'}}]
    )
    def test_is_the_models_own_detector_where_nobody_says(self, tmp_path, figures):
        model = make_model()
        save_model(model, tmp_path, extra={'figures': figures})
        assert find_reference(str(tmp_path), model).detector is model.detector

    def test_is_the_one_that_is_asked_for(self, tmp_path):
        save_model(make_model(), tmp_path / 'other')
        save_model(make_model(names=('cup', 'mug')), tmp_path / 'foreign')
        model = make_model()
        found = find_reference('mine', model, str(tmp_path / 'other'))
        assert found.name == str(tmp_path / 'other')
        assert found.detector is not model.detector
        with pytest.raises(ValueError, match='does not have the classes of mine'):
            find_reference('mine', model, str(tmp_path / 'foreign'))
        with pytest.raises(ValueError, match='no shipped model'):
            find_reference('mine', model, 'nothing')


@pytest.mark.parametrize(
    ('total', 'count', 'places'),
    [(60, 3, [10, 30, 50]), (10, 3, [1, 5, 8]), (2, 8, [0, 1]), (5, 0, []), (1, 1, [0])],
)
def test_sample_is_spread_over_the_run(total, count, places):
    sample = FrameSample(total, count)
    for number in range(total):
        sample.offer(SimpleNamespace(
            image=number, truth='truth', found='found', sent=SimpleNamespace(payload_bytes=7)
        ))
    assert [frame.image for frame in sample.frames] == places
    assert middles(total, len(places)) == places

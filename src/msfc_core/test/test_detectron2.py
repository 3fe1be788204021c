"""What only Detectron2 has: its configurations, its weights, its way of saying no."""

import json
import pickle

import numpy as np
import pytest
import torch
import yaml
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file

import tiny_data
from detector_models import CLASS_NAMES, NUM_CLASSES, Detectron2Kit, make_images, make_targets
from msfc.codecs.msfc.codec import MSFC, MSFCConfig
from msfc.detectors import build_detector
from msfc.detectors.detectron2 import Detectron2Detector
from msfc.detectors.detectron2_config import zoo_directory
from msfc.detectors.detectron2_weights import load_weights
from msfc.model import SplitModel
from msfc.model_file import load_model, save_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline
from msfc.training.experiment import load_experiment
from msfc.training.trainer import Trainer, build_model
from ranks import train_in_processes

pytest.importorskip('detectron2', reason='needs Detectron2: scripts/setup.sh --detectron2')

KIT = Detectron2Kit()
LAZY_NAME = 'new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py'
LAZY_OVERRIDES = {
    'dataloader.test.mapper.augmentations[0].short_edge_length': 128,
    'model.backbone.out_channels': 64,
    'model.proposal_generator.head.in_channels': 64,
    'model.proposal_generator.post_nms_topk': [1000, 50],
    'model.roi_heads.num_classes': NUM_CLASSES,
    'model.roi_heads.box_head.input_shape.channels': 64,
    'model.roi_heads.box_head.conv_dims': [32],
    'model.roi_heads.box_head.fc_dims': [1024],
    'model.roi_heads.mask_head.input_shape.channels': 64,
    'model.roi_heads.mask_head.conv_dims': [32, 32],
}


@pytest.fixture
def detector():
    """Return a small detector with random weights, in evaluation mode."""
    torch.manual_seed(7)
    return KIT.make().eval()


@pytest.mark.parametrize('input_format', ['BGR', 'RGB'])
def test_equals_default_predictor(tmp_path, input_format):
    from detectron2.config import get_cfg
    from detectron2.engine import DefaultPredictor

    torch.manual_seed(7)
    detector = KIT.make(**{'INPUT.FORMAT': input_format}).eval()
    torch.save(detector.model.state_dict(), tmp_path / 'model.pth')

    cfg = get_cfg()
    cfg.merge_from_file(str(zoo_directory() / KIT.zoo_name))
    overrides = {**KIT.overrides, 'INPUT.FORMAT': input_format, 'MODEL.DEVICE': 'cpu'}
    cfg.merge_from_list([item for pair in overrides.items() for item in pair])
    cfg.MODEL.WEIGHTS = str(tmp_path / 'model.pth')
    predictor = DefaultPredictor(cfg)

    for image in make_images([(97, 151), (140, 101)]):
        expected = predictor(image.numpy().transpose(1, 2, 0)[:, :, ::-1])['instances']
        batch = detector.preprocess([image])
        (instances,) = detector.infer(detector.extract(batch), batch.sizes)
        assert len(instances) > 0
        assert torch.equal(instances.boxes, expected.pred_boxes.tensor)
        assert torch.equal(instances.scores, expected.scores)
        assert torch.equal(instances.labels, expected.pred_classes)
        assert torch.equal(instances.masks, expected.pred_masks)


@pytest.mark.parametrize(
    ('name', 'channels', 'classes'),
    [
        ('COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml', 256, 80),
        ('Cityscapes/mask_rcnn_R_50_FPN.yaml', 256, 8),
        ('Misc/cascade_mask_rcnn_R_50_FPN_3x.yaml', 256, 80),
        ('new_baselines/mask_rcnn_regnetx_4gf_dds_FPN_100ep_LSJ.py', 256, 80),
    ],
)
def test_zoo_configurations(name, channels, classes):
    detector = Detectron2Detector.from_file(name)
    assert detector.feature_channels == channels
    assert len(detector.class_names) == classes
    assert 'person' in detector.class_names
    assert detector.config()['type'] == 'detectron2'


@pytest.fixture
def lazy_detector():
    """Return a small detector from a LazyConfig whose norms are lambdas."""
    torch.manual_seed(7)
    return Detectron2Detector.from_file(
        LAZY_NAME, class_names=CLASS_NAMES, overrides=LAZY_OVERRIDES
    ).eval()


def test_lazy_configuration_round_trip(lazy_detector):
    rebuilt = build_detector(json.loads(json.dumps(lazy_detector.config()))).eval()
    rebuilt.load_state_dict(lazy_detector.state_dict())
    assert repr(rebuilt.model) == repr(lazy_detector.model)

    images = make_images([(97, 151), (140, 101)])
    with torch.inference_mode():
        batch = rebuilt.preprocess(images)
        found = rebuilt.infer(rebuilt.extract(batch), batch.sizes)
        expected = KIT.unsplit(lazy_detector, images)
    assert [min(valid) for valid in batch.sizes.valid] == [128, 128]
    for instances, reference in zip(found, expected, strict=True):
        assert len(instances) > 0
        assert torch.equal(instances.boxes, reference.boxes)
        assert torch.equal(instances.masks, reference.masks)


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('COCO-InstanceSegmentation/mask_rcnn_R_50_C4_3x.yaml', 'not the pyramid p2..p6'),
        ('COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml', 'no mask head and no keypoint head'),
        ('common/models/mask_rcnn_vitdet.py', 'functools.partial'),
    ],
)
def test_unsuitable_models_are_refused(name, reason):
    with pytest.raises(ValueError, match=reason):
        Detectron2Detector.from_file(name)


def test_wrong_number_of_class_names_is_refused():
    with pytest.raises(ValueError, match='2 class names for a model of 80 classes'):
        Detectron2Detector.from_file(KIT.zoo_name, class_names=['a', 'b'])


@pytest.mark.parametrize(
    'target',
    [
        'os.system',
        'builtins.eval',
        'torch.load',
        'torch.nn.modules.module.torch.load',
        'torch.nn.modules.module.warnings.os.system',
        'detectron2.modeling.no_such_thing',
        'torch.nn',
        None,
    ],
)
@pytest.mark.parametrize('key', ['_target_', '_object_'])
def test_untrusted_calls_are_refused(target, key):
    config = {
        'type': 'detectron2', 'format': 'lazy', 'model': {key: target},
        'min_size': 1, 'max_size': 1, 'class_names': [],
    }
    with pytest.raises(ValueError, match='is not a class or function of'):
        build_detector(config)


@pytest.mark.parametrize(
    ('config', 'reason'),
    [
        ({}, 'of format None'),
        ({'format': 'toml', 'model': ''}, "of format 'toml'"),
        ({'format': 'yaml'}, 'cannot build'),
        ({'format': 'yaml', 'model': 'VERSION: ['}, 'does not understand'),
        ({'format': 'yaml', 'model': 'MODEL: {NO_SUCH_KEY: 1}'}, 'NO_SUCH_KEY'),
        (
            {'format': 'yaml', 'model': 'MODEL: !!python/object/apply:os.getcwd []'},
            'python/object',
        ),
        ({'format': 'yaml', 'model': 'MODEL: {RESNETS: {DEPTH: 19}}'}, 'cannot build'),
        ({'format': 'lazy', 'model': {}}, 'a dict, not a network'),
        ({'format': 'lazy', 'model': {'_target_': 'torch.nn.ReLU'}}, "lacks 'min_size'"),
        ({'format': 'lazy', 'model': {}, 'colour': 'red'}, 'unknown keys .* colour'),
        (
            {'format': 'lazy', 'model': 5, 'min_size': 800, 'max_size': 1333},
            'a int, not a network',
        ),
        (
            {
                'format': 'lazy', 'model': {'_target_': 'torch.nn.ReLU'},
                'min_size': 800, 'max_size': 1333,
            },
            'ReLU is not a plain GeneralizedRCNN',
        ),
    ],
)
def test_malformed_configurations_are_refused(config, reason):
    with pytest.raises(ValueError, match=reason):
        build_detector({'type': 'detectron2', 'class_names': [], **config})


def _write(path, state_dict):
    if path.suffix == '.safetensors':
        save_file(state_dict, path)
    elif path.suffix == '.pth':
        torch.save({'model': state_dict, 'iteration': 9}, path)
    else:
        arrays = {name: value.numpy() for name, value in state_dict.items()}
        path.write_bytes(pickle.dumps({'model': arrays, '__author__': 'test'}))


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth', '.pkl'])
def test_weights(detector, tmp_path, suffix):
    path = tmp_path / f'model_final{suffix}'
    state_dict = {name: x.clone() for name, x in detector.model.state_dict().items()}
    _write(path, state_dict)
    other = KIT.make()
    load_weights(other.model, path)
    assert all(torch.equal(x, state_dict[name]) for name, x in other.model.state_dict().items())


def test_imagenet_backbone(detector, tmp_path):
    """A Caffe2 pickle, such as the zoo's R-50.pkl, gives the backbone and nothing else."""
    weight = np.full((64, 3, 7, 7), 0.5, np.float32)
    path = tmp_path / 'R-18.pkl'
    path.write_bytes(pickle.dumps({'blobs': {'conv1_w': weight, 'conv1_w_momentum': weight}}))
    with pytest.raises(ValueError, match='does not fit this model'):
        load_weights(detector.model, path)
    load_weights(detector.model, path, partial=True)
    assert torch.all(detector.model.backbone.bottom_up.stem.conv1.weight == 0.5)


def test_foreign_weights_are_refused(detector, tmp_path):
    with pytest.raises(FileNotFoundError, match='no weights at'):
        load_weights(detector.model, tmp_path / 'nowhere.pkl')

    wide = KIT.make(**{'MODEL.FPN.OUT_CHANNELS': 64})
    _write(tmp_path / 'wide.pth', wide.model.state_dict())
    with pytest.raises(ValueError, match='in another shape'):
        load_weights(detector.model, tmp_path / 'wide.pth')

    _write(tmp_path / 'none.safetensors', {'x': torch.zeros(1)})
    with pytest.raises(ValueError, match='has no tensor of this model'):
        load_weights(detector.model, tmp_path / 'none.safetensors', partial=True)

    for name in ('text.pkl', 'text.pth', 'text.safetensors'):
        (tmp_path / name).write_text('not weights')
        with pytest.raises(ValueError, match='cannot be read as weights'):
            load_weights(detector.model, tmp_path / name)


class _Mischief:
    """Pickles as a call that would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


@pytest.mark.parametrize('suffix', ['.pth', '.pkl'])
def test_weights_that_would_run_code_are_refused(detector, tmp_path, suffix):
    path, trace = tmp_path / f'evil{suffix}', tmp_path / 'trace'
    loot = {'model': {'x': _Mischief(trace)}, '__author__': 'test'}
    if suffix == '.pth':
        torch.save(loot, path)
    else:
        path.write_bytes(pickle.dumps(loot))
    with pytest.raises(ValueError, match='cannot be read as weights'):
        load_weights(detector.model, path)
    assert not trace.exists()


def test_infer_in_training_mode_is_refused(detector):
    batch = detector.preprocess(make_images([(64, 64)]))
    with pytest.raises(RuntimeError, match='eval'):
        detector.train().infer(detector.extract(batch), batch.sizes)


def test_targets_must_match_images(detector):
    with pytest.raises(ValueError, match='2 images but 1 targets'):
        detector.train().losses(make_images([(64, 64)] * 2), make_targets([(64, 64)]))


def test_model_file_and_pipelines(tmp_path):
    """The paper's pyramid, R50-FPN of 256 channels, with C'=64 at n=4, from image to masks."""
    torch.manual_seed(7)
    detector = Detectron2Detector.from_file(
        'COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml',
        overrides={
            'INPUT.MIN_SIZE_TEST': 128,
            'MODEL.ROI_HEADS.SCORE_THRESH_TEST': 0.0,
            'MODEL.RPN.POST_NMS_TOPK_TEST': 20,
            'TEST.DETECTIONS_PER_IMAGE': 5,
        },
    )
    model = SplitModel(detector, MSFC(MSFCConfig(channels=256, code_channels=64)), rate=4)
    fingerprint = save_model(model, tmp_path / 'model')
    loaded = load_model(tmp_path / 'model')
    edge = edge_pipeline(loaded)
    cloud = CloudPipeline(load_model(tmp_path / 'model'))
    assert edge.fingerprint == cloud.fingerprint == fingerprint

    (image,) = make_images([(97, 151)])
    packet = edge.encode(image.permute(1, 2, 0).flip(2).contiguous().numpy(), 0)
    assert (packet.padded_height, packet.padded_width) == (128, 224)
    assert (packet.channels, packet.feature_height, packet.feature_width) == (64, 4, 7)
    assert len(packet.data) == 64 * 4 * 7 * 4 // 8
    instances = cloud.decode(packet).instances
    assert len(instances) > 0
    assert instances.masks.shape[1:] == (97, 151)

    (expected,) = loaded([image])
    assert torch.equal(instances.boxes, expected.boxes)
    assert torch.equal(instances.scores, expected.scores)
    assert torch.equal(instances.masks, expected.masks)


def _settings(**changes):
    """Return the detector of a small experiment on the tiny data set."""
    overrides = {
        **KIT.overrides,
        'INPUT.MIN_SIZE_TEST': 64,
        'INPUT.MAX_SIZE_TEST': 96,
        'MODEL.ROI_HEADS.NUM_CLASSES': len(tiny_data.CLASS_NAMES),
        'MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE': 8,
        'MODEL.RPN.POST_NMS_TOPK_TRAIN': 20,
    }
    return {
        'type': 'detectron2', 'config_file': KIT.zoo_name, 'overrides': overrides, **changes
    }


def _experiment(path, **changes):
    values = tiny_data.experiment_values(detector=_settings(), val_images=2, **changes)
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Return the folder of a tiny data set."""
    return tiny_data.write_data(tmp_path_factory.mktemp('data'))


@pytest.mark.parametrize('precision', ['32-true', 'bf16-mixed'])
def test_experiment(data, tmp_path, precision):
    """All three steps: what is trained changes, what is frozen does not, and it is measured."""
    plan = load_experiment(_experiment(tmp_path / 'plan.yaml', precision=precision))
    fabric = Fabric(accelerator='cpu', devices=1, precision=precision)
    Trainer(plan, data, tmp_path / 'run', fabric, workers=0).run()
    before = build_model(plan, tiny_data.CLASS_NAMES).state_dict()
    for step in ('detector', 'msfc', 'joint'):
        after = load_file(tmp_path / 'run' / step / 'model.safetensors')
        changed = {name for name in after if not torch.equal(after[name], before[name])}
        parts = {name.split('.')[0] for name in changed}
        expected = {'detector': {'detector'}, 'msfc': {'codec'}, 'joint': {'detector', 'codec'}}
        assert parts == expected[step]
        assert all(tensor.isfinite().all() for tensor in after.values())
        before = after
        (row,) = json.loads((tmp_path / 'run' / step / 'figures.json').read_text())
        assert row['images'] == 2
    model = load_model(tmp_path / 'run' / 'joint')
    assert model.detector.config()['type'] == 'detectron2'
    assert 'config_file' not in model.detector.config()


def test_experiment_in_two_processes(data, tmp_path):
    plan = _experiment(tmp_path / 'plan.yaml')
    one, other = train_in_processes(2, plan, data, tmp_path / 'run')
    assert one.losses != other.losses
    assert [k for k, v in one.weights.items() if not torch.equal(v, other.weights[k])] == []


def test_experiment_starts_from_weights(detector, tmp_path):
    """Weights of a whole model bring their classes along, those of a part do not."""
    path = tmp_path / 'model.safetensors'
    _write(path, {name: x.clone() for name, x in detector.model.state_dict().items()})
    settings = _settings(overrides=KIT.overrides, weights=str(path))
    names = [f'thing {k}' for k in range(NUM_CLASSES)]
    # What the configuration tests on, COCO, has 80 classes: not this model's.
    with pytest.raises(ValueError, match='80 class names for a model of 5'):
        Detectron2Detector.from_settings(settings, names)
    built = Detectron2Detector.from_settings({**settings, 'class_names': list(names)}, ['other'])
    assert built.class_names == tuple(names)
    state = built.model.state_dict()
    assert all(torch.equal(x, state[name]) for name, x in detector.model.state_dict().items())
    part = Detectron2Detector.from_settings({**settings, 'partial': True}, names)
    assert part.class_names == tuple(names)


def test_zoo_detector_is_refused_for_other_classes(tmp_path):
    overrides = {**KIT.overrides, 'MODEL.ROI_HEADS.NUM_CLASSES': 80}
    zoo = Detectron2Detector.from_file(KIT.zoo_name, overrides=overrides)
    path = tmp_path / 'zoo.safetensors'
    _write(path, zoo.model.state_dict())
    plan = tmp_path / 'plan.yaml'
    detector = _settings(overrides=overrides, weights=str(path))
    plan.write_text(yaml.safe_dump(tiny_data.experiment_values(detector=detector)))
    experiment = load_experiment(plan)
    assert build_model(experiment, zoo.class_names).class_names == zoo.class_names
    other = ('robot', *zoo.class_names[1:])
    with pytest.raises(ValueError, match='the data set has robot, bicycle'):
        build_model(experiment, other)


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match='unknown keys beside config_file: weight;'):
        Detectron2Detector.from_settings(_settings(weight='a.pkl'), tiny_data.CLASS_NAMES)


def test_model_files_cannot_name_a_configuration_file():
    """Such a file may run code, which is the user's to decide and not a model's."""
    with pytest.raises(ValueError, match=r'unknown keys .* config_file'):
        build_detector({'type': 'detectron2', 'config_file': 'a.py', 'class_names': []})

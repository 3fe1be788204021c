"""Model files: what goes in comes out, and what is not ours is refused in words."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from detector_models import MODELS
from full_disk import full_disk
from msfc import model_file
from msfc.codecs.msfc.codec import MSFC, MSFCConfig
from msfc.detectors import build_detector as build
from msfc.model import SplitModel
from msfc.model_file import (
    ModelFileError,
    describe_model,
    load_model,
    save_model,
    shipped_models,
    stored_weights,
)
from msfc.zoo import DEFAULT_MODEL
from tiny import CHANNELS, CODE_CHANNELS, build_tiny, tiny_model

EXTRA = {'data': 'tabletop, seeds 0 to 99', 'figures': {'mask_map': 0.5}}


@pytest.fixture(autouse=True)
def tiny_detectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files name the tiny detector too."""
    monkeypatch.setattr(
        model_file,
        'build_detector',
        lambda config: build_tiny(config) if config.get('type') == 'tiny' else build(config),
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Return the directory of a good model."""
    save_model(tiny_model(rate=8), tmp_path / 'good', extra=EXTRA)
    return tmp_path / 'good'


def edit(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a ``model.json``."""
    path = directory / 'model.json'
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))


def rewrite(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the weights, digest included, as someone who means it would."""
    path = directory / 'model.safetensors'
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(directory, lambda description: description.update(weights_sha256=digest))


@pytest.mark.parametrize('half', [True, False])
def test_round_trip(tmp_path: Path, half: bool) -> None:
    model = tiny_model(rate=8)
    fingerprint = save_model(model, tmp_path / 'new' / 'model', half=half, extra=EXTRA)
    loaded = load_model(tmp_path / 'new' / 'model')
    assert not loaded.training
    assert loaded.rate == 8
    assert loaded.class_names == model.class_names
    assert loaded.config() == model.config()
    assert loaded.fingerprint == fingerprint
    for name, x in model.state_dict().items():
        got = loaded.state_dict()[name]
        assert got.dtype == x.dtype
        if half and x.dim() > 1:
            assert torch.equal(got, x.half().float()), name
        else:
            assert torch.equal(got, x), name
    assert (fingerprint == model.fingerprint) is not half


def test_saving_does_not_change_the_model(tmp_path: Path) -> None:
    model = tiny_model()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    save_model(model, tmp_path)
    for name, x in model.state_dict().items():
        assert torch.equal(x, before[name])


def test_half_is_a_fixed_point(tmp_path: Path) -> None:
    """A loaded half-precision model, saved again either way, is still the same model."""
    fingerprint = save_model(tiny_model(), tmp_path / 'a')
    again = load_model(tmp_path / 'a')
    assert save_model(again, tmp_path / 'b') == fingerprint
    assert save_model(again, tmp_path / 'c', half=False) == fingerprint
    files = [(tmp_path / name / 'model.safetensors').read_bytes() for name in ('a', 'b')]
    assert files[0] == files[1]


def test_results_survive(saved: Path) -> None:
    loaded, again = load_model(saved), load_model(saved)
    image = [torch.randint(256, (3, 50, 70), dtype=torch.uint8)]
    for a, b in zip(loaded(image), again(image), strict=True):
        assert torch.equal(a.boxes, b.boxes)
        assert torch.equal(a.masks, b.masks)


def test_half_precision_keeps_vectors_and_large_values(tmp_path: Path) -> None:
    model = tiny_model()
    state = model.state_dict()
    state['codec.analysis.encoder.norm.running_var'].fill_(1e-9)
    state['codec.synthesis.decoder.conv.weight'][0, 0, 0, 0] = 1e6
    save_model(model, tmp_path)
    stored = load_file(tmp_path / 'model.safetensors')
    assert stored['codec.analysis.msff.reduce.weight'].dtype == torch.float16
    assert stored['codec.analysis.encoder.norm.running_var'].dtype == torch.float32
    assert stored['codec.synthesis.decoder.conv.weight'].dtype == torch.float32
    loaded = load_model(tmp_path)
    name = 'codec.synthesis.decoder.conv.weight'
    assert torch.equal(loaded.state_dict()[name], state[name])


def test_half_precision_halves(tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / 'half')
    save_model(tiny_model(), tmp_path / 'single', half=False)
    half, single = (
        (tmp_path / name / 'model.safetensors').stat().st_size for name in ('half', 'single')
    )
    assert half < 0.6 * single


def test_model_without_codec(tmp_path: Path) -> None:
    save_model(tiny_model(codec=False), tmp_path)
    assert load_model(tmp_path).codec is None
    assert describe_model(tmp_path)['codec'] is None


def test_replaces_a_model_and_leaves_no_other_files(tmp_path: Path) -> None:
    save_model(tiny_model(seed=1), tmp_path)
    fingerprint = save_model(tiny_model(seed=2), tmp_path)
    assert load_model(tmp_path).fingerprint == fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ['model.json', 'model.safetensors']


def test_whoever_may_read_the_folder_may_read_the_model(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    save_model(tiny_model(), tmp_path)
    assert (tmp_path / 'model.safetensors').stat().st_mode & 0o777 == 0o644


def test_bad_extra_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        save_model(tiny_model(), tmp_path / 'x', extra={'tensor': torch.zeros(1)})
    assert not (tmp_path / 'x').exists()


def test_description(saved: Path) -> None:
    description = describe_model(saved)
    assert description['extra'] == EXTRA
    assert description['class_names'] == ['cup', 'ball']
    assert description['codec']['code_channels'] == CODE_CHANNELS
    assert description['fingerprint'] == load_model(saved).fingerprint
    assert describe_model(str(saved)) == description


def test_the_default_model_is_shipped() -> None:
    assert {DEFAULT_MODEL, 'tabletop_msfc', 'tabletop_detector'} <= set(shipped_models())
    assert describe_model() == describe_model(DEFAULT_MODEL)
    assert describe_model('tabletop_msfc')['codec']['type'] == 'msfc'


def test_shipped_models_load_by_name(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, 'ZOO', saved.parent)
    assert shipped_models() == ['good']
    assert load_model('good').fingerprint == describe_model('good')['fingerprint']
    with pytest.raises(ModelFileError, match=r'no shipped model \(there are: good\)'):
        load_model('better')


def test_a_folder_of_other_things_does_not_hide_a_shipped_model(
    saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(model_file, 'ZOO', saved.parent)
    here = tmp_path / 'here'
    (here / 'good').mkdir(parents=True)
    monkeypatch.chdir(here)
    shipped = describe_model(saved)['fingerprint']
    assert describe_model('good')['fingerprint'] == shipped
    own = save_model(tiny_model(seed=5), here / 'good')
    assert own != shipped
    assert describe_model('good')['fingerprint'] == own


@pytest.mark.parametrize('name', ['../good', '..', '', '.', './../good', 'good/'])
def test_names_do_not_lead_out_of_the_zoo(
    saved: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (saved.parent / 'zoo').mkdir()
    monkeypatch.setattr(model_file, 'ZOO', saved.parent / 'zoo')
    (saved.parent / 'a' / 'b').mkdir(parents=True)
    monkeypatch.chdir(saved.parent / 'a' / 'b')
    with pytest.raises(ModelFileError):
        load_model(name)


def test_a_file_is_no_directory(saved: Path) -> None:
    with pytest.raises(ModelFileError, match='is a file; a model is the directory'):
        load_model(saved / 'model.safetensors')


def remove(name: str) -> Callable[[Path], object]:
    """Return a damage: a file is missing."""
    return lambda directory: (directory / name).unlink()


def write(name: str, contents: bytes) -> Callable[[Path], object]:
    """Return a damage: a file has other contents."""
    return lambda directory: (directory / name).write_bytes(contents)


def describe(**changes: Any) -> Callable[[Path], object]:
    """Return a damage: the description says something else."""
    return lambda directory: edit(directory, lambda description: description.update(changes))


def omit(key: str) -> Callable[[Path], object]:
    """Return a damage: the description lacks a key."""
    return lambda directory: edit(directory, lambda description: description.pop(key))


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    """Return a damage: other tensors, with the digest put right."""
    return lambda directory: rewrite(directory, change)


def garbage(directory: Path) -> None:
    """Damage: weights that are no safetensors file, with the digest put right."""
    (directory / 'model.safetensors').write_bytes(b'\x80\x04pickle, or something' * 9)
    digest = hashlib.sha256((directory / 'model.safetensors').read_bytes()).hexdigest()
    edit(directory, lambda description: description.update(weights_sha256=digest))


def flip(directory: Path) -> None:
    """Damage: one bit of the weights."""
    path = directory / 'model.safetensors'
    contents = bytearray(path.read_bytes())
    contents[-1] ^= 1
    path.write_bytes(contents)


CODEC = MSFC(MSFCConfig(CHANNELS, CODE_CHANNELS, se_reduction=4)).config()
TINY = {'type': 'tiny', 'classes': ['cup', 'ball'], 'levels': 4}


@pytest.mark.parametrize(
    ('damage', 'words'),
    [
        (remove('model.json'), 'has no model.json'),
        (remove('model.safetensors'), 'has no model.safetensors'),
        (write('model.json', b''), 'model.json cannot be read'),
        (write('model.json', b'\xff\xfe'), 'model.json cannot be read'),
        (write('model.json', b'[' * 10**6), 'model.json cannot be read'),
        (write('model.json', b'[]'), 'does not describe an MSFC model'),
        (write('model.json', b'{"architectures": ["Bert"]}'), 'does not describe an MSFC model'),
        (describe(format='onnx'), 'does not describe an MSFC model'),
        (describe(format_version=3), 'has format version 3; this version of msfc reads 1 and 2'),
        (omit('detector'), "has no 'detector'"),
        (omit('codec'), "has no 'codec'"),
        (omit('fingerprint'), "has no 'fingerprint'"),
        (describe(detector='tiny'), "'detector' is a str"),
        (describe(class_names='cup'), "'class_names' is a str"),
        (describe(rate='4'), "'rate' is a str"),
        (describe(rate=5), 'cannot be built: rate 5'),
        (describe(fingerprint='abc'), 'fingerprint is not 16 hexadecimal digits'),
        (describe(fingerprint='0' * 16), 'says that its fingerprint is 0{16}, but its contents'),
        (describe(weights_sha256='0' * 64), 'is damaged, or not the one'),
        (describe(detector={'type': 'yolo'}), "cannot be built: unknown detector type 'yolo'"),
        (describe(detector={'type': 'tiny'}), "cannot be built: 'classes'"),
        (describe(detector={**TINY, 'classes': 7}), 'cannot be built'),
        (describe(detector={**TINY, 'levels': 3}), 'cannot be built: the codec takes levels'),
        (describe(codec={**CODEC, 'depth': 9}), 'cannot be built: unknown codec settings: depth'),
        (describe(codec={**CODEC, 'channels': 0}), 'cannot be built: channels is 1'),
        (describe(codec={**CODEC, 'code_channels': 4}), r'shape \(3, 8, 3, 3\), the model \(4,'),
        (describe(codec={**CODEC, 'type': 'jpeg'}), "unknown codec type 'jpeg': choose 'msfc'"),
        (describe(codec=None), 'has unknown tensors: codec.* and 1. more'),
        (describe(class_names=['cup', 'bowl']), 'names 2 classes that are not those of'),
        (flip, 'is damaged, or not the one that model.json'),
        (write('model.safetensors', b''), 'is damaged, or not the one that model.json'),
        (garbage, 'is not a readable safetensors file'),
        (tensors(lambda x: x.pop('detector.head.bias')), 'lacks tensors: detector.head.bias$'),
        (tensors(lambda x: x.update(more=torch.ones(1))), 'has unknown tensors: more$'),
        (
            tensors(lambda x: x.update({'detector.head.bias': torch.ones(9)})),
            r'detector.head.bias has shape \(9,\), the model \(10,\)',
        ),
        (tensors(lambda x: x['detector.head.bias'].add_(1)), 'it was altered'),
    ],
)
def test_refusals(saved: Path, damage: Callable[[Path], object], words: str) -> None:
    damage(saved)
    with pytest.raises(ModelFileError) as caught:
        load_model(saved)
    assert re.search(words, str(caught.value))
    assert str(saved) in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.fixture
def sharing(saved: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of a model whose detector is that of the model beside it."""
    monkeypatch.setattr(model_file, 'ZOO', saved.parent / 'zoo')
    save_model(tiny_model(rate=4), saved.parent / 'shares', extra=EXTRA, detector_from=saved)
    return saved.parent / 'shares'


@pytest.mark.parametrize('half', [True, False])
def test_a_shared_detector_is_as_if_it_were_inside(tmp_path: Path, half: bool) -> None:
    model = tiny_model(seed=1)
    save_model(SplitModel(model.detector), tmp_path / 'detector', half=half)
    whole = save_model(model, tmp_path / 'whole', half=half)
    shared = save_model(
        model, tmp_path / 'shared', half=half, detector_from=tmp_path / 'detector'
    )
    assert shared == whole == describe_model(tmp_path / 'shared')['fingerprint']
    loaded, expected = load_model(tmp_path / 'shared'), load_model(tmp_path / 'whole')
    assert loaded.fingerprint == whole
    assert loaded.config() == expected.config()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    stored = load_file(tmp_path / 'shared' / 'model.safetensors')
    assert all(name.startswith('codec.') for name in stored)


def test_a_shared_detector_may_be_stored_in_another_precision(tmp_path: Path) -> None:
    model = tiny_model(seed=1)
    save_model(SplitModel(model.detector), tmp_path / 'single', half=False)
    with pytest.raises(ModelFileError, match=r'detector is not that of .*single: detector'):
        save_model(model, tmp_path / 'shared', detector_from=tmp_path / 'single')
    assert not (tmp_path / 'shared').exists()
    save_model(SplitModel(model.detector), tmp_path / 'half')
    rounded = SplitModel(load_model(tmp_path / 'half').detector, model.codec)
    fingerprint = save_model(
        rounded, tmp_path / 'shared', half=False, detector_from=tmp_path / 'half'
    )
    assert load_model(tmp_path / 'shared').fingerprint == fingerprint == rounded.fingerprint


def test_a_shared_detector_is_described(saved: Path, sharing: Path) -> None:
    description = describe_model(sharing)
    digest = describe_model(saved)['weights_sha256']
    assert description['detector_from'] == {'model': 'good', 'weights_sha256': digest}
    assert description['detector'] == describe_model(saved)['detector']
    assert stored_weights(description) == f'{description["weights_sha256"]} {digest}'
    assert stored_weights(describe_model(saved)) == digest


def test_a_shared_detector_is_that_of_a_shipped_model(
    saved: Path, sharing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = tmp_path / 'elsewhere' / 'model'
    sharing.rename(tmp_path / 'model')
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'model').rename(away)
    with pytest.raises(ModelFileError, match=f'put its folder at {away.parent}/good'):
        load_model(away)
    monkeypatch.setattr(model_file, 'ZOO', saved.parent)
    fingerprint = load_model(away).fingerprint
    # A folder beside it that was made otherwise does not stand in the way.
    save_model(tiny_model(seed=5), away.parent / 'good')
    assert load_model(away).fingerprint == fingerprint
    monkeypatch.chdir(away)
    assert load_model('.').fingerprint == fingerprint
    assert save_model(load_model('.'), '.', detector_from='good') == fingerprint


def test_what_shares_no_detector(saved: Path, sharing: Path) -> None:
    with pytest.raises(ModelFileError, match=r'detector is not that of .*: detector\.backbone'):
        save_model(tiny_model(seed=5), sharing, detector_from=saved)
    model = load_model(sharing)
    with pytest.raises(ModelFileError, match='cannot have its detector from itself'):
        save_model(model, saved, detector_from=saved)
    with pytest.raises(ModelFileError, match='which has none of its own'):
        save_model(model, sharing.parent / 'third', detector_from=sharing)
    with pytest.raises(ModelFileError, match=r'put its folder at .*elsewhere/good'):
        save_model(model, sharing.parent / 'elsewhere' / 'model', detector_from=saved)
    with pytest.raises(ModelFileError, match='no directory and no shipped model'):
        save_model(model, sharing, detector_from='better')
    odd = saved.rename(saved.with_name('two words'))
    with pytest.raises(ModelFileError, match='the plain name of a folder'):
        save_model(model, sharing, detector_from=odd)


def shared(**changes: Any) -> Callable[[Path], object]:
    """Return a damage: the shared detector is said to be another."""
    return lambda directory: edit(
        directory, lambda description: description['detector_from'].update(changes)
    )


def at_the_other(damage: Callable[[Path], object]) -> Callable[[Path], object]:
    """Return a damage of the model whose detector is shared."""
    return lambda directory: damage(directory.parent / 'good')


NO_PLAIN_NAME = 'must have the plain name of a folder'


@pytest.mark.parametrize(
    ('damage', 'words'),
    [
        *(
            (shared(model=name), NO_PLAIN_NAME)
            for name in (
                '../good', '..', '.', '', '/etc', 'a/b', '~', 'good/', 'good\n', 'x' * 101, 7,
                None, ['good'],
            )
        ),
        (shared(weights_sha256='../good'), 'no SHA-256 of weights'),
        (shared(weights_sha256=None), 'no SHA-256 of weights'),
        (shared(url='https://example.org'), 'does not have a model and weights_sha256'),
        (describe(detector_from='good'), 'does not have a model and weights_sha256'),
        (describe(detector_from={'model': 'good'}), 'does not have a model and weights_sha256'),
        (describe(detector_from=None), 'lacks tensors: detector.'),
        (shared(model='better'), "detector of 'better', which is no shipped model: put its"),
        (shared(model='shares'), 'which has none of its own'),
        (shared(weights_sha256='0' * 64), 'SHA-256 0{12}…, but .*good has others: put the one'),
        (at_the_other(remove('model.json')), "'good', which is no shipped model: put its folder"),
        (at_the_other(remove('model.safetensors')), 'good has no model.safetensors'),
        (at_the_other(flip), 'good/model.safetensors is damaged'),
        (
            at_the_other(tensors(lambda x: x['detector.head.bias'].add_(1))),
            'good has others: put the one that it was made with at',
        ),
        (at_the_other(describe(detector_from={'model': 'shares', 'weights_sha256': '0' * 64})),
         'which has none of its own'),
        (
            tensors(lambda x: x.update({'detector.head.bias': torch.ones(10)})),
            "has a detector besides that of 'good': detector.head.bias",
        ),
        (tensors(lambda x: x.pop('codec.synthesis.decoder.conv.bias')), 'lacks tensors: codec.'),
    ],
)
def test_refusals_of_a_shared_detector(
    sharing: Path, damage: Callable[[Path], object], words: str
) -> None:
    damage(sharing)
    with pytest.raises(ModelFileError) as caught:
        load_model(sharing)
    assert re.search(words, str(caught.value))
    assert str(sharing.parent) in str(caught.value)
    assert '\n' not in str(caught.value)


OLD_NAMES = {
    'codec.analysis.msff.': 'msfc.msff.',
    'codec.analysis.encoder.': 'msfc.encoder.',
    'codec.synthesis.decoder.': 'msfc.decoder.',
    'codec.synthesis.msfr.': 'msfc.msfr.',
}


def as_version_1(directory: Path) -> None:
    """Rewrite a model file as it was before codecs had a type."""

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            for new, old in OLD_NAMES.items():
                if name.startswith(new):
                    tensors[old + name.removeprefix(new)] = tensors.pop(name)

    def describe_as_then(description: dict[str, Any]) -> None:
        codec, rate = description.pop('codec'), description.pop('rate')
        settings = codec and {key: value for key, value in codec.items() if key != 'type'}
        description.update(
            format_version=1, msfc=settings, bit_depth=rate or 4, fingerprint='0123456789abcdef'
        )

    rewrite(directory, rename)
    edit(directory, describe_as_then)


@pytest.mark.parametrize('codec', [True, False])
def test_version_1_is_read(tmp_path: Path, codec: bool) -> None:
    fingerprint = save_model(tiny_model(rate=8 if codec else None, codec=codec), tmp_path)
    today = load_model(tmp_path)
    as_version_1(tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.config() == today.config()
    assert loaded.rate == today.rate
    assert loaded.fingerprint == describe_model(tmp_path)['fingerprint'] == fingerprint
    for name, tensor in today.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert save_model(loaded, tmp_path) == fingerprint
    assert json.loads((tmp_path / 'model.json').read_text())['format_version'] == 2


def test_version_1_is_checked(saved: Path) -> None:
    as_version_1(saved)
    flip(saved)
    for read in (load_model, describe_model):
        with pytest.raises(ModelFileError, match='is damaged'):
            read(saved)


@pytest.mark.parametrize('limit', [100, 20_000])
def test_a_full_disk_leaves_the_earlier_model(saved: Path, limit: int) -> None:
    before = {path: path.read_bytes() for path in saved.iterdir()}
    extra = {'note': 'x' * 10**6}
    with full_disk(limit), pytest.raises(OSError, match=r'File too large.*model\.'):
        save_model(tiny_model(seed=5), saved, extra=extra)
    assert {path: path.read_bytes() for path in saved.iterdir()} == before
    load_model(saved)


@pytest.mark.parametrize('changes', [
    {'score_threshold': '1e-3'}, {'fpn_channels': 10**12}, {'min_size': None}, {'norm': []},
    {'class_names': 7}, {'backbone': 'resnet1'}, {'max_detections': 2.5}, {'box_batch': True},
])
def test_impossible_detectors_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.undo()  # real detectors
    save_model(SplitModel(MODELS['torchvision'].make()), tmp_path)
    edit(tmp_path, lambda description: description['detector'].update(changes))
    with pytest.raises(ModelFileError, match=f'cannot be built.*{next(iter(changes))}'):
        load_model(tmp_path)


@pytest.mark.parametrize('seed', range(40))
def test_no_damage_ends_in_a_traceback(saved: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = saved / ('model.json' if seed % 2 else 'model.safetensors')
    contents = bytearray(path.read_bytes())
    if seed % 3:
        del contents[int(rng.integers(len(contents))) :]
    else:
        for place in rng.integers(0, min(len(contents), 2000), 20):
            contents[place] = int(rng.integers(256))
    path.write_bytes(contents)
    if path.name == 'model.safetensors':
        digest = hashlib.sha256(contents).hexdigest()
        edit(saved, lambda description: description.update(weights_sha256=digest))
    with pytest.raises(ModelFileError):
        load_model(saved)


def test_missing_package_is_said(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: dict[str, Any]) -> None:
        raise ImportError('needs Detectron2')

    monkeypatch.setattr(model_file, 'build_detector', fail)
    with pytest.raises(ModelFileError, match='cannot be built: needs Detectron2'):
        load_model(saved)


@pytest.mark.parametrize('kind', ['torchvision', 'detectron2'])
def test_real_detectors(tmp_path: Path, kind: str) -> None:
    if kind == 'detectron2':
        pytest.importorskip('detectron2', reason='needs Detectron2: scripts/setup.sh --detectron2')
    torch.manual_seed(0)
    kit: Any = MODELS[kind]
    detector = kit.make().eval()
    msfc = MSFC(MSFCConfig(detector.feature_channels, 8))
    fingerprint = save_model(SplitModel(detector, msfc), tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.fingerprint == fingerprint
    assert loaded.config() == SplitModel(detector, msfc).config()
    assert loaded.class_names == tuple(detector.class_names)

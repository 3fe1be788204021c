import dataclasses
import math

import numpy as np
import pytest
import torch

import learned_reference
from msfc.codecs.base import build_codec, transmit
from msfc.codecs.learned import LearnedCodec, LearnedConfig
from msfc.codecs.learned.entropy import gaussian_bits, scale_index
from msfc.model import SplitModel, is_decoder_tensor
from msfc.model_file import ModelFileError, load_model, save_model
from msfc.wire.key_tables import KEY_ARRAYS
from tiny import CHANNELS, TinyDetector, build_tiny

pytestmark = pytest.mark.usefixtures('one_thread')

SMALL = LearnedConfig(
    channels=CHANNELS, code_channels=6, slices=(2, 4), hyper_channels=3, rates=3,
    analysis_widths=(8, 8), synthesis_widths=(8, 8, 12, 8), synthesis_blocks=(1, 1, 1, 1),
    context_width=8, hidden_width=8, hyper_width=8,
)


def make_codec(config: LearnedConfig = SMALL, seed: int = 0) -> LearnedCodec:
    """A codec whose every parameter matters: nothing stays at the zero that it starts at."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        codec = LearnedCodec(config)
        with torch.no_grad():
            for name, parameter in codec.named_parameters():
                if 'rate_' in name or 'hyper_mean' in name:
                    parameter.uniform_(-1, 1)
            for level in config.levels:
                for half in (codec.analysis, codec.synthesis):
                    half.statistics.set(
                        level, torch.randn(config.channels), torch.rand(config.channels) + 0.5
                    )
    codec.entropy.project()
    return codec.eval()


def make_pyramid(
    size: tuple[int, int] = (48, 80), count: int = 2, channels: int = CHANNELS
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = [(-(-size[0] // 2**k), -(-size[1] // 2**k)) for k in range(4)]
    pyramid = {
        f'p{k + 2}': 3 * torch.randn(count, channels, *shape, generator=generator)
        for k, shape in enumerate(shapes)
    }
    pyramid['p6'] = torch.nn.functional.max_pool2d(pyramid['p5'], 1, 2)
    return pyramid


def sizes_of(pyramid: dict[str, torch.Tensor]) -> dict[str, tuple[int, int]]:
    return {level: (x.shape[-2], x.shape[-1]) for level, x in pyramid.items()}


@pytest.mark.parametrize(
    'config',
    [
        SMALL,
        dataclasses.replace(SMALL, code_level='p3', analysis_widths=(8,)),
        dataclasses.replace(SMALL, code_level='p5', analysis_widths=(8, 8, 8)),
        dataclasses.replace(SMALL, code_level='p2', analysis_widths=()),
        dataclasses.replace(SMALL, channels=16),
        dataclasses.replace(SMALL, synthesis_kernel=3),
    ],
    ids=['p4', 'p3', 'p5', 'p2', 'wider', 'kernels of 3'],
)
@pytest.mark.parametrize('size', [(48, 80), (40, 32), (25, 39)])
def test_training_and_payloads_rebuild_the_same(config, size: tuple[int, int]) -> None:
    """The float network that is trained makes the very numbers of the one that is sent by."""
    codec, pyramid = make_codec(config), make_pyramid(size, channels=config.channels)
    sizes = sizes_of(pyramid)
    for rate in range(config.rates):
        with torch.no_grad():
            trained, bits = codec(pyramid, rate)
            code = codec.analyse(pyramid)
            received, payloads = transmit(codec.coder(), code, rate)
            sent = codec.synthesise(received, sizes)
        assert code.shape[1:] == codec.code_shape(sizes)
        assert bits is not None
        assert bits.shape == (2,)
        assert list(sent) == ['p2', 'p3', 'p4', 'p5', 'p6']
        for level, features in sent.items():
            assert features.shape == pyramid[level].shape
            torch.testing.assert_close(features, trained[level], rtol=1e-4, atol=1e-4)
        assert len({*payloads}) == 2


def test_sent_bits_are_those_of_the_payload() -> None:
    codec, pyramid = make_codec(), make_pyramid((96, 128))
    with torch.no_grad():
        codec.analysis.project.weight.mul_(0.1)
        for rate in range(3):
            _, coded = codec.compress(pyramid, torch.full((2,), rate))
            _, payloads = transmit(codec.coder(), codec.analyse(pyramid), rate)
            for bits, payload in zip(coded.sent.tolist(), payloads, strict=True):
                assert len(payload) == pytest.approx(bits / 8, rel=0.01, abs=1.5)


def test_another_reader_reads_a_models_payloads() -> None:
    codec, pyramid = make_codec(), make_pyramid((20, 28), count=1)
    coder, arrays = codec.coder(), codec.coder_arrays()
    code = codec.analyse(pyramid).detach()[0].numpy()
    for rate in coder.rates:
        payload = coder.write(code, rate)
        read = coder.read(payload, code.shape, rate)
        again = learned_reference.decode(arrays, payload, code.shape, rate, SMALL.slices)
        np.testing.assert_array_equal(read, again)


def test_higher_rates_take_more_bytes_and_keep_more() -> None:
    codec, pyramid = make_codec(), make_pyramid((96, 128))
    with torch.no_grad():
        codec.analysis.log_gain += torch.tensor([-3.0, 0, 2])[:, None]
        codec.inverse_gain.copy_((-codec.analysis.log_gain).exp())
        codec.rate_offset.zero_()
        code = codec.analyse(pyramid)
        lengths, errors = [], []
        for rate in range(3):
            received, payloads = transmit(codec.coder(), code, rate)
            lengths.append(sum(map(len, payloads)))
            errors.append(float((received - code).square().mean()))
    assert lengths == sorted(lengths)
    assert errors == sorted(errors, reverse=True)


def test_fitted_tables_take_fewer_bytes_and_change_no_symbol() -> None:
    codec, pyramid = make_codec(), make_pyramid((96, 128))
    code = codec.analyse(pyramid).detach()
    before, long = transmit(codec.coder(), code, 1)
    codec.fit_tables([pyramid])
    after, short = transmit(codec.coder(), code, 1)
    assert torch.equal(before, after)
    assert sum(map(len, short)) < sum(map(len, long))
    assert codec.entropy.frequencies[1:].sum(1).tolist() == [2**16] * 63


def later(pyramid: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A pyramid a moment later."""
    generator = torch.Generator().manual_seed(8)
    return {
        level: x + 0.1 * torch.randn(x.shape, generator=generator) for level, x in pyramid.items()
    }


def referring_bytes(codec: LearnedCodec, pyramid: dict[str, torch.Tensor]) -> int:
    """Bytes of two frames that refer to the two before, at all rates."""
    coder, sent = codec.coder(), 0
    first, second = (codec.analyse(one).detach().numpy() for one in (pyramid, later(pyramid)))
    for rate in coder.rates:
        for before, after in zip(first, second, strict=True):
            _, key = coder.write_key(before, rate)
            sent += len(coder.write(after, rate, key))
    return sent


def test_tables_for_key_frames_are_the_models(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr('msfc.model_file.build_detector', build_tiny)
    codec, pyramid = make_codec(), make_pyramid((96, 128))
    model = SplitModel(TinyDetector(), codec)
    plain = save_model(model, tmp_path / 'plain')
    names = {*model.state_dict()}
    assert not any('key_' in name for name in names)
    _, alone = transmit(codec.coder(), codec.analyse(pyramid), 1)
    before = referring_bytes(codec, pyramid)

    codec.fit_references([(pyramid, later(pyramid))])
    assert {*model.state_dict()} - names == {f'codec.entropy.{name}' for name in KEY_ARRAYS}
    assert transmit(codec.coder(), codec.analyse(pyramid), 1)[1] == alone
    assert referring_bytes(codec, pyramid) < before
    fitted = save_model(model, tmp_path / 'fitted')
    assert fitted != plain

    for folder, fingerprint in (('plain', plain), ('fitted', fitted)):
        loaded = load_model(tmp_path / folder)
        assert loaded.fingerprint == fingerprint
        again = SplitModel(TinyDetector(), make_codec(seed=1))
        again.load_state_dict(loaded.state_dict())
        assert again.fingerprint == fingerprint
        sent = [referring_bytes(one.require_codec(), pyramid) for one in (loaded, again)]
        assert sent[0] == sent[1]
        assert (sent[0] < before / 2) == (folder == 'fitted')  # half precision moves it a little


def test_half_of_the_tables_for_key_frames_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr('msfc.model_file.build_detector', build_tiny)
    codec = make_codec()
    codec.entropy.make_room_for_keys()
    codec.entropy.key_scale = None
    save_model(SplitModel(TinyDetector(), codec), tmp_path / 'model')
    with pytest.raises(ModelFileError, match=r'lacks tensors: codec\.entropy\.key_scale'):
        load_model(tmp_path / 'model')


def test_without_a_rate_nothing_is_rounded() -> None:
    codec, pyramid = make_codec(), make_pyramid()
    with torch.no_grad():
        codec.inverse_gain.copy_((-codec.analysis.log_gain).exp())
        codec.rate_offset.zero_()
        rebuilt, bits = codec(pyramid)
        expected = codec.synthesise(codec.analyse(pyramid), sizes_of(pyramid))
    assert bits is None
    for level, features in rebuilt.items():
        torch.testing.assert_close(features, expected[level])


def test_gradients_reach_every_parameter() -> None:
    codec, pyramid = make_codec().train(), make_pyramid()
    with torch.no_grad():
        codec.analysis.hyper.second.weight.mul_(20)  # so that not all of it is rounded to 0
    rebuilt, bits = codec(pyramid, 1)
    assert bits is not None
    (sum(level.square().mean() for level in rebuilt.values()) + bits.mean() / 1000).backward()
    for name, parameter in codec.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            # The last slice's values are known when everything is.
            if not name.startswith(f'entropy.update.{len(SMALL.slices) - 1}'):
                assert bool(parameter.grad.any()), name


def test_settled_numbers_survive_half_precision() -> None:
    """A mean at the edge between two whole numbers stays the one that it was."""
    codec = make_codec()
    with torch.no_grad():
        codec.entropy.hyper_mean.fill_(0.49999)
        codec.entropy.hyper_scale.fill_(2.43749)
    before = LearnedCodec.from_config(codec.config())
    before.load_state_dict(codec.state_dict())
    codec.entropy.settle()
    with torch.no_grad():
        for parameter in (codec.entropy.hyper_mean, codec.entropy.hyper_scale):
            parameter.copy_(parameter.half())
    code = codec.analyse(make_pyramid((48, 80)))[0].detach().numpy()
    for rate in codec.coder().rates:
        assert codec.coder().write(code, rate) == before.coder().write(code, rate)


def test_projection_keeps_sums_exact() -> None:
    codec = make_codec()
    with torch.no_grad():
        for parameter in codec.entropy.parameters():
            if parameter.dim() == 4:
                parameter.mul_(1000)
    with pytest.raises(ValueError, match='sums of the entropy network'):
        make_wide(codec).coder()
    codec.entropy.project()
    codec.coder()


def make_wide(codec: LearnedCodec) -> LearnedCodec:
    """A codec with so many inputs a sum that greatest weights are too much."""
    wide = make_codec(dataclasses.replace(SMALL, context_width=64))
    with torch.no_grad():
        for name, parameter in wide.entropy.named_parameters():
            if name.startswith('hidden'):
                parameter.fill_(1.9)
    return wide


def test_only_the_analysis_is_the_robots_alone(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr('msfc.model_file.build_detector', build_tiny)
    model = SplitModel(TinyDetector(), make_codec(), rate=2)
    robots = {name for name in model.state_dict() if not is_decoder_tensor(name)}
    assert {name for name in robots if 'codec' in name} == {
        f'codec.analysis.{name}' for name in model.require_codec().analysis.state_dict()
    }
    save_model(model, tmp_path / 'model')
    loaded = load_model(tmp_path / 'model')
    assert loaded.rate == 2
    assert loaded.config() == model.config()
    pyramid = make_pyramid((20, 32), count=1)
    read = []
    for _ in range(2):
        codec = load_model(tmp_path / 'model').require_codec()
        with torch.no_grad():
            code, payloads = transmit(codec.coder(), codec.analyse(pyramid), 1)
        read.append((code.numpy().tobytes(), payloads))
    assert read[0] == read[1]
    with torch.no_grad():
        loaded.require_codec().entropy.frequencies[3, 0] += 1
    assert loaded.fingerprint != load_model(tmp_path / 'model').fingerprint


@pytest.mark.parametrize('kernel', [1, 3])
def test_config_survives_a_round_trip(kernel: int) -> None:
    codec = make_codec(dataclasses.replace(SMALL, synthesis_kernel=kernel))
    config = codec.config()
    assert config['type'] == 'learned'
    again = build_codec(config)
    assert again.config() == config
    assert again.state_dict().keys() == codec.state_dict().keys()
    assert again.synthesis.heads[0].kernel_size == (kernel, kernel)
    assert again.default_rate == 1
    assert again.coder().rates == (0, 1, 2)


@pytest.mark.parametrize(
    ('changes', 'fault'),
    [
        ({'rates': 0}, 'rates is 0, not 1 to 32'),
        ({'rates': 33}, 'rates is 33, not 1 to 32'),
        ({'rates': '8'}, "rates is the text '8', not a whole number"),
        ({'channels': 2**16}, 'channels is 65536, not 1 to 65535'),
        ({'slices': [3, 2.5]}, 'slices is 2.5, not a whole number'),
        ({'slices': [2, 5]}, "7 channels in all, not the code's 6"),
        ({'slices': [1] * 17}, 'slices are at most 16'),
        ({'slices': 6}, 'slices is a list'),
        ({'code_level': 'p7'}, "code_level 'p7' is not one of"),
        ({'code_level': 'p3'}, 'analysis_widths has 2 numbers, but p3 lies 1 levels under p2'),
        ({'synthesis_widths': [8]}, 'synthesis_widths has one number for each of'),
        ({'levels': ['p2', 'p2']}, 'levels are distinct'),
        ({'levels': [2, 3]}, 'levels has 2, not a name'),
        ({'synthesis_kernel': 2}, 'synthesis_kernel is 1 or 3, got 2'),
        ({'synthesis_kernel': True}, 'synthesis_kernel'),
        ({'depth': 3}, 'unknown codec settings: depth'),
    ],
)
def test_impossible_settings_are_refused(changes, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        build_codec({**make_codec().config(), **changes})


def test_what_does_not_fit_is_refused() -> None:
    codec, pyramid = make_codec(), make_pyramid()
    sizes = sizes_of(pyramid)
    with pytest.raises(ValueError, match='no level p3'):
        codec.analyse({level: x for level, x in pyramid.items() if level != 'p3'})
    with pytest.raises(ValueError, match='level p2 has 16 channels, the codec 8'):
        codec.analyse({**pyramid, 'p2': torch.zeros(1, 16, 8, 8)})
    with pytest.raises(ValueError, match='the code has 5 channels, the codec 6'):
        codec.synthesise(torch.zeros(1, 5, 12, 20), sizes)
    with pytest.raises(ValueError, match='no size for level p4'):
        codec.synthesise(torch.zeros(1, 6, 12, 20), {k: v for k, v in sizes.items() if k != 'p4'})
    with pytest.raises(ValueError, match='p2 is 44 x 72 with a code of 11 x 18 cells, not'):
        codec.synthesise(torch.zeros(1, 6, 11, 18), sizes)
    with pytest.raises(ValueError, match='rate 3 is not one of 0, 1, 2'):
        codec(pyramid, 3)


@pytest.mark.parametrize('value', [0.0, 0.4, 1.0, -3.0, 40.0])
@pytest.mark.parametrize('scale', [0.11, 1.0, 64.0])
def test_bits_are_those_of_the_gaussian_and_surprises_have_a_gradient(value, scale) -> None:
    values = torch.tensor(value, requires_grad=True)
    scales = torch.tensor(scale, requires_grad=True)
    bits = gaussian_bits(values, scales)
    bits.backward()
    exact = 0.5 * (
        math.erfc((abs(value) - 0.5) / scale / math.sqrt(2))
        - math.erfc((abs(value) + 0.5) / scale / math.sqrt(2))
    )
    if exact > 0:  # beyond that double precision ends
        assert bits.item() == pytest.approx(-math.log2(exact), rel=1e-3, abs=1e-4)
    assert math.isfinite(bits.item())
    assert math.isfinite(values.grad.item())
    if abs(value) > 3 * scale + 0.5:
        assert scales.grad.item() < 0


@pytest.mark.parametrize(
    ('output', 'index', 'learns'),
    [(-1.0, 0, (True, False)), (2.0, 16, (True, True)), (9.0, 63, (False, True))],
)
def test_scales_beyond_their_bounds_learn_the_way_back_alone(output, index, learns) -> None:
    for upwards, expected in zip((True, False), learns, strict=True):
        value = torch.tensor(output, requires_grad=True)
        found = scale_index(value)
        (-found if upwards else found).backward()
        assert found.item() == index
        assert bool(value.grad != 0) == expected

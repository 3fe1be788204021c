"""The model: its parts fit, its hook quantises, its fingerprint names what decodes."""

from __future__ import annotations

import re

import pytest
import torch

from msfc.codecs.msfc.codec import MSFC, MSFCConfig
from msfc.model import SplitModel, compute_fingerprint, is_decoder_tensor
from msfc.wire.quantizer import dequantize, quantize
from tiny import CHANNELS, CODE_CHANNELS, TinyDetector, tiny_model

ENCODER_TENSORS = [
    'detector.backbone.p2.weight',
    'codec.analysis.msff.se.fc1.weight',
    'codec.analysis.msff.reduce.bias',
    'codec.analysis.encoder.conv.weight',
    'codec.analysis.encoder.norm.running_mean',
]
DECODER_TENSORS = [
    'detector.head.weight',
    'detector.mask.bias',
    'codec.synthesis.decoder.conv.weight',
    'codec.synthesis.decoder.activation.weight',
    'codec.synthesis.msfr.convs.2.bias',
]


def test_parts() -> None:
    model = tiny_model(rate=8)
    assert model.class_names == ('cup', 'ball')
    assert model.rate == 8
    assert model.require_codec() is model.codec
    assert model.code_shape((96, 160)) == (CODE_CHANNELS, 3, 5)


def test_without_codec() -> None:
    model = tiny_model(codec=False)
    assert model.codec is None
    for use in (model.require_codec, model.hook, model.packet_spec):
        with pytest.raises(ValueError, match='no codec'):
            use()
    assert re.fullmatch('[0-9a-f]{16}', model.fingerprint)


def test_parts_must_fit() -> None:
    detector = TinyDetector()
    with pytest.raises(ValueError, match='takes 16 channels, the pyramid has 8'):
        SplitModel(detector, MSFC(MSFCConfig(16, 4)))
    with pytest.raises(ValueError, match='takes levels p2, p3, the pyramid has p2, p3, p4, p5'):
        SplitModel(detector, MSFC(MSFCConfig(CHANNELS, 4, ('p2', 'p3'), 'p3')))
    with pytest.raises(ValueError, match='rate 5 is not one of 2, 4, 8, 16, 32'):
        SplitModel(detector, MSFC(MSFCConfig(CHANNELS, 4)), rate=5)


def test_payload() -> None:
    model = tiny_model()
    assert model.payload_bytes((96, 160)) == -(-CODE_CHANNELS * 15 * 4 // 8)
    assert model.payload_bytes((96, 160), 32) == CODE_CHANNELS * 15 * 4
    elements = CHANNELS * (15 * (64 + 16 + 4 + 1) + 6)
    assert model.bpfe((96, 160), 8) == 8 * CODE_CHANNELS * 15 / elements


@pytest.mark.parametrize('bits', [None, 2, 4, 8, 16, 32])
def test_hook_quantises_between_the_halves(bits: int | None) -> None:
    model = tiny_model(rate=2)
    pyramid = model.detector.extract(
        model.detector.preprocess([torch.randint(256, (3, 50, 77), dtype=torch.uint8)])
    )
    sizes = {level: (x.shape[2], x.shape[3]) for level, x in pyramid.items()}
    with torch.no_grad():
        got = model.hook(bits)(pyramid)
        codec = model.require_codec()
        code = dequantize(quantize(codec.analyse(pyramid).numpy(), bits or 2), bits or 2)
        expected = codec.synthesise(torch.from_numpy(code), sizes)
    assert all(torch.equal(got[level], expected[level]) for level in pyramid)


def test_hook_of_32_bits_is_the_codec() -> None:
    model = tiny_model()
    batch = model.detector.preprocess([torch.randint(256, (3, 50, 77), dtype=torch.uint8)])
    with torch.no_grad():
        pyramid = model.detector.extract(batch)
        got, (expected, bits) = model.hook(32)(pyramid), model.require_codec()(pyramid)
    assert bits is None
    assert all(torch.equal(got[level], expected[level]) for level in pyramid)


def test_unknown_depth_of_hook() -> None:
    with pytest.raises(ValueError, match='rate 7'):
        tiny_model().hook(7)


def test_forward_of_a_batch() -> None:
    model = tiny_model()
    images = [torch.randint(256, (3, *size), dtype=torch.uint8) for size in ((40, 61), (33, 33))]
    results = model(images)
    assert [tuple(found.masks.shape) for found in results] == [(2, 40, 61), (2, 33, 33)]
    plain = tiny_model(codec=False)
    assert len(plain(images)) == 2


def test_decoder_tensors() -> None:
    names = set(tiny_model().state_dict())
    assert set(ENCODER_TENSORS) | set(DECODER_TENSORS) <= names
    assert not any(map(is_decoder_tensor, ENCODER_TENSORS))
    assert all(map(is_decoder_tensor, DECODER_TENSORS))
    assert not is_decoder_tensor('detector.model.backbone.fpn.inner_blocks.0.0.weight')
    assert is_decoder_tensor('detector.model.rpn.head.backbone_features.weight')


def test_fingerprint_is_stable() -> None:
    assert tiny_model(seed=3).fingerprint == tiny_model(seed=3).fingerprint
    assert tiny_model(seed=3).fingerprint != tiny_model(seed=4).fingerprint
    assert re.fullmatch('[0-9a-f]{16}', tiny_model().fingerprint)


def test_fingerprint_does_not_depend_on_defaults_and_modes() -> None:
    assert tiny_model(rate=2).fingerprint == tiny_model(rate=8).fingerprint
    assert tiny_model().train().fingerprint == tiny_model().fingerprint
    channels_last = tiny_model().to(memory_format=torch.channels_last)
    assert channels_last.fingerprint == tiny_model().fingerprint


@pytest.mark.parametrize('name', DECODER_TENSORS)
def test_fingerprint_sees_one_bit_of_the_decoder(name: str) -> None:
    model = tiny_model()
    before = model.fingerprint
    flat = model.state_dict()[name].view(-1)
    flat[-1] = torch.nextafter(flat[-1], torch.tensor(9.0))
    assert model.fingerprint != before


@pytest.mark.parametrize('name', ENCODER_TENSORS)
def test_fingerprint_leaves_the_encoder_free(name: str) -> None:
    model = tiny_model()
    before = model.fingerprint
    model.state_dict()[name].add_(1)
    assert model.fingerprint == before


def test_fingerprint_sees_the_architecture() -> None:
    model = tiny_model()
    config = model.config()
    for changed in ({**config, 'class_names': ['cup', 'bowl']}, {**config, 'detector': {}}):
        assert compute_fingerprint(changed, model.state_dict()) != model.fingerprint


def test_fingerprint_of_half_precision_is_that_of_its_values() -> None:
    model = tiny_model()
    half = {name: x.half() for name, x in model.state_dict().items() if x.is_floating_point()}
    single = {name: x.float() for name, x in half.items()}
    assert compute_fingerprint({}, half) == compute_fingerprint({}, single)


def test_golden_fingerprint() -> None:
    """Pins the definition in docs/wire-format.md: this number must never change."""
    tensors = {
        'codec.synthesis.decoder.conv.weight': torch.arange(6.0).reshape(1, 2, 3) / 4,
        'codec.analysis.encoder.conv.weight': torch.ones(1),
        'detector.head.steps': torch.tensor(7),
        'detector.backbone.weight': torch.ones(2),
    }
    config = {'codec': {'channels': 2}, 'class_names': ['caf\u00e9'], 'detector': {'type': 'x'}}
    assert compute_fingerprint(config, tensors) == '3c819f0ce721ee4b'

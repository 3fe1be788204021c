"""The codec's modules against the plain implementation in ``plain.py``."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import plain
from msfc.codecs.base import build_codec, transmit
from msfc.codecs.msfc.align import align
from msfc.codecs.msfc.codec import MSFC, MSFCConfig
from msfc.codecs.msfc.msff import MSFF
from msfc.codecs.msfc.msfr import MSFR
from msfc.codecs.msfc.ssfc import SSFCDecoder, SSFCEncoder
from msfc.types import Size
from msfc.wire.packing import packed_size
from msfc.wire.quantizer import dequantize, quantize
from tiny import randomize_norm

CONFIG = MSFCConfig(channels=6, code_channels=2, se_reduction=4)
SIDES = st.integers(1, 13)


def arrays(codec: MSFC) -> dict[str, np.ndarray]:
    """Return the state of a codec's modules as float64 arrays, by their names in the paper."""
    halves = (codec.analysis, codec.synthesis)
    return {
        name: x.double().numpy() for half in halves for name, x in half.state_dict().items()
    }


def make_codec(config: MSFCConfig = CONFIG) -> MSFC:
    """Return a codec with random weights and statistics, in evaluation mode."""
    torch.manual_seed(1)
    msfc = MSFC(config)
    randomize_norm(msfc)
    with torch.no_grad():
        for name, parameter in msfc.named_parameters():
            if name.endswith('bias'):
                parameter.uniform_(-0.2, 0.2)
    return msfc.eval()


def random_pyramid(p5: tuple[int, int], batch: int, channels: int = 6) -> dict[str, Tensor]:
    """Return p2 .. p6; levels above p5 are a power of two larger, less an odd cell or two."""
    height, width = p5
    sizes = {
        'p2': (max(1, 8 * height - 3), max(1, 8 * width - 2)),
        'p3': (max(1, 4 * height - 1), 4 * width),
        'p4': (2 * height, max(1, 2 * width - 1)),
        'p5': (height, width),
        'p6': (-(-height // 2), -(-width // 2)),
    }
    return {level: torch.randn(batch, channels, *size) for level, size in sizes.items()}


def sizes_of(pyramid: dict[str, Tensor]) -> dict[str, Size]:
    """Return the sizes of a pyramid."""
    return {level: (x.shape[2], x.shape[3]) for level, x in pyramid.items()}


def shapes(pyramid: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a pyramid."""
    return {level: tuple(x.shape) for level, x in pyramid.items()}


class TestAlign:
    @given(source=st.tuples(SIDES, SIDES), target=st.tuples(SIDES, SIDES), seed=st.integers(0, 99))
    def test_equals_plain(
        self, source: tuple[int, int], target: tuple[int, int], seed: int
    ) -> None:
        x = torch.randn(2, 3, *source, generator=torch.Generator().manual_seed(seed)).double()
        got = align(x, target)
        assert got.shape == (2, 3, *target)
        for image, expected in zip(got, x, strict=True):
            np.testing.assert_allclose(image, plain.align(expected.numpy(), target), atol=1e-9)

    def test_same_size_is_the_same_tensor(self) -> None:
        x = torch.randn(1, 2, 5, 7)
        assert align(x, (5, 7)) is x

    @given(source=st.tuples(SIDES, SIDES), target=st.tuples(SIDES, SIDES))
    def test_keeps_constants(self, source: tuple[int, int], target: tuple[int, int]) -> None:
        torch.testing.assert_close(
            align(torch.full((1, 1, *source), 0.7), target), torch.full((1, 1, *target), 0.7)
        )

    def test_shrinking_by_whole_factors_keeps_the_mean(self) -> None:
        x = torch.randn(1, 2, 12, 20)
        torch.testing.assert_close(align(x, (3, 5)).mean(), x.mean())


class TestEquations:
    def test_msff(self) -> None:
        msfc = make_codec()
        maps = list(random_pyramid((3, 4), batch=2).values())[:4]
        with torch.no_grad():
            got = msfc.analysis.msff(maps, (3, 4))
        assert got.shape == (2, 6, 3, 4)
        for n in range(2):
            expected = plain.msff([x[n].double().numpy() for x in maps], (3, 4), arrays(msfc))
            np.testing.assert_allclose(got[n], expected, atol=1e-5)

    def test_ssfc_encoder(self) -> None:
        msfc = make_codec()
        fused = torch.randn(2, 6, 3, 5)
        with torch.no_grad():
            got = msfc.analysis.encoder(fused)
        assert got.shape == (2, 2, 3, 5)
        for n in range(2):
            expected = plain.ssfc_encoder(fused[n].double().numpy(), arrays(msfc))
            np.testing.assert_allclose(got[n], expected, atol=1e-5)

    def test_ssfc_decoder(self) -> None:
        msfc = make_codec()
        code = torch.rand(2, 2, 3, 5) * 2 - 1
        with torch.no_grad():
            got = msfc.synthesis.decoder(code)
        assert got.shape == (2, 6, 3, 5)
        assert (got < 0).any(), 'the negative branch of PReLU was not tried'
        for n in range(2):
            expected = plain.ssfc_decoder(code[n].double().numpy(), arrays(msfc))
            np.testing.assert_allclose(got[n], expected, atol=1e-5)

    def test_msfr(self) -> None:
        msfc = make_codec()
        fused = torch.randn(2, 6, 3, 4)
        sizes = [(23, 30), (11, 16), (6, 7), (3, 4)]
        with torch.no_grad():
            got = msfc.synthesis.msfr(fused, sizes)
        assert [tuple(x.shape[2:]) for x in got] == [*sizes, (2, 2)]
        for n in range(2):
            expected = plain.msfr(fused[n].double().numpy(), sizes, arrays(msfc))
            for level, wanted in zip(got, expected, strict=True):
                np.testing.assert_allclose(level[n], wanted, atol=1e-5)

    @settings(max_examples=12)
    @given(
        p5=st.tuples(st.integers(1, 4), st.integers(1, 4)),
        fused_level=st.sampled_from(['p3', 'p4', 'p5']),
        bits=st.sampled_from([2, 4, 32]),
    )
    def test_whole_codec(self, p5: tuple[int, int], fused_level: str, bits: int) -> None:
        msfc = make_codec(MSFCConfig(6, 2, fused_level=fused_level, se_reduction=4)).double()
        pyramid = {level: x.double() for level, x in random_pyramid(p5, batch=1).items()}

        def quantiser(code: np.ndarray) -> np.ndarray:
            top = 2**bits - 1
            return code if bits == 32 else np.rint((code + 1) / 2 * top) / top * 2 - 1

        sizes = {level: (x.shape[2], x.shape[3]) for level, x in pyramid.items()}
        with torch.no_grad():
            code = dequantize(quantize(msfc.analyse(pyramid).numpy(), bits), bits)
            got = msfc.synthesise(torch.from_numpy(code).double(), sizes)
        expected = plain.codec(
            [pyramid[level][0].numpy() for level in msfc.levels],
            msfc.levels.index(fused_level),
            arrays(msfc),
            quantiser,
        )
        for level, wanted in zip(('p2', 'p3', 'p4', 'p5', 'p6'), expected, strict=True):
            np.testing.assert_allclose(got[level][0], wanted, atol=1e-6)


class TestMSFC:
    @settings(max_examples=25)
    @given(
        p5=st.tuples(st.integers(1, 5), st.integers(1, 5)),
        batch=st.integers(1, 3),
        channels=st.sampled_from([4, 6]),
        code_channels=st.sampled_from([1, 3]),
        fused_level=st.sampled_from(['p2', 'p3', 'p4', 'p5']),
    )
    def test_any_shape(
        self,
        p5: tuple[int, int],
        batch: int,
        channels: int,
        code_channels: int,
        fused_level: str,
    ) -> None:
        msfc = MSFC(MSFCConfig(channels, code_channels, fused_level=fused_level)).eval()
        pyramid = random_pyramid(p5, batch, channels)
        with torch.no_grad():
            code = msfc.analyse(pyramid)
            rebuilt, _ = msfc(pyramid)
        assert code.shape == (batch, *msfc.code_shape(sizes_of(pyramid)))
        assert code.shape == (batch, code_channels, *pyramid[fused_level].shape[2:])
        assert code.abs().max() <= 1
        assert list(rebuilt) == ['p2', 'p3', 'p4', 'p5', 'p6']
        assert shapes(rebuilt) == shapes(pyramid)

    def test_forward_is_decode_of_encode(self) -> None:
        msfc = make_codec()
        pyramid = random_pyramid((3, 5), 2)
        sizes = {level: (x.shape[2], x.shape[3]) for level, x in pyramid.items()}
        with torch.no_grad():
            forward, bits = msfc(pyramid)
            two_steps = msfc.synthesise(msfc.analyse(pyramid), sizes)
        assert bits is None
        for level in pyramid:
            assert torch.equal(forward[level], two_steps[level])

    @pytest.mark.parametrize('rate', [2, 4, 8, 16, 32])
    def test_forward_at_a_rate_goes_through_bytes(self, rate: int) -> None:
        msfc = make_codec()
        pyramid = random_pyramid((3, 5), 2)
        with torch.no_grad():
            rebuilt, bits = msfc(pyramid, rate)
            received, payloads = transmit(msfc.coder(), msfc.analyse(pyramid), rate)
            expected = msfc.synthesise(received, sizes_of(pyramid))
        assert bits is not None
        assert bits.tolist() == [8 * len(data) for data in payloads]
        assert bits.tolist() == [8 * packed_size(2 * 3 * 5, rate)] * 2
        for level in pyramid:
            assert torch.equal(rebuilt[level], expected[level])

    def test_an_unknown_rate_is_refused(self) -> None:
        with pytest.raises(ValueError, match='rate 3 is not one of 2, 4, 8, 16, 32'):
            make_codec()(random_pyramid((2, 2), 1), 3)

    def test_builds_from_its_configuration(self) -> None:
        msfc = make_codec()
        again = build_codec(msfc.config())
        assert isinstance(again, MSFC)
        assert again.config() == msfc.config()
        assert again.state_dict().keys() == msfc.state_dict().keys()
        with pytest.raises(ValueError, match="unknown codec type None: choose 'msfc'"):
            build_codec({'channels': 4})

    def test_batch_equals_singles(self) -> None:
        msfc = make_codec()
        pyramid = random_pyramid((3, 5), 3)
        with torch.no_grad():
            together, _ = msfc(pyramid)
            for n in range(3):
                alone, _ = msfc({level: x[n : n + 1] for level, x in pyramid.items()})
                for level, x in alone.items():
                    torch.testing.assert_close(x[0], together[level][n])

    def test_p6_is_not_used(self) -> None:
        msfc = make_codec()
        pyramid = random_pyramid((3, 5), 1)
        without = {level: x for level, x in pyramid.items() if level != 'p6'}
        with torch.no_grad():
            assert torch.equal(msfc.analyse(pyramid), msfc.analyse(without))
            assert list(msfc(without)[0]) == list(pyramid)

    def test_every_parameter_learns(self) -> None:
        msfc = MSFC(CONFIG).train()
        rebuilt, _ = msfc(random_pyramid((2, 3), 2))
        sum(x.square().mean() for x in rebuilt.values()).backward()
        for name, parameter in msfc.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name

    def test_initial_features_have_the_variance_of_an_fpn(self) -> None:
        torch.manual_seed(0)
        msfc = MSFC(MSFCConfig(64, 32)).train()
        with torch.no_grad():
            rebuilt, _ = msfc(random_pyramid((8, 8), 2, 64))
        for level in rebuilt.values():
            assert 0.1 < level.std() < 3

    def test_levels_of_another_detector(self) -> None:
        config = MSFCConfig(4, 2, levels=('p3', 'p4'), fused_level='p3')
        pyramid = {'p3': torch.randn(1, 4, 9, 7), 'p4': torch.randn(1, 4, 5, 4)}
        rebuilt, _ = MSFC(config).eval()(pyramid)
        assert shapes(rebuilt) == {'p3': (1, 4, 9, 7), 'p4': (1, 4, 5, 4), 'p6': (1, 4, 3, 2)}

    def test_paper_sizes(self) -> None:
        msfc = MSFC()
        assert msfc.settings == MSFCConfig(256, 64, ('p2', 'p3', 'p4', 'p5'), 'p5', 16)
        assert msfc.analysis.msff.se.fc1.weight.shape[:2] == (64, 1024)
        assert msfc.analysis.msff.reduce.weight.shape[:2] == (256, 1024)
        assert msfc.analysis.encoder.conv.weight.shape[:2] == (64, 256)
        assert msfc.synthesis.decoder.conv.weight.shape[:2] == (256, 64)
        assert len(msfc.synthesis.msfr.convs) == 3

    def test_missing_level(self) -> None:
        pyramid = random_pyramid((2, 2), 1)
        del pyramid['p3']
        with pytest.raises(ValueError, match='no level p3'):
            make_codec().analyse(pyramid)
        with pytest.raises(ValueError, match='no level p3'):
            make_codec()(pyramid)

    def test_wrong_channels(self) -> None:
        with pytest.raises(ValueError, match='p2 has 5 channels, the codec 6'):
            make_codec().analyse(random_pyramid((2, 2), 1, channels=5))
        with pytest.raises(ValueError, match='code has 3 channels, the codec 2'):
            make_codec().synthesise(torch.zeros(1, 3, 2, 2), {})

    def test_wrong_sizes(self) -> None:
        sizes = {'p2': (8, 8), 'p3': (4, 4), 'p4': (2, 2)}
        with pytest.raises(ValueError, match='no size for level p5'):
            make_codec().synthesise(torch.zeros(1, 2, 1, 1), sizes)
        with pytest.raises(ValueError, match='p6 is 1 x 1'):
            make_codec().synthesise(torch.zeros(1, 2, 1, 1), {**sizes, 'p5': (1, 1), 'p6': (2, 1)})

    def test_wrong_numbers_of_maps(self) -> None:
        with pytest.raises(ValueError, match='fuses 4 levels, got 1'):
            MSFF(4, 4)([torch.zeros(1, 4, 2, 2)], (2, 2))
        with pytest.raises(ValueError, match='rebuilds 4 levels, got 1'):
            MSFR(4, 4)(torch.zeros(1, 4, 2, 2), [(2, 2)])

    def test_single_modules_take_their_sizes_as_parameters(self) -> None:
        assert MSFF(3, 2)([torch.zeros(1, 3, 5, 5)] * 2, (2, 3)).shape == (1, 3, 2, 3)
        assert SSFCEncoder(3, 1).eval()(torch.zeros(1, 3, 2, 3)).shape == (1, 1, 2, 3)
        assert SSFCDecoder(1, 3)(torch.zeros(1, 1, 2, 3)).shape == (1, 3, 2, 3)
        assert len(MSFR(3, 1)(torch.zeros(1, 3, 2, 3), [(4, 4)])) == 2


class TestConfig:
    def test_round_trip(self) -> None:
        config = MSFCConfig(128, 32, ('p3', 'p4'), 'p4', 8)
        assert MSFCConfig.from_dict(config.to_dict()) == config
        assert config.to_dict()['levels'] == ['p3', 'p4']

    def test_defaults(self) -> None:
        assert MSFCConfig.from_dict({}) == MSFCConfig()

    @pytest.mark.parametrize(
        ('values', 'words'),
        [
            ({'channels': 0}, 'channels is 1'),
            ({'code_channels': 2**16}, 'code_channels is 1 .. 65535'),
            ({'channels': '256'}, 'whole number'),
            ({'se_reduction': True}, 'whole number'),
            ({'se_reduction': 2.0}, 'whole number'),
            ({'levels': []}, 'names such as p2'),
            ({'levels': [2, 3]}, 'names such as p2'),
            ({'levels': 'p5'}, "levels is a list, got 'p5'"),
            ({'levels': ['p5', 'p5']}, 'distinct'),
            ({'levels': ['p5', 'p6']}, 'without p6'),
            ({'levels': ['p4'], 'fused_level': 'p5'}, "'p5' is not one of p4"),
            ({'depth': 3}, 'unknown codec settings: depth'),
        ],
    )
    def test_refusals(self, values: dict[str, object], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            MSFCConfig.from_dict(values)


def test_plain_areas_cover_every_cell_once() -> None:
    """Guards the plain implementation itself: whole factors give disjoint areas."""
    x = np.arange(12.0, dtype=np.float64)[None, :, None]
    got = plain.align(x, (4, 1))[0, :, 0]
    assert list(got) == [1.0, 4.0, 7.0, 10.0]
    assert all(b - a == 3 for a, b in pairwise(got))

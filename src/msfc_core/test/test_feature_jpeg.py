"""The paper's baseline: a pyramid as a JPEG."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msfc.evaluation.feature_jpeg import FeatureJpeg
from msfc.types import Pyramid


def make_pyramid(
    channels: int, height: int, width: int, seed: int = 0, free_p6: bool = False
) -> Pyramid:
    """Return smooth maps whose ranges differ from level to level and channel to channel."""
    generator = torch.Generator().manual_seed(seed)
    pyramid = {}
    for k in range(4):
        size = (-(-height // 2**k), -(-width // 2**k))
        coarse = torch.randn(1, channels, 4, 5, generator=generator)
        scale = (1 + torch.arange(channels))[None, :, None, None] * 2.0**k
        maps = torch.nn.functional.interpolate(coarse, size, mode='bilinear') * scale
        pyramid[f'p{k + 2}'] = maps - 3
    pyramid['p6'] = torch.nn.functional.max_pool2d(pyramid['p5'], 1, 2)
    if free_p6:
        pyramid['p6'] = pyramid['p6'] + 1
    return pyramid


def error(one: Pyramid, other: Pyramid) -> float:
    return max(float((one[k] - other[k]).square().mean().sqrt()) for k in one)


@settings(max_examples=30)
@given(
    st.integers(1, 10), st.integers(1, 40), st.integers(1, 40),
    st.sampled_from(['level', 'channel']), st.booleans(), st.booleans(),
)
def test_high_quality_is_near_the_original(
    channels: int, height: int, width: int, scope: str, aligned: bool, free_p6: bool
) -> None:
    pyramid = make_pyramid(channels, height, width, free_p6=free_p6)
    rebuilt, sent = FeatureJpeg(100, scope, aligned).compress(pyramid)
    assert list(rebuilt) == list(pyramid)
    for level, features in pyramid.items():
        got = rebuilt[level]
        assert got.shape == features.shape
        assert got.dtype == torch.float32
        span = float(features.max() - features.min())
        # JPEG rounds 64 frequencies of weight 1/4 at most, each by half a step at most.
        assert float((got - features).abs().max()) <= span * 9 / 255 + 1e-5
    assert sent > 0


def test_channel_scope_is_finer_and_counts_its_ranges() -> None:
    pyramid = make_pyramid(16, 40, 56)
    by_level, _ = FeatureJpeg(100).compress(pyramid)
    by_channel, _ = FeatureJpeg(100, 'channel').compress(pyramid)
    first = {'p2': pyramid['p2'][:, :1]}
    assert error(first, {'p2': by_channel['p2'][:, :1]}) < error(
        first, {'p2': by_level['p2'][:, :1]}
    )
    flat = {level: torch.zeros_like(features) for level, features in pyramid.items()}
    sizes = [len(FeatureJpeg(50, scope).encode(flat)) for scope in ('level', 'channel')]
    assert sizes[1] - sizes[0] == 4 * (16 - 1) * 2 * 4  # levels, channels, least and greatest


def test_less_quality_is_fewer_bytes_and_more_error() -> None:
    pyramid = make_pyramid(16, 64, 80)
    figures = [FeatureJpeg(quality).compress(pyramid) for quality in (5, 30, 90)]
    sent = [data for _, data in figures]
    errors = [error(pyramid, rebuilt) for rebuilt, _ in figures]
    assert sent == sorted(sent)
    assert errors == sorted(errors, reverse=True)


def test_the_picture_is_what_is_sent() -> None:
    """The bytes are one flag, two float32 per level, and a JPEG that any program reads."""
    pyramid = make_pyramid(5, 16, 24)
    data = FeatureJpeg(95).encode(pyramid)
    assert data[0] == 0
    ranges = np.frombuffer(data[1 : 1 + 4 * 2 * 4], '<f4').reshape(4, 2)
    assert ranges[:, 0].tolist() == [float(pyramid[f'p{k}'].min()) for k in (2, 3, 4, 5)]
    assert ranges[:, 1].tolist() == [float(pyramid[f'p{k}'].max()) for k in (2, 3, 4, 5)]
    picture = cv2.imdecode(np.frombuffer(data[33:], np.uint8), cv2.IMREAD_GRAYSCALE)
    # Three columns and two rows of tiles: p2 above p3, p4, p5 side by side.
    assert picture.shape == (2 * 16 + 2 * 8, max(3 * 24, 3 * (12 + 6 + 3)))
    tile = picture[16:32, 24:48].astype(float)  # the last channel of p2
    low, high = ranges[0]
    expected = (pyramid['p2'][0, 4].numpy() - low) / (high - low) * 255
    assert np.abs(tile - expected).mean() < 3


def test_tiles_do_not_mix_when_aligned() -> None:
    """At a coarse quality, the edge of a bright channel leaks into its neighbour otherwise."""
    pyramid = {f'p{k}': torch.zeros(1, 4, 2 ** (5 - k) * 3, 2 ** (5 - k) * 3) for k in range(2, 6)}
    for level in pyramid:
        pyramid[level][:, 1] = 100
    pyramid['p6'] = torch.nn.functional.max_pool2d(pyramid['p5'], 1, 2)
    plain, _ = FeatureJpeg(5).compress(pyramid)
    aligned, _ = FeatureJpeg(5, block_aligned=True).compress(pyramid)
    assert error(pyramid, aligned) < error(pyramid, plain) / 2


def test_constant_maps() -> None:
    pyramid = {f'p{k}': torch.full((1, 3, 5, 7), 2.5) for k in (2, 3, 4, 5)}
    pyramid['p6'] = torch.nn.functional.max_pool2d(pyramid['p5'], 1, 2)
    rebuilt, _ = FeatureJpeg(10).compress(pyramid)
    assert error(pyramid, rebuilt) == 0


def test_wrong_input_is_refused() -> None:
    pyramid = make_pyramid(4, 16, 16)
    with pytest.raises(ValueError, match='0 to 100'):
        FeatureJpeg(101)
    with pytest.raises(ValueError, match='level, channel'):
        FeatureJpeg(50, 'row')
    with pytest.raises(ValueError, match='one image'):
        FeatureJpeg(50).encode({k: v.repeat(2, 1, 1, 1) for k, v in pyramid.items()})
    with pytest.raises(ValueError, match='finite'):
        FeatureJpeg(50).encode({**pyramid, 'p3': pyramid['p3'] * math.nan})
    data = FeatureJpeg(50).encode(pyramid)
    sizes = {level: tuple(maps.shape[-2:]) for level, maps in pyramid.items()}
    with pytest.raises(ValueError, match='side information'):
        FeatureJpeg(50).decode(data[:9], sizes, 4)
    with pytest.raises(ValueError, match='expected'):
        FeatureJpeg(50).decode(data, {**sizes, 'p2': (17, 16)}, 4)
    with pytest.raises(ValueError, match='not an image'):
        FeatureJpeg(50).decode(data[:40], sizes, 4)

"""The image codecs of the baselines: real bytes, right colours, any size."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfc.evaluation.image_codecs import (
    DownscalingCodec,
    FfmpegIntraCodec,
    ImageCodec,
    JpegCodec,
    PillowCodec,
    codec_versions,
    find_codecs,
)

CODECS, MISSING = find_codecs(avif_speed=8)


def make_image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return smooth coloured blobs."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 7, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return image.astype(np.uint8)


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / ((one.astype(float) - other) ** 2).mean()))


def by_name(codec: ImageCodec) -> str:
    return codec.name


def test_what_is_missing_is_said() -> None:
    names = {codec.name for codec in CODECS}
    assert {'JPEG 4:2:0', 'JPEG 4:4:4'} <= names
    for kind in ('WebP', 'AVIF', 'H.264', 'H.265'):
        found = any(name.startswith(kind) for name in names)
        assert found != (kind in MISSING)
    assert all(MISSING.values())
    versions = codec_versions()
    assert versions['OpenCV'] == cv2.__version__
    assert ('webp' in versions) == ('WebP' not in MISSING)
    assert all(any(sign.isdigit() for sign in version) for version in versions.values())


def test_without_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('PATH', '')
    codecs, missing = find_codecs(['4:2:0'])
    assert 'ffmpeg' in missing['H.264']
    assert 'ffmpeg' not in codec_versions()
    assert not any('H.26' in codec.name for codec in codecs)


@pytest.mark.parametrize('codec', CODECS, ids=by_name)
def test_quality_goes_with_bytes_and_error(codec: ImageCodec) -> None:
    image = make_image(96, 128)
    low, high = codec.qualities[1], codec.qualities[-1]
    sent = [codec.encode(image, quality) for quality in (low, high)]
    errors = [psnr(image, codec.decode(data, (96, 128))) for data in sent]
    assert len(sent[0]) < len(sent[1]) < image.nbytes
    assert errors[0] < errors[1]
    assert errors[1] > 32
    assert list(codec.qualities) == sorted(codec.qualities)


@pytest.mark.parametrize('codec', CODECS, ids=by_name)
def test_colours_and_odd_sizes_stay(codec: ImageCodec) -> None:
    """Blue stays blue; neither range nor matrix of the colours is mistaken."""
    for bgr in ((255, 0, 0), (0, 0, 255), (0, 160, 0), (255, 255, 255), (0, 0, 0)):
        image = np.zeros((67, 81, 3), np.uint8)
        image[:] = bgr
        got = codec.decode(codec.encode(image, codec.qualities[-1]), (67, 81))
        assert got.shape == image.shape
        assert got.dtype == np.uint8
        assert np.abs(got.astype(int) - image).max() <= 6


@pytest.mark.parametrize('codec', CODECS, ids=by_name)
def test_encoding_is_repeatable(codec: ImageCodec) -> None:
    image = make_image(64, 64)
    quality = codec.qualities[len(codec.qualities) // 2]
    assert codec.encode(image, quality) == codec.encode(image, quality)


@pytest.mark.skipif('H.264' in MISSING, reason='ffmpeg with libx264 is not here')
def test_no_signature_is_sent() -> None:
    data = FfmpegIntraCodec('H.264').encode(make_image(64, 64), -30)
    assert b'x264' not in data


@pytest.mark.skipif('H.264' in MISSING, reason='ffmpeg with libx264 is not here')
def test_ffmpeg_errors_are_told() -> None:
    with pytest.raises(ValueError, match=r'H\.264 intra 4:2:0: ffmpeg failed'):
        FfmpegIntraCodec('H.264').decode(b'no stream', (64, 64))


def test_hanging_ffmpeg_is_ended(tmp_path: Path) -> None:
    program = tmp_path / 'ffmpeg'
    program.write_text('#!/bin/sh\nexec sleep 60\n')
    program.chmod(0o755)
    codec = FfmpegIntraCodec('H.264', program=str(program), timeout=0.2)
    with pytest.raises(ValueError, match=r'H\.264 intra 4:2:0: no answer from ffmpeg in 0\.2 s'):
        codec.encode(make_image(32, 32), -30)


def test_downscaling_sends_the_small_image() -> None:
    image = make_image(200, 300)
    plain = JpegCodec('4:4:4')
    codec = DownscalingCodec(plain, lambda size: (size[0] // 2, size[1] // 2))
    data = codec.encode(image, 80)
    assert len(data) < len(plain.encode(image, 80))
    small = codec.decode(data, (200, 300))
    assert small.shape == (100, 150, 3)
    expected = cv2.resize(image, (150, 100), interpolation=cv2.INTER_AREA)
    assert psnr(expected.astype(np.uint8), small) > 35
    # A network that takes larger images than the camera's gets them as they are.
    grow = DownscalingCodec(plain, lambda size: (size[0] * 2, size[1] * 2))
    assert grow.encode(image, 80) == plain.encode(image, 80)
    assert grow.decode(grow.encode(image, 80), (200, 300)).shape == image.shape


def test_jpeg_takes_the_shorter_of_baseline_and_progressive() -> None:
    for size in ((24, 24), (480, 640)):
        image = make_image(*size)
        sizes = [
            len(cv2.imencode('.jpg', image, [
                cv2.IMWRITE_JPEG_QUALITY, 40, cv2.IMWRITE_JPEG_OPTIMIZE, 1,
                cv2.IMWRITE_JPEG_PROGRESSIVE, progressive,
                cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
            ])[1])
            for progressive in (0, 1)
        ]
        assert len(JpegCodec().encode(image, 40)) == min(sizes)


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match='4:2:2'):
        JpegCodec('4:2:2')
    with pytest.raises(ValueError, match=r'H\.263'):
        FfmpegIntraCodec('H.263')
    with pytest.raises(ValueError, match='not an image'):
        JpegCodec().decode(b'no image', (1, 1))
    data = JpegCodec().encode(make_image(32, 32), 50)
    with pytest.raises(ValueError, match='expected'):
        JpegCodec().decode(data, (32, 33))
    webp = PillowCodec('WebP', 'WEBP', (50,))
    if 'WebP' not in MISSING:
        with pytest.raises(ValueError, match='expected'):
            webp.decode(webp.encode(make_image(32, 32), 50), (32, 33))

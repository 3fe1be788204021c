"""The image codecs of the baselines: real bytes, right colours, any size."""

from __future__ import annotations

import importlib.util
import io

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from msfc.evaluation.bitstreams import (
    restore_avif,
    restore_jpeg,
    restore_webp,
    split_units,
    strip_avif,
    strip_jpeg,
    strip_webp,
)
from msfc.evaluation.image_codecs import (
    DownscalingCodec,
    ImageCodec,
    JpegCodec,
    VideoIntraCodec,
    codec_versions,
    find_codecs,
    smallest_jpeg,
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


def test_without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    codecs, missing = find_codecs(['4:2:0'])
    assert 'pip install av' in missing['H.264']
    assert 'PyAV' not in codec_versions()
    assert not any('H.26' in codec.name for codec in codecs)


@pytest.mark.parametrize('codec', CODECS, ids=by_name)
def test_quality_goes_with_bytes_and_error(codec: ImageCodec) -> None:
    image = make_image(96, 128)
    low, high = codec.qualities[1], codec.qualities[-1]
    sent = [codec.encode(image, quality) for quality in (low, high)]
    errors = [
        psnr(image, codec.decode(data, (96, 128), quality))
        for data, quality in zip(sent, (low, high), strict=True)
    ]
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
        quality = codec.qualities[-1]
        got = codec.decode(codec.encode(image, quality), (67, 81), quality)
        assert got.shape == image.shape
        assert got.dtype == np.uint8
        assert np.abs(got.astype(int) - image).max() <= 6


@pytest.mark.parametrize('codec', CODECS, ids=by_name)
def test_encoding_is_repeatable(codec: ImageCodec) -> None:
    image = make_image(64, 64)
    quality = codec.qualities[len(codec.qualities) // 2]
    assert codec.encode(image, quality) == codec.encode(image, quality)


@pytest.mark.parametrize('codec', CODECS, ids=by_name)
def test_a_plain_image_costs_hardly_a_header(codec: ImageCodec) -> None:
    """What the receiver knows beforehand is not sent, of any codec."""
    sent = codec.encode(np.full((64, 64, 3), 90, np.uint8), codec.qualities[0])
    # JPEG's Huffman tables and scans are made for each image, and several to a file.
    assert len(sent) < (200 if codec.name.startswith('JPEG') else 40)
    for sign in (b'x264', b'ftyp', b'RIFF', b'JFIF'):
        assert sign not in sent


@pytest.mark.parametrize('codec', CODECS, ids=by_name)
def test_another_sender_of_the_same_setting_is_understood(codec: ImageCodec) -> None:
    """The receiver has never seen an image: it makes the headers from size and quality."""
    image = make_image(50, 70)
    quality = codec.qualities[3]
    data = codec.encode(image, quality)
    receivers = {each.name: each for each in find_codecs(avif_speed=8)[0]}
    got = receivers[codec.name].decode(data, (50, 70), quality)
    assert np.array_equal(got, codec.decode(data, (50, 70), quality))
    assert psnr(image, got) > 20


@pytest.mark.parametrize('standard', sorted({'H.264', 'H.265'} - set(MISSING)))
def test_damaged_video_is_told(standard: str) -> None:
    with pytest.raises(ValueError, match=rf'{standard} intra 4:2:0: .* decode'):
        VideoIntraCodec(standard).decode(b'no stream', (64, 64), -30)


def test_downscaling_sends_the_small_image() -> None:
    image = make_image(200, 300)
    plain = JpegCodec('4:4:4')
    codec = DownscalingCodec(plain, lambda size: (size[0] // 2, size[1] // 2))
    data = codec.encode(image, 80)
    assert len(data) < len(plain.encode(image, 80))
    small = codec.decode(data, (200, 300), 80)
    assert small.shape == (100, 150, 3)
    expected = cv2.resize(image, (150, 100), interpolation=cv2.INTER_AREA)
    assert psnr(expected.astype(np.uint8), small) > 35
    # A network that takes larger images than the camera's gets them as they are.
    grow = DownscalingCodec(plain, lambda size: (size[0] * 2, size[1] * 2))
    assert grow.encode(image, 80) == plain.encode(image, 80)
    assert grow.decode(grow.encode(image, 80), (200, 300), 80).shape == image.shape


def test_a_scale_is_of_the_networks_input() -> None:
    image = make_image(200, 300)
    codec = DownscalingCodec(
        JpegCodec(), lambda size: (size[0] // 2, size[1] // 2), scale=0.75
    )
    assert codec.name == 'JPEG 4:2:0, 75 % of the input'
    assert codec.sent_size((200, 300)) == (75, 112)
    assert codec.decode(codec.encode(image, 50), (200, 300), 50).shape == (75, 112, 3)
    with pytest.raises(ValueError, match='positive'):
        DownscalingCodec(JpegCodec(), lambda size: size, scale=0)


def test_jpeg_takes_the_shorter_of_baseline_and_progressive() -> None:
    for size in ((24, 24), (480, 640)):
        image = make_image(*size)
        sizes = [
            len(cv2.imencode('.jpg', image, [
                cv2.IMWRITE_JPEG_QUALITY, 40, cv2.IMWRITE_JPEG_OPTIMIZE, 1,
                cv2.IMWRITE_JPEG_PROGRESSIVE, progressive,
            ])[1])
            for progressive in (0, 1)
        ]
        assert len(smallest_jpeg(image, 40)) == min(sizes)


@pytest.mark.parametrize('size', [(16, 16), (17, 33), (120, 161)])
@pytest.mark.parametrize('quality', [5, 40, 90])
def test_files_are_restored_to_the_byte(size: tuple[int, int], quality: int) -> None:
    image, other = make_image(*size, seed=quality), make_image(*size, seed=quality + 1)
    jpeg = smallest_jpeg(image, quality)
    assert restore_jpeg(strip_jpeg(jpeg), smallest_jpeg(other, quality)) == jpeg
    if 'WebP' not in MISSING:
        webp = saved(image, 'WEBP', quality)
        assert restore_webp(strip_webp(webp), size) == webp
        assert len(webp) - len(strip_webp(webp)) >= 27
    if 'AVIF' not in MISSING:
        avif = saved(image, 'AVIF', quality)
        assert restore_avif(strip_avif(avif), saved(other, 'AVIF', quality)) == avif
        assert len(avif) - len(strip_avif(avif)) > 250


def test_other_files_are_refused() -> None:
    jpeg = smallest_jpeg(make_image(16, 16), 50)
    for strip in (strip_webp, strip_avif):
        with pytest.raises(ValueError, match='not a'):
            strip(jpeg)
    with pytest.raises(ValueError, match='not a JPEG'):
        strip_jpeg(b'RIFF')
    units = split_units(b'\0\0\0\1\x67ab\0\0\1\x65cd')
    assert units == [b'\x67ab', b'\x65cd']


def saved(image: NDArray[np.uint8], kind: str, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, quality=quality)
    return file.getvalue()


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match='4:2:2'):
        JpegCodec('4:2:2')
    with pytest.raises(ValueError, match=r'H\.263'):
        VideoIntraCodec('H.263')
    with pytest.raises(ValueError, match='not an image'):
        JpegCodec().decode(b'no image', (1, 1), 50)
    data = JpegCodec().encode(make_image(32, 32), 50)
    # The receiver believes the size that was agreed upon.
    assert JpegCodec().decode(data, (32, 31), 50).shape == (32, 31, 3)

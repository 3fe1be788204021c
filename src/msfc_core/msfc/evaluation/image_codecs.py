"""The codecs that a user would send camera images with: real encoders, real bytes.

Each codec encodes one image by itself, as the compressed features do, at the settings that give
the fewest bytes for a quality. What a receiver knows beforehand is not sent, of no codec: see
:mod:`msfc.evaluation.bitstreams`. Where 4:2:0 and 4:4:4 are to be had, both are codecs of their
own: which is better depends on the quality.

JPEG comes from OpenCV, WebP and AVIF (AV1 by libaom) from Pillow, H.264 and H.265 (x264, x265)
from PyAV. What this machine lacks is named by :func:`find_codecs`. The settings that are
measured are in :mod:`msfc.evaluation.image_settings`.
"""

from __future__ import annotations

import importlib.util
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, features
from PIL import __version__ as pillow_version

from msfc.evaluation.bitstreams import (
    is_coded_h264,
    is_coded_h265,
    is_parameters_h264,
    is_parameters_h265,
    restore_avif,
    restore_jpeg,
    restore_webp,
    split_units,
    strip_avif,
    strip_jpeg,
    strip_webp,
)
from msfc.types import Size

if TYPE_CHECKING:
    from av import VideoCodecContext

Picture = NDArray[np.uint8]
"""H x W x 3 uint8, BGR."""

SUBSAMPLINGS = ('4:2:0', '4:4:4')

_TEMPLATES = 64
"""How many images of one size and setting a codec keeps the fixed parts of."""

AVIF_SPEED = 4
"""Of AVIF's encoder, 0 to 10.

On eight validation pictures of the tabletop world at 320 x 240, at equal distance of the
detector's features, 6 took 14 % more bytes in a quarter of the time, and 2 some 2 % fewer in
twice the time.
"""


H265_COLOUR_OFFSET = -6
"""Of x265's quantiser of the colours: a detector needs them more than x265 believes.

On four validation pictures of the tabletop world at 320 x 240 and equal distance of the detector's
features, 4:2:0 took 13 to 15 % fewer bytes with it than with none.
"""

VIDEO_PRESET = 'slower'
"""Of the encoders of H.264 and H.265; for one intra frame, ``veryslow`` is the same in H.265."""


class ImageCodec(ABC):
    """A lossy image codec.

    Attributes:
        name: with its colour subsampling, such as ``JPEG 4:2:0``.
        qualities: settings from the least to the most bytes that cover what is useful.
        effort: the encoder's other settings, on which results depend; JSON-serialisable.
    """

    name: str
    qualities: tuple[int, ...]
    effort: Mapping[str, Any] = MappingProxyType({})

    @abstractmethod
    def encode(self, image: Picture, quality: int) -> bytes:
        """Encode an image by itself; the size of the result is what is sent.

        Args:
            image: H x W x 3 uint8 BGR.
            quality: in the codec's own measure.
        """

    @abstractmethod
    def decode(self, data: bytes, size: Size, quality: int) -> Picture:
        """Decode what :meth:`encode` gave.

        Args:
            data: the bytes.
            size: height and width of the image, which the message's other fields carry.
            quality: as it was encoded, which both sides have agreed upon.
        """


class JpegCodec(ImageCodec):
    """JPEG by libjpeg-turbo, Huffman tables optimised, baseline or progressive by size.

    Args:
        subsampling: of the colours, ``4:2:0`` or ``4:4:4``.
    """

    qualities = (3, 5, 8, 12, 18, 25, 35, 50, 65, 80, 90, 95)

    def __init__(self, subsampling: str = '4:2:0') -> None:
        _check_subsampling(subsampling)
        self.name = f'JPEG {subsampling}'
        self._options = [
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
            if subsampling == '4:2:0'
            else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
        ]
        self._template = lru_cache(_TEMPLATES)(self._make_template)

    def encode(self, image: Picture, quality: int) -> bytes:
        """Encode, see :meth:`ImageCodec.encode`; quality 0 to 100."""
        file = smallest_jpeg(image, quality, self._options)
        sent = strip_jpeg(file)
        size = (image.shape[0], image.shape[1])
        restored = restore_jpeg(sent, self._template(size, quality))
        return _check_sent(self.name, sent, file, restored)

    def decode(self, data: bytes, size: Size, quality: int) -> Picture:
        """Decode, see :meth:`ImageCodec.decode`."""
        file = restore_jpeg(data, self._template(tuple(size), quality))
        return _check_size(read_picture(file, cv2.IMREAD_COLOR), size)

    def _make_template(self, size: Size, quality: int) -> bytes:
        return smallest_jpeg(_blank(size), quality, self._options)


@dataclass(frozen=True)
class _Format:
    """What Pillow needs to know of a format.

    Attributes:
        kind: Pillow's name of it.
        strip: from a file to what is sent.
        restore: from what is sent, a file of the same setting and size, and the size to a file.
    """

    kind: str
    strip: Callable[[bytes], bytes]
    restore: Callable[[bytes, bytes, Size], bytes]


_FORMATS = {
    'WebP': _Format('WEBP', strip_webp, lambda sent, _, size: restore_webp(sent, size)),
    'AVIF': _Format('AVIF', strip_avif, lambda sent, template, _: restore_avif(sent, template)),
}


class PillowCodec(ImageCodec):
    """WebP or AVIF by Pillow.

    Args:
        format_name: ``WebP`` or ``AVIF``.
        qualities: settings, 0 to 100.
        note: what the name says besides the format.
        options: for ``Image.save``.
    """

    def __init__(
        self, format_name: str, qualities: Sequence[int], note: str = '', **options: Any
    ) -> None:
        self.name = f'{format_name} {note}'.strip()
        self.qualities = tuple(qualities)
        self.effort = options
        self._format, self._options = _FORMATS[format_name], options
        self._template = lru_cache(_TEMPLATES)(self._make_template)

    def encode(self, image: Picture, quality: int) -> bytes:
        """Encode, see :meth:`ImageCodec.encode`; quality 0 to 100."""
        file = self._save(image, quality)
        sent = self._format.strip(file)
        restored = self._restore(sent, (image.shape[0], image.shape[1]), quality)
        return _check_sent(self.name, sent, file, restored)

    def decode(self, data: bytes, size: Size, quality: int) -> Picture:
        """Decode, see :meth:`ImageCodec.decode`."""
        with Image.open(io.BytesIO(self._restore(data, size, quality))) as file:
            picture = np.asarray(file.convert('RGB'))
        return _check_size(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR).astype(np.uint8), size)

    def _save(self, image: Picture, quality: int) -> bytes:
        file = io.BytesIO()
        picture = Image.fromarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        picture.save(file, self._format.kind, quality=quality, **self._options)
        return file.getvalue()

    def _restore(self, sent: bytes, size: Size, quality: int) -> bytes:
        return self._format.restore(sent, self._template(tuple(size), quality), size)

    def _make_template(self, size: Size, quality: int) -> bytes:
        return self._save(_blank(size), quality)


@dataclass(frozen=True)
class _Standard:
    """What differs between the two video standards.

    Attributes:
        encoder: FFmpeg's name of the encoder.
        decoder: FFmpeg's name of the decoder.
        encoder_options: for one intra frame in one thread, from the offset of the colours'
            quantiser.
        is_coded: whether a unit has coded pixels.
        is_parameters: whether a unit is a parameter set.
    """

    encoder: str
    decoder: str
    encoder_options: Callable[[int], dict[str, str]]
    is_coded: Callable[[bytes], bool]
    is_parameters: Callable[[bytes], bool]


def _x264_options(colour_offset: int) -> dict[str, str]:
    return {'g': '1', 'x264-params': f'chroma-qp-offset={colour_offset}'}


def _x265_options(colour_offset: int) -> dict[str, str]:
    return {
        'x265-params': 'log-level=none:info=0:keyint=1:pools=none:frame-threads=1:wpp=0:'
        f'cbqpoffs={colour_offset}:crqpoffs={colour_offset}'
    }


_STANDARDS = {
    'H.264': _Standard('libx264', 'h264', _x264_options, is_coded_h264, is_parameters_h264),
    'H.265': _Standard('libx265', 'hevc', _x265_options, is_coded_h265, is_parameters_h265),
}


class VideoIntraCodec(ImageCodec):
    """One intra frame of H.264 (x264) or H.265 (x265), by PyAV.

    What is sent are the units with coded pixels. Parameter sets go once per stream, so they are
    not counted: the receiver makes them from size and quality. Full-range BT.709 colours, agreed
    upon by both sides; of 4:2:0, each colour sample is in the middle of its four pixels. The
    quality is minus the constant rate factor, so that more is better.

    Args:
        standard: ``H.264`` or ``H.265``.
        subsampling: of the colours, ``4:2:0`` or ``4:4:4``.
        preset: effort of the encoder.
        tune: what the encoder aims at, such as ``psnr`` or ``ssim``; its default if empty.
        colour_offset: of the colours' quantiser against that of the brightness.
        qualities: settings, -51 to 0.

    Raises:
        ValueError: an unknown standard or subsampling.
    """

    def __init__(
        self,
        standard: str,
        subsampling: str = '4:2:0',
        preset: str = VIDEO_PRESET,
        tune: str = '',
        colour_offset: int = 0,
        qualities: Sequence[int] = (-51, -48, -45, -42, -39, -36, -32, -28, -24, -18),
    ) -> None:
        if standard not in _STANDARDS:
            raise ValueError(f'{standard} is not one of {", ".join(_STANDARDS)}')
        _check_subsampling(subsampling)
        self.name = f'{standard} intra {subsampling}'
        self.qualities = tuple(qualities)
        self._standard = _STANDARDS[standard]
        self._half = subsampling == '4:2:0'
        self._options = {'preset': preset, **self._standard.encoder_options(colour_offset)}
        if tune:
            self._options['tune'] = tune
        self.effort = {'preset': preset, 'tune': tune, 'colour_offset': colour_offset}
        self._parameters = lru_cache(_TEMPLATES)(self._make_parameters)

    def encode(self, image: Picture, quality: int) -> bytes:
        """Encode, see :meth:`ImageCodec.encode`; quality -51 to 0."""
        parameters, coded = self._encode(image, quality)
        if parameters != self._parameters((image.shape[0], image.shape[1]), quality):
            raise ValueError(f'{self.name}: the parameter sets depend on the image')
        return b'\0\0\1'.join(coded)

    def decode(self, data: bytes, size: Size, quality: int) -> Picture:
        """Decode, see :meth:`ImageCodec.decode`."""
        import av

        height, width = size
        context = _video_context(self._standard.decoder, 'r')
        stream = b''.join(
            b'\0\0\0\1' + unit for unit in (*self._parameters((height, width), quality), data)
        )
        try:
            frames = [*context.decode(av.Packet(stream)), *context.decode(None)]
        except av.FFmpegError as error:
            raise ValueError(f'{self.name}: the data does not decode: {error}') from error
        if len(frames) != 1:
            raise ValueError(f'{self.name}: {len(frames)} images decoded, one expected')
        planes = frames[0].to_ndarray(format='yuv420p' if self._half else 'yuv444p')
        planes = planes.astype(np.uint8, copy=False)
        picture = _planes_to_bgr(planes, self._padded(size), self._half)
        return picture[:height, :width].copy()

    def _padded(self, size: Size) -> Size:
        if not self._half:
            return size[0], size[1]
        return size[0] + size[0] % 2, size[1] + size[1] % 2

    def _encode(self, image: Picture, quality: int) -> tuple[tuple[bytes, ...], list[bytes]]:
        """Return the parameter sets and the units with coded pixels."""
        import av

        height, width = self._padded((image.shape[0], image.shape[1]))
        bottom, right = height - image.shape[0], width - image.shape[1]
        padded = np.pad(image, ((0, bottom), (0, right), (0, 0)), mode='edge')
        pixels = 'yuv420p' if self._half else 'yuv444p'
        frame = av.VideoFrame.from_ndarray(_bgr_to_planes(padded, self._half), format=pixels)
        frame.pts = 0
        context = _video_context(self._standard.encoder, 'w')
        context.width, context.height, context.pix_fmt = width, height, pixels
        context.time_base = Fraction(1, 25)
        context.options = {**self._options, 'crf': str(-quality)}
        stream = b''.join(bytes(p) for p in (*context.encode(frame), *context.encode(None)))
        units = split_units(stream)
        standard = self._standard
        return (
            tuple(unit for unit in units if standard.is_parameters(unit)),
            [unit for unit in units if standard.is_coded(unit)],
        )

    def _make_parameters(self, size: Size, quality: int) -> tuple[bytes, ...]:
        return self._encode(_blank(size), quality)[0]


class DownscalingCodec(ImageCodec):
    """Another codec, its images made smaller before they are sent.

    What a sender does who knows the size of the network's input: pixels that the receiver would
    throw away are not sent. At few bytes still smaller images are better, since the detector
    then gets fewer pixels, but truer ones. Images that are no larger are left as they are.

    Args:
        codec: the codec.
        network_size: from the height and width of an image to those of the network's input
            without padding; :func:`msfc.evaluation.variants.network_size` makes it.
        scale: of the sides that are sent, against the network's.

    Raises:
        ValueError: a scale that is not positive.
    """

    def __init__(
        self, codec: ImageCodec, network_size: Callable[[Size], Size], scale: float = 1.0
    ) -> None:
        if not scale > 0:
            raise ValueError(f'a scale must be positive, not {scale}')
        self.name = f'{codec.name}, {100 * scale:g} % of the input'
        self.qualities, self.effort = codec.qualities, codec.effort
        self._codec, self._network_size, self._scale = codec, network_size, scale

    def sent_size(self, size: Size) -> Size:
        """Return height and width of what is sent for an image of this size."""
        network = self._network_size(size)
        height, width = (max(1, round(side * self._scale)) for side in network)
        return (height, width) if height * width < size[0] * size[1] else size

    def encode(self, image: Picture, quality: int) -> bytes:
        """Make smaller by area averaging and encode, see :meth:`ImageCodec.encode`."""
        size = (image.shape[0], image.shape[1])
        height, width = self.sent_size(size)
        if (height, width) != size:
            small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            image = small.astype(np.uint8, copy=False)
        return self._codec.encode(image, quality)

    def decode(self, data: bytes, size: Size, quality: int) -> Picture:
        """Decode to the size that was sent; ``size`` is the source's.

        The detector takes the small image as it would any, and its results are scaled to the
        source.
        """
        return self._codec.decode(data, self.sent_size(size), quality)


def find_codecs(
    subsamplings: Sequence[str] = SUBSAMPLINGS,
    avif_speed: int = AVIF_SPEED,
    preset: str = VIDEO_PRESET,
) -> tuple[list[ImageCodec], dict[str, str]]:
    """Return the codecs that this machine has, and why others are missing.

    Args:
        subsamplings: of the colours, ``4:2:0``, ``4:4:4``, or both.
        avif_speed: of AVIF's encoder, 0 to 10: slower is smaller.
        preset: of the encoders of H.264 and H.265.

    Returns:
        The codecs, and for each missing one a reason in words.
    """
    codecs: list[ImageCodec] = [JpegCodec(kind) for kind in subsamplings]
    missing: dict[str, str] = {}
    if '4:2:0' in subsamplings:  # lossy WebP has nothing else
        if features.check('webp'):
            codecs.append(
                PillowCodec('WebP', (0, 2, 5, 10, 20, 30, 45, 60, 75, 85, 95), method=6)
            )
        else:
            missing['WebP'] = 'this Pillow was built without it'
    if features.check('avif'):
        codecs += [
            PillowCodec(
                'AVIF', (2, 6, 10, 15, 20, 26, 32, 40, 50, 60, 75), kind,
                subsampling=kind, speed=avif_speed, max_threads=1, autotiling=False,
                codec='aom', advanced={'tune': 'ssim'},
            )
            for kind in subsamplings
        ]
    else:
        missing['AVIF'] = 'this Pillow was built without it'
    for standard in _STANDARDS:
        reason = _why_no_encoder(standard)
        if reason:
            missing[standard] = reason
        else:
            for kind in subsamplings:
                offset = H265_COLOUR_OFFSET if standard == 'H.265' else 0
                codecs.append(VideoIntraCodec(standard, kind, preset, 'ssim', offset))
    return codecs, missing


def _why_no_encoder(standard: str) -> str:
    if importlib.util.find_spec('av') is None:
        return 'PyAV is not installed (pip install av)'
    import av

    encoder = _STANDARDS[standard].encoder
    return '' if encoder in av.codecs_available else f'this PyAV was built without {encoder}'


def codec_versions() -> dict[str, str]:
    """Return the versions of what encodes, by name: others may give other bytes."""
    versions = {'OpenCV': cv2.__version__, 'Pillow': pillow_version}
    for name in ('webp', 'avif'):
        if features.check(name):
            versions[name] = str(features.version(name))
    if importlib.util.find_spec('av') is not None:
        import av

        versions['PyAV'] = av.__version__
    return versions


def smallest_jpeg(image: Picture, quality: int, options: Sequence[int] = ()) -> bytes:
    """Return the shorter of optimised baseline and progressive JPEG; they decode alike.

    Args:
        image: H x W x 3 BGR or H x W grey, uint8.
        quality: 0 to 100.
        options: further parameters of ``cv2.imencode``.

    Raises:
        ValueError: the image is larger than JPEG allows, 65,500 pixels a side.
    """
    best: bytes | None = None
    for progressive in (0, 1):
        parameters = [
            cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1,
            cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, *options,
        ]
        try:
            fine, data = cv2.imencode('.jpg', image, parameters)
        except cv2.error as error:
            raise ValueError(f'JPEG cannot hold an image of {image.shape}: {error}') from error
        if not fine:
            raise ValueError(f'JPEG cannot hold an image of {image.shape}')
        if best is None or len(data) < len(best):
            best = data.tobytes()
    assert best is not None
    return best


def read_picture(data: bytes, flags: int) -> Picture:
    """Decode an image file in memory by OpenCV.

    Args:
        data: the file.
        flags: such as ``cv2.IMREAD_COLOR``.

    Raises:
        ValueError: it is not an image.
    """
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if picture is None:
        raise ValueError('the data is not an image')
    return picture.astype(np.uint8, copy=False)


def _video_context(name: str, mode: Literal['r', 'w']) -> VideoCodecContext:
    """Return FFmpeg's encoder (w) or decoder (r) of a name, to work in this thread."""
    import av

    context = av.CodecContext.create(name, mode)
    assert isinstance(context, av.VideoCodecContext)
    context.thread_count = 1
    return context


_LUMA_WEIGHTS = (0.0722, 0.7152, 0.2126)  # of B, G, R in BT.709
_TO_PLANES = np.array(
    [
        _LUMA_WEIGHTS,
        [(1 - 0.0722) / 1.8556, -0.7152 / 1.8556, -0.2126 / 1.8556],
        [-0.0722 / 1.5748, -0.7152 / 1.5748, (1 - 0.2126) / 1.5748],
    ],
    np.float32,
)
_FROM_PLANES = np.linalg.inv(_TO_PLANES.astype(np.float64)).astype(np.float32)


def _bgr_to_planes(image: Picture, half: bool) -> Picture:
    """Return Y, Cb and Cr of BT.709, full range, as PyAV has them in one array.

    Args:
        image: H x W x 3 BGR.
        half: whether the colours have half the sides, which are then even.
    """
    height, width = image.shape[:2]
    planes = cv2.transform(image.astype(np.float32), _TO_PLANES).astype(np.float32, copy=False)
    planes += np.array([0, 128, 128], np.float32)
    if not half:
        return _to_bytes(planes.transpose(2, 0, 1))
    colours = cv2.resize(
        planes[..., 1:], (width // 2, height // 2), interpolation=cv2.INTER_AREA
    )
    flat = [planes[..., 0].ravel(), colours[..., 0].ravel(), colours[..., 1].ravel()]
    return _to_bytes(np.concatenate(flat).reshape(height * 3 // 2, width))


def _planes_to_bgr(planes: Picture, size: Size, half: bool) -> Picture:
    """Return the image of what :func:`_bgr_to_planes` makes."""
    height, width = size
    if half:
        flat = planes.ravel()
        luma = flat[: height * width].reshape(height, width)
        small = flat[height * width :].reshape(2, height // 2, width // 2).transpose(1, 2, 0)
        colours = cv2.resize(
            small.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR
        )
    else:
        luma, colours = planes[0], planes[1:].transpose(1, 2, 0).astype(np.float32)
    whole = np.dstack([luma.astype(np.float32), colours - 128])
    return _to_bytes(cv2.transform(whole, _FROM_PLANES))


def _to_bytes(values: NDArray[Any]) -> Picture:
    """Round to 0 to 255."""
    return np.ascontiguousarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _blank(size: Size) -> Picture:
    return np.zeros((*size, 3), np.uint8)


def _check_sent(name: str, sent: bytes, file: bytes, restored: bytes) -> bytes:
    """Return what is sent, if the receiver can make the whole file of it."""
    if restored != file:
        raise ValueError(f'{name}: what is left out of the file depends on the image')
    return sent


def _check_size(picture: Picture, size: Size) -> Picture:
    if picture.shape[:2] != tuple(size):
        raise ValueError(f'an image of {picture.shape[:2]} was decoded, {tuple(size)} expected')
    return picture


def _check_subsampling(subsampling: str) -> None:
    if subsampling not in SUBSAMPLINGS:
        raise ValueError(f'{subsampling} is not one of {", ".join(SUBSAMPLINGS)}')

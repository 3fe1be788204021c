"""The codecs that a user would send camera images with: real encoders, real bytes.

Each codec encodes one image by itself, as the compressed features do, at the settings that give
the fewest bytes for a quality: optimised and progressive Huffman coding for JPEG, the slowest
method for WebP, and for H.264 and H.265 one intra frame without a container and without the
encoder's signature, at a slow preset. Only AVIF has its library's default of speed, see
:data:`AVIF_SPEED`. Where 4:2:0 and 4:4:4 are to be had, both are codecs of their own: which is
better depends on the quality.

JPEG comes from OpenCV, WebP and AVIF from Pillow, which has more of their settings, H.264 and
H.265 from the ``ffmpeg`` program. What this machine lacks is named by :func:`find_codecs`.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, features
from PIL import __version__ as pillow_version

from msfc.types import Size

Picture = NDArray[np.uint8]
"""H x W x 3 uint8, BGR."""

SUBSAMPLINGS = ('4:2:0', '4:4:4')

AVIF_SPEED = 6
"""Of AVIF's encoder, 0 to 10; the library's default.

On pictures of the tabletop world, 4 took 7 times as long for 12 to 17 % fewer bytes at equal PSNR.
"""


class ImageCodec(ABC):
    """A lossy image codec.

    Attributes:
        name: with its colour subsampling, such as ``JPEG 4:2:0``.
        qualities: settings from the least to the most bytes that cover what is useful.
    """

    name: str
    qualities: tuple[int, ...]

    @abstractmethod
    def encode(self, image: Picture, quality: int) -> bytes:
        """Encode an image by itself; the size of the result is what is sent.

        Args:
            image: H x W x 3 uint8 BGR.
            quality: in the codec's own measure.
        """

    @abstractmethod
    def decode(self, data: bytes, size: Size) -> Picture:
        """Decode what :meth:`encode` gave.

        Args:
            data: the bytes.
            size: height and width of the image, which the message's other fields carry.
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
        self._factor = (
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
            if subsampling == '4:2:0'
            else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        )

    def encode(self, image: Picture, quality: int) -> bytes:
        """Encode, see :meth:`ImageCodec.encode`; quality 0 to 100."""
        options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, self._factor]
        return smallest_jpeg(image, quality, options)

    def decode(self, data: bytes, size: Size) -> Picture:
        """Decode, see :meth:`ImageCodec.decode`."""
        return _check_size(read_picture(data, cv2.IMREAD_COLOR), size)


class PillowCodec(ImageCodec):
    """A codec of Pillow.

    Args:
        name: of the codec.
        kind: Pillow's name of the format.
        qualities: settings, 0 to 100.
        options: for ``Image.save``.
    """

    def __init__(self, name: str, kind: str, qualities: Sequence[int], **options: Any) -> None:
        self.name = name
        self.qualities = tuple(qualities)
        self._kind, self._options = kind, options

    def encode(self, image: Picture, quality: int) -> bytes:
        """Encode, see :meth:`ImageCodec.encode`; quality 0 to 100."""
        file = io.BytesIO()
        picture = Image.fromarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        picture.save(file, self._kind, quality=quality, **self._options)
        return file.getvalue()

    def decode(self, data: bytes, size: Size) -> Picture:
        """Decode, see :meth:`ImageCodec.decode`."""
        with Image.open(io.BytesIO(data)) as file:
            picture = np.asarray(file.convert('RGB'))
        return _check_size(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR).astype(np.uint8), size)


class FfmpegIntraCodec(ImageCodec):
    """One intra frame of H.264 (libx264) or H.265 (libx265), by the ``ffmpeg`` program.

    The stream has its parameter sets, so that it decodes alone, but no container, and no
    supplemental information such as the encoder's signature. Full-range BT.709 colours, agreed
    upon by both sides. The quality is minus the constant rate factor, so that more is better.

    Args:
        standard: ``H.264`` or ``H.265``.
        subsampling: of the colours, ``4:2:0`` or ``4:4:4``.
        preset: effort of the encoder.
        program: path of ``ffmpeg``.
        timeout: seconds after which a hanging program is ended.
    """

    qualities = (-50, -46, -42, -38, -34, -30, -26, -22, -18)

    def __init__(
        self,
        standard: str,
        subsampling: str = '4:2:0',
        preset: str = 'slower',
        program: str = 'ffmpeg',
        timeout: float = 60.0,
    ) -> None:
        if standard not in _ENCODERS:
            raise ValueError(f'{standard} is not one of {", ".join(_ENCODERS)}')
        _check_subsampling(subsampling)
        self.name = f'{standard} intra {subsampling}'
        self._encoder = _ENCODERS[standard]
        self._pixels = {'4:2:0': 'yuv420p', '4:4:4': 'yuv444p'}[subsampling]
        self._even = 2 if subsampling == '4:2:0' else 1
        self._preset, self._program, self._timeout = preset, program, timeout

    def encode(self, image: Picture, quality: int) -> bytes:
        """Encode, see :meth:`ImageCodec.encode`; quality -51 to 0."""
        padded = _pad(image, self._even)
        height, width = padded.shape[:2]
        encoder = self._encoder
        return self._run(
            [
                '-f', 'rawvideo', '-pix_fmt', 'bgr24', '-s', f'{width}x{height}', '-i', '-',
                '-vf', f'{_scale("out")},format={self._pixels}',
                '-frames:v', '1', '-c:v', encoder.library, '-preset', self._preset,
                '-crf', str(-quality), '-color_range', 'pc', *encoder.options,
                '-bsf:v', f'filter_units=remove_types={encoder.supplemental}',
                '-f', encoder.format, '-',
            ],
            padded.tobytes(),
        )

    def decode(self, data: bytes, size: Size) -> Picture:
        """Decode, see :meth:`ImageCodec.decode`."""
        height, width = (-(-side // self._even) * self._even for side in size)
        raw = self._run(
            [
                '-f', self._encoder.format, '-i', '-', '-frames:v', '1',
                '-vf', f'{_scale("in")},format=bgr24', '-f', 'rawvideo', '-',
            ],
            data,
        )
        if len(raw) != 3 * height * width:
            raise ValueError(
                f'{self.name}: {len(raw)} bytes decoded, {3 * height * width} expected'
            )
        picture = np.frombuffer(raw, np.uint8).reshape(height, width, 3)
        return picture[: size[0], : size[1]].copy()

    def _run(self, options: list[str], data: bytes) -> bytes:
        command = [
            self._program, '-hide_banner', '-loglevel', 'error', '-nostdin', '-threads', '1',
        ]
        command += [*options[:-1], '-threads', '1', options[-1]]
        try:
            done = subprocess.run(
                command, input=data, capture_output=True, timeout=self._timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(
                f'{self.name}: no answer from ffmpeg in {self._timeout:g} s; run it again'
            ) from error
        if done.returncode or not done.stdout:
            message = done.stderr.decode(errors='replace').strip() or 'no output'
            raise ValueError(f'{self.name}: ffmpeg failed: {message}')
        return done.stdout


class DownscalingCodec(ImageCodec):
    """Another codec, its images made smaller before they are sent.

    What a sender does who knows the size of the network's input: pixels that the receiver would
    throw away are not sent. Images that are no larger are left as they are.

    Args:
        codec: the codec.
        network_size: from the height and width of an image to those of the network's input
            without padding; :func:`msfc.evaluation.variants.network_size` makes it.
    """

    def __init__(self, codec: ImageCodec, network_size: Callable[[Size], Size]) -> None:
        self.name = f'{codec.name}, downscaled'
        self.qualities = codec.qualities
        self._codec, self._network_size = codec, network_size

    def sent_size(self, size: Size) -> Size:
        """Return height and width of what is sent for an image of this size."""
        small = self._network_size(size)
        return small if small[0] * small[1] < size[0] * size[1] else size

    def encode(self, image: Picture, quality: int) -> bytes:
        """Make smaller by area averaging and encode, see :meth:`ImageCodec.encode`."""
        size = (image.shape[0], image.shape[1])
        height, width = self.sent_size(size)
        if (height, width) != size:
            small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            image = small.astype(np.uint8, copy=False)
        return self._codec.encode(image, quality)

    def decode(self, data: bytes, size: Size) -> Picture:
        """Decode to the size that was sent; ``size`` is the source's.

        The detector takes the small image as it is, and its results are scaled to the source.
        """
        return self._codec.decode(data, self.sent_size(size))


def find_codecs(
    subsamplings: Sequence[str] = SUBSAMPLINGS, avif_speed: int = AVIF_SPEED
) -> tuple[list[ImageCodec], dict[str, str]]:
    """Return the codecs that this machine has, and why others are missing.

    Args:
        subsamplings: of the colours, ``4:2:0``, ``4:4:4``, or both.
        avif_speed: of AVIF's encoder, 0 to 10: slower is smaller.

    Returns:
        The codecs, and for each missing one a reason in words.
    """
    codecs: list[ImageCodec] = [JpegCodec(kind) for kind in subsamplings]
    missing: dict[str, str] = {}
    if '4:2:0' in subsamplings:  # lossy WebP has nothing else
        if features.check('webp'):
            codecs.append(
                PillowCodec('WebP', 'WEBP', (0, 2, 5, 10, 20, 30, 45, 60, 75, 85, 95), method=6)
            )
        else:
            missing['WebP'] = 'this Pillow was built without it'
    if features.check('avif'):
        codecs += [
            PillowCodec(
                f'AVIF {kind}', 'AVIF', (0, 5, 10, 18, 26, 35, 45, 55, 65, 75, 85),
                subsampling=kind, speed=avif_speed, max_threads=1, autotiling=False,
            )
            for kind in subsamplings
        ]
    else:
        missing['AVIF'] = 'this Pillow was built without it'
    program = shutil.which('ffmpeg')
    encoders = _ask_ffmpeg(program, '-encoders') if program else ''
    for standard, encoder in _ENCODERS.items():
        if program is None:
            missing[standard] = 'there is no ffmpeg on the PATH'
        elif encoder.library not in encoders:
            missing[standard] = f'{program} was built without {encoder.library}'
        else:
            codecs += [
                FfmpegIntraCodec(standard, kind, program=program) for kind in subsamplings
            ]
    return codecs, missing


def codec_versions() -> dict[str, str]:
    """Return the versions of what encodes, by name: others may give other bytes."""
    versions = {'OpenCV': cv2.__version__, 'Pillow': pillow_version}
    for name in ('webp', 'avif'):
        if features.check(name):
            versions[name] = str(features.version(name))
    program = shutil.which('ffmpeg')
    if program:
        versions['ffmpeg'] = _ask_ffmpeg(program, '-version').partition('\n')[0]
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


@dataclass(frozen=True)
class _Encoder:
    """What differs between the two encoders of ffmpeg.

    Attributes:
        library: ffmpeg's name of the encoder.
        format: ffmpeg's name of the bare stream.
        supplemental: types of the units that are not needed to decode (SEI).
        options: for one intra frame.
    """

    library: str
    format: str
    supplemental: str
    options: tuple[str, ...]


_ENCODERS = {
    'H.264': _Encoder('libx264', 'h264', '6', ('-g', '1')),
    'H.265': _Encoder(
        'libx265', 'hevc', '39-40',
        ('-x265-params', 'log-level=none:info=0:keyint=1:pools=none:frame-threads=1:wpp=0'),
    ),
}


def _scale(side: str) -> str:
    """Return ffmpeg's filter between BGR and full-range BT.709."""
    flags = 'lanczos+accurate_rnd+full_chroma_int+full_chroma_inp'
    return f'scale={side}_color_matrix=bt709:{side}_range=pc:flags={flags}'


def _ask_ffmpeg(program: str, question: str) -> str:
    try:
        done = subprocess.run(
            [program, '-hide_banner', question],
            capture_output=True, timeout=20, check=False, stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ''
    return done.stdout.decode(errors='replace')


def _pad(image: Picture, multiple: int) -> Picture:
    """Repeat the last row and column until both sides are multiples."""
    bottom, right = (-side % multiple for side in image.shape[:2])
    if not (bottom or right):
        return np.ascontiguousarray(image)
    return np.pad(image, ((0, bottom), (0, right), (0, 0)), mode='edge')


def _check_size(picture: Picture, size: Size) -> Picture:
    if picture.shape[:2] != tuple(size):
        raise ValueError(f'an image of {picture.shape[:2]} was decoded, {tuple(size)} expected')
    return picture


def _check_subsampling(subsampling: str) -> None:
    if subsampling not in SUBSAMPLINGS:
        raise ValueError(f'{subsampling} is not one of {", ".join(SUBSAMPLINGS)}')

"""The space that compressed features take in a bag, beside video and images of the same frames.

The frames of a clip go through the model's sender into a bag, as ``msfc bag record`` writes it,
and as images and video through the encoders that a robot would use. All bytes are measured; a
day is the frame rate times 86,400 s of what was measured.

    python benchmarks/bag_space.py --json bag_space.json

Video is one stream of all frames by ffmpeg, H.264 and H.265, without B frames as for live video,
at the given constant rate factors (23 is libx264's default; more is smaller and worse). It is a
stream without a container, which favours it. The shipped clip has three shots: two key frames more
than one shot of the same length.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rosbags.rosbag2 import Reader

import harness
from msfc.bags.conversion import features_message
from msfc.bags.definitions import FEATURES, serialize, typestore
from msfc.bags.writing import BagWriter
from msfc.model_file import load_model
from msfc.pipeline.torch_network import edge_pipeline
from msfc.zoo import DEFAULT_MODEL

Picture = NDArray[np.uint8]

CLIP = Path(__file__).resolve().parents[1] / 'src' / 'msfc_sim' / 'clips' / 'tabletop'
IMAGES = 'sensor_msgs/msg/CompressedImage'
FRAME = 'camera_optical_frame'
START = 1_700_000_000 * 10**9
DAY = 86400
GROUP_SECONDS = 2
"""Seconds between key frames of a video, so that one can join or go on after a loss."""


@dataclass(frozen=True)
class Space:
    """What one way of keeping the frames takes.

    Attributes:
        name: of the way.
        frame_bytes: bytes per frame.
        day_bytes: bytes of a day.
        minutes: how much of it fits into the space of a day of features, in minutes.
    """

    name: str
    frame_bytes: float
    day_bytes: float
    minutes: float


def read_frames(path: Path) -> list[Picture]:
    """Return the pictures of a clip, without ROS."""
    frames = []
    with Reader(path) as reader:
        wanted = [c for c in reader.connections if c.msgtype == IMAGES]
        for connection, _, data in reader.messages(wanted):
            message = typestore().deserialize_cdr(data, connection.msgtype)
            picture = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
            if picture is None:
                raise ValueError(f'{path} has a damaged picture')
            frames.append(picture.astype(np.uint8, copy=False))
    if not frames:
        raise ValueError(f'{path} has no pictures of type {IMAGES}')
    return frames


def bag_bytes(path: Path, kind: str, contents: Iterable[bytes], rate: float) -> int:
    """Write serialised messages into a bag as the recorder does; return its size in bytes."""
    flushed = START
    with BagWriter(path) as writer:
        writer.add_topic('/topic', kind)
        for index, data in enumerate(contents):
            now = START + int(index / rate * 1e9)
            writer.write('/topic', now, data)
            if now - flushed > 2e9:  # as in real time
                writer.flush()
                flushed = now
    return sum(file.stat().st_size for file in path.glob('*.mcap'))


def feature_contents(model: str, frames: Sequence[Picture], rate: float) -> list[bytes]:
    """Return the messages of the frames."""
    edge = edge_pipeline(load_model(model))
    return [
        serialize(
            features_message(
                edge.encode(frame, index), START + int(index / rate * 1e9), FRAME
            ),
            FEATURES,
        )
        for index, frame in enumerate(frames)
    ]


def jpeg_contents(frames: Sequence[Picture], quality: int) -> list[bytes]:
    """Return the frames as CompressedImage messages, as image_transport makes them."""
    types = typestore().types
    header = types['std_msgs/msg/Header'](
        stamp=types['builtin_interfaces/msg/Time'](sec=0, nanosec=0), frame_id=FRAME
    )
    return [
        serialize(
            types[IMAGES](
                header=header,
                format='bgr8; jpeg compressed bgr8',
                data=cv2.imencode('.jpg', frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1],
            ),
            IMAGES,
        )
        for frame in frames
    ]


def video_bytes(frames: Sequence[Picture], library: str, quality: int, rate: float) -> int:
    """Return the bytes of all frames as one video stream.

    Args:
        frames: H x W x 3 uint8 BGR, of one size.
        library: ffmpeg's encoder.
        quality: constant rate factor.
        rate: frames per second.
    """
    height, width = frames[0].shape[:2]
    command = [
        'ffmpeg', '-hide_banner', '-loglevel', 'error',
        '-f', 'rawvideo', '-pix_fmt', 'bgr24', '-s', f'{width}x{height}', '-r', str(rate),
        '-i', '-', '-pix_fmt', 'yuv420p', '-c:v', library, '-preset', 'medium',
        '-crf', str(quality), '-bf', '0', '-g', str(round(rate * GROUP_SECONDS)),
    ]
    if library == 'libx265':
        command += ['-x265-params', 'log-level=none']
    command += ['-f', {'libx264': 'h264', 'libx265': 'hevc'}[library], '-']
    done = subprocess.run(
        command, input=b''.join(frame.tobytes() for frame in frames), capture_output=True,
        check=False,
    )
    if done.returncode:
        raise ValueError(f'ffmpeg failed: {done.stderr.decode(errors="replace").strip()}')
    return len(done.stdout)


def measure(options: argparse.Namespace, console: Console) -> list[Space]:
    """Return what each way takes."""
    frames = read_frames(options.clip)
    rate = options.rate
    sizes: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        contents = feature_contents(options.model, frames, rate)
        sizes['features'] = bag_bytes(Path(folder) / 'features', FEATURES, contents, rate)
        for quality in options.jpeg:
            sizes[f'JPEG, quality {quality}'] = bag_bytes(
                Path(folder) / f'jpeg{quality}', IMAGES, jpeg_contents(frames, quality), rate
            )
    if shutil.which('ffmpeg'):
        for name, library in (('H.264', 'libx264'), ('H.265', 'libx265')):
            for quality in options.crf:
                sizes[f'{name} video, CRF {quality}'] = video_bytes(
                    frames, library, quality, rate
                )
    else:
        console.print('no ffmpeg on the PATH, so no video')
    sizes['raw images'] = float(sum(frame.nbytes for frame in frames))
    day = sizes['features'] / len(frames) * rate * DAY
    return [
        Space(
            name,
            size / len(frames),
            size / len(frames) * rate * DAY,
            day / (size / len(frames) * rate) / 60,
        )
        for name, size in sizes.items()
    ]


def show(spaces: Sequence[Space], rate: float, console: Console) -> None:
    """Print the table."""
    table = Table(
        'kept as', 'B a frame', 'GB a day', 'min in the space of a day of features',
        title=f'{rate:g} frames per second',
    )
    for column in table.columns[1:]:
        column.justify = 'right'
    for space in spaces:
        table.add_row(
            space.name, f'{space.frame_bytes:,.0f}', f'{space.day_bytes / 1e9:.2f}',
            f'{space.minutes:,.1f}',
        )
    console.print(table)


def run(options: argparse.Namespace, console: Console) -> harness.Figures:
    """Measure all ways, and show them."""
    spaces = measure(options, console)
    show(spaces, options.rate, console)
    return {'rate': options.rate, 'ways': [asdict(space) for space in spaces]}


def main() -> int:
    """Run from the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument('--model', default=DEFAULT_MODEL, help='name or directory')
    parser.add_argument('--clip', type=Path, default=CLIP, help='bag of CompressedImage')
    parser.add_argument('--rate', type=float, default=10.0, help='frames per second (default 10)')
    parser.add_argument('--crf', type=int, nargs='*', default=[23, 28, 33, 38])
    parser.add_argument('--jpeg', type=int, nargs='*', default=[90, 50])
    options = parser.parse_args()
    return 0 if harness.run_benchmark(options, run) else 1


if __name__ == '__main__':
    sys.exit(main())

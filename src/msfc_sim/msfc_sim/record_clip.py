"""Command that records the clip of a moving camera that ships with the project."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from msfc.output import check_output_folder
from msfc.simulation.objects import CLASS_NAMES
from msfc.simulation.path import Shot
from msfc_ros.image_to_message import to_bytes_field
from msfc_sim.clip import ClipFrame, write_clip
from msfc_sim.messages import SCENE_IDS, camera_info_message, ground_truth_message

SCENES = (9, 0, 11)
"""Scenes of the shipped clip: together they show eleven of the twelve classes."""

FRAMES_PER_SHOT = 20
QUALITY = 79
RATE = 10
FRAME_ID = 'camera_optical_frame'


def record(
    scenes: Sequence[int], count: int, quality: int, width: int = 640, height: int = 480
) -> Iterator[ClipFrame]:
    """Film one shot of each scene of the split ``clip``, which nothing is trained on.

    Args:
        scenes: their indices.
        count: frames of each shot.
        quality: of the JPEG images, 1 to 100.
        width: of the images in pixels.
        height: of the images in pixels.
    """
    number = 0
    for index, scene in enumerate(scenes):
        shot = Shot('clip', scene, width, height)
        for frame in shot.frames(count):
            # From second 1 on, as ROS takes the time 0 for none.
            second, rest = divmod(number, RATE)
            stamp = Time(sec=1 + second, nanosec=rest * 10**9 // RATE)
            header = Header(stamp=stamp, frame_id=FRAME_ID)
            bgr = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
            jpeg = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            yield ClipFrame(
                CompressedImage(
                    header=header, format='bgr8; jpeg compressed bgr8', data=to_bytes_field(jpeg)
                ),
                camera_info_message(header, (height, width), shot.fovy),
                ground_truth_message(
                    frame.labels,
                    frame.masks,
                    header,
                    (height, width),
                    CLASS_NAMES,
                    [index * SCENE_IDS + identity for identity in frame.identities],
                ),
            )
            number += 1


def main(args: Sequence[str] | None = None) -> None:
    """Record a clip as the command line says."""
    parser = argparse.ArgumentParser(prog='record_clip', description=__doc__)
    parser.add_argument('output', type=Path, help='folder to make')
    parser.add_argument(
        '--scenes', type=int, nargs='+', default=SCENES, help='scenes of the split clip'
    )
    parser.add_argument(
        '--frames', type=int, default=FRAMES_PER_SHOT, help='frames of each shot'
    )
    parser.add_argument('--quality', type=int, default=QUALITY, help='of the JPEG images')
    parser.add_argument('--width', type=int, default=640, help='of the images in pixels')
    parser.add_argument('--height', type=int, default=480, help='of the images in pixels')
    options = parser.parse_args(args)
    frames = record(
        options.scenes, options.frames, options.quality, options.width, options.height
    )
    try:
        check_output_folder(options.output)
        count = write_clip(options.output, frames)
    except (ValueError, OSError) as error:
        sys.exit(f'record_clip: {error}')
    size = sum(path.stat().st_size for path in options.output.iterdir())
    print(f'{options.output}: {count} frames, {size / 1e6:.2f} MB')

"""Makes the moving picture of README: the demo's clip, and what the cloud's half finds in it.

Usage, after ``source scripts/env.sh``::

    python scripts/readme_picture.py [--model tabletop] [--rate 5] [--output FILE]

The right half is drawn from packets alone, on a dark canvas, as the cloud node draws its overlay.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline
from msfc.pipeline.tracking import InstanceTracker
from msfc.visualization import draw_instances
from msfc.wire.message_size import compressed_feature_bytes
from msfc_sim.clip import read_clip, shipped_clip

OUTPUT = Path(__file__).resolve().parent.parent / 'docs' / 'images' / 'demo.webp'
WIDTH, CAPTION = 420, 34
"""Of one half, and of the line of text over it, in pixels."""
CANVAS, PAPER, INK = 48, 24, (235, 235, 235)
THRESHOLD = 0.5
FRAME_MS = 110


def half(image: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """Return an image at the width of a half, with a line of text on top; BGR."""
    height = round(image.shape[0] * WIDTH / image.shape[1])
    small = cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_AREA)
    caption = np.full((CAPTION, WIDTH, 3), PAPER, np.uint8)
    cv2.putText(caption, text, (10, 23), cv2.FONT_HERSHEY_DUPLEX, 0.5, INK, 1, cv2.LINE_AA)
    return np.vstack([caption, small]).astype(np.uint8)


def frames(model_name: str, rate: int | None) -> list[Image.Image]:
    """Return the pictures, one for each frame of the clip."""
    model = load_model(model_name)
    edge, cloud, tracker = edge_pipeline(model, rate), CloudPipeline(model), InstanceTracker()
    pictures = []
    for frame in read_clip(shipped_clip()):
        image = frame.decode()
        packet = edge.encode(image)
        found = cloud.decode(packet).instances
        stamp = frame.image.header.stamp
        found = tracker.track(
            found, stamp.sec * 10**9 + stamp.nanosec, (image.shape[0], image.shape[1])
        ).above(THRESHOLD)
        canvas = np.full_like(image, CANVAS)
        sent = compressed_feature_bytes(len(packet.data))
        pair = np.hstack([
            half(image, f'robot: camera, {image.nbytes:,} bytes'),
            half(
                draw_instances(canvas, found, model.class_names),
                f'GPU machine: found in a message of {sent:,} bytes',
            ),
        ])
        pictures.append(Image.fromarray(cv2.cvtColor(pair, cv2.COLOR_BGR2RGB)))
    return pictures


def main() -> None:
    """Read the command line, write the picture and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument('--model', default='tabletop')
    parser.add_argument('--rate', type=int)
    parser.add_argument('--output', type=Path, default=OUTPUT)
    given = parser.parse_args()
    first, *rest = frames(given.model, given.rate)
    first.save(
        given.output, save_all=True, append_images=rest, duration=FRAME_MS, loop=0, quality=60,
        method=4,
    )
    print(f'{given.output}: {len(rest) + 1} frames, {given.output.stat().st_size:,} bytes')


if __name__ == '__main__':
    main()

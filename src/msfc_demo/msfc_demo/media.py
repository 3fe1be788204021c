"""The demo's pictures: a contact sheet and a short clip of camera and masks side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from msfc.visualization import draw_instances
from msfc_demo.metrics import ShownFrame
from msfc_demo.monitor import decode_jpeg
from msfc_demo.sample import middles
from msfc_ros.messages import instances_from_message

SHEET_FRAMES = 6
SHEET_COLUMNS = 2
SHEET_TILE = (320, 240)
"""Width and height of one picture on the contact sheet in pixels."""

CLIP_TILE = (640, 480)
CLIP_RATE = 10
"""Frames per second of the clip: that of the recorded camera."""

CAPTION_HEIGHT = 26
GAP = 6
PAPER, INK = 250, (40, 40, 40)


def side_by_side(
    frame: ShownFrame, number: int, class_names: Sequence[str], tile: tuple[int, int]
) -> np.ndarray:
    """Return the camera's image and, to its right, the instances drawn onto it.

    Args:
        frame: the frame.
        number: of the frame, for the caption.
        class_names: names of the classes, by label.
        tile: width and height in pixels that each of the two is fitted into.

    Returns:
        H x W x 3, uint8, BGR, with a line of text on top.
    """
    image = decode_jpeg(frame.jpeg)
    drawn = draw_instances(image, instances_from_message(frame.found), class_names)
    height, width = image.shape[:2]
    scale = min(tile[0] / width, tile[1] / height)
    size = (round(width * scale), round(height * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    gap = np.full((size[1], GAP, 3), PAPER, np.uint8)
    pair = np.hstack([cv2.resize(image, size, interpolation=way), gap,
                      cv2.resize(drawn, size, interpolation=way)])
    caption = np.full((CAPTION_HEIGHT, pair.shape[1], 3), PAPER, np.uint8)
    _write(caption, f'camera, frame {number}', 4)
    _write(
        caption,
        f'cloud, from {frame.sent.message_bytes:,} bytes (JPEG q90: {len(frame.jpeg):,})',
        size[0] + GAP + 4,
    )
    return np.vstack([caption, pair])


def _write(picture: np.ndarray, text: str, x: int) -> None:
    cv2.putText(
        picture, text, (x, CAPTION_HEIGHT - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA
    )


def write_contact_sheet(
    path: Path, frames: Sequence[ShownFrame], class_names: Sequence[str]
) -> None:
    """Write several frames, evenly chosen, as one picture."""
    count = min(SHEET_FRAMES, len(frames))
    chosen = middles(len(frames), count)
    pairs = [side_by_side(frames[k], k + 1, class_names, SHEET_TILE) for k in chosen]
    pairs = [
        cv2.copyMakeBorder(pair, GAP, GAP, GAP, GAP, cv2.BORDER_CONSTANT, value=(PAPER,) * 3)
        for pair in pairs
    ]
    while len(pairs) % SHEET_COLUMNS:
        pairs.append(np.full_like(pairs[0], PAPER))
    rows = [
        np.hstack(pairs[k : k + SHEET_COLUMNS]) for k in range(0, len(pairs), SHEET_COLUMNS)
    ]
    path.write_bytes(bytes(cv2.imencode(path.suffix, np.vstack(rows))[1]))


def write_video(
    folder: Path, name: str, frames: Sequence[ShownFrame], class_names: Sequence[str]
) -> Path:
    """Write all frames as a clip: MP4 where OpenCV can, else animated WebP.

    Returns:
        The file.
    """

    def pictures() -> Iterator[np.ndarray]:
        for k, frame in enumerate(frames):
            picture = side_by_side(frame, k + 1, class_names, CLIP_TILE)
            # Video codecs want even sides.
            height, width = picture.shape[:2]
            yield picture[: height // 2 * 2, : width // 2 * 2]

    first = next(pictures())
    path = folder / f'{name}.mp4'
    size = (first.shape[1], first.shape[0])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), CLIP_RATE, size)
    if writer.isOpened():
        for picture in pictures():
            writer.write(picture)
        writer.release()
        return path
    path.unlink(missing_ok=True)
    path = folder / f'{name}.webp'
    stills = [Image.fromarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)) for picture in pictures()]
    stills[0].save(
        path, save_all=True, append_images=stills[1:], duration=1000 // CLIP_RATE, loop=0
    )
    return path

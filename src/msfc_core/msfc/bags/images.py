"""Camera images of a bag, as files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import cv2

from msfc.bags.reading import BagError, FeatureBag
from msfc.progress import StageProgress, no_progress

KINDS = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')


def extract_images(
    bag: Path,
    folder: Path,
    topics: Sequence[str] = (),
    progress: StageProgress = no_progress,
    most: int = 0,
) -> Path:
    """Write the camera images of a bag as PNG files, in the order of their times.

    Args:
        bag: a bag folder, or a storage file.
        folder: to write into; images that are there are not written again.
        topics: only these; by default all of images.
        progress: shows how far it is.
        most: about so many of each kind of message, evenly spread; 0 for all.

    Returns:
        The folder.

    Raises:
        BagError: there is no such bag, or it has no image.
        OSError: an image cannot be written.
    """
    from rosbags.image import message_to_cvimage

    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for kind in KINDS:
        try:
            opened = FeatureBag(bag, topics, kind)
        except BagError:
            if kind == KINDS[-1] and not written:
                raise
            continue
        with opened as images:
            step = -(-sum(1 for _ in images.messages()) // most) if most else 1
            for message in islice(images.messages(), None, None, max(step, 1)):
                path = folder / f'{message.time:020d}{message.topic.replace("/", "_")}.png'
                written += 1
                if not path.is_file():
                    picture = message_to_cvimage(images.deserialize(message), 'bgr8')
                    partial = path.with_suffix('.partial.png')
                    if not cv2.imwrite(str(partial), picture):
                        raise OSError(f'{partial} cannot be written')
                    partial.replace(path)
                progress(written, written, 'images of the bag')
    if not written:
        raise BagError(f'{bag} has no images')
    return folder

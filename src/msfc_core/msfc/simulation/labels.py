"""Class labels of all pixels for a tabletop data set that is there: its scenes rendered again."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from msfc.data.coco import read_coco
from msfc.data.semantic import classes_file, label_file
from msfc.files import write_atomically
from msfc.simulation.dataset import check_world, scene_file
from msfc.simulation.scene import FRAMES_PER_SCENE, SPLITS, SURFACES, frames

MOST_DIFFERENT = 0.01
"""Share of an image's pixels that may be of an object here and not in the data set, or the other
way round: graphics drivers draw edges alike, but not equal."""


def write_labels(
    root: Path,
    split: str,
    images: int | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the class of each pixel of the first images of a split, as a grey image each.

    Layout: see :mod:`msfc.data.semantic`; classes are :data:`msfc.simulation.scene.SURFACES`.
    Labels that are already there are kept, so an interrupted run resumes.

    Args:
        root: folder that :func:`msfc.simulation.dataset.write_dataset` wrote.
        split: one of :data:`msfc.simulation.scene.SPLITS`.
        images: so many of its images; all by default.
        workers: processes; all cores by default.
        progress: called with (images done, images in all).

    Returns:
        The number of images with labels.

    Raises:
        FileNotFoundError: the split is not there.
        ValueError: the folder is of another world, or its images are not those that are rendered
            here.
    """
    if split not in SPLITS:
        raise ValueError(f'unknown split {split!r}: choose from {", ".join(SPLITS)}')
    check_world(root)
    annotations = root / 'annotations' / f'instances_{split}.json'
    there = len(read_coco(annotations)['images'])
    total = there if images is None else min(images, there)
    write_atomically(classes_file(root), json.dumps(SURFACES))
    scenes = range(-(-total // FRAMES_PER_SCENE))
    todo = [scene for scene in scenes if not _labels(root, split, scene)[-1].exists()]
    done = total - len(todo) * FRAMES_PER_SCENE
    # A fresh interpreter per worker: OpenGL contexts do not survive a fork.
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=context) as pool:
        try:
            jobs = [pool.submit(label_scene, root, split, scene) for scene in todo]
            for job in as_completed(jobs):
                job.result()
                done += FRAMES_PER_SCENE
                if progress:
                    progress(max(done, 0), total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return total


def label_scene(root: Path, split: str, scene: int) -> None:
    """Render a scene again and write the labels of its images.

    Raises:
        ValueError: the objects are not where the data set has them.
    """
    parts = json.loads(scene_file(root, split, scene).read_text())
    files = _labels(root, split, scene)
    for part, path, frame in zip(parts, files, frames(split, scene), strict=True):
        assert frame.surfaces is not None
        here = np.zeros(frame.surfaces.shape, bool)
        for mask in frame.masks:
            here |= mask
        known = np.zeros_like(here)
        for annotation in part['annotations']:
            known |= coco_mask.decode(annotation['segmentation']).astype(bool)
        if np.mean(here != known) > MOST_DIFFERENT:
            raise ValueError(
                f'{part["image"]["file_name"]} of {split} in {root} is another picture than the '
                'one that is rendered here: render the data set anew'
            )
        write_atomically(path, cv2.imencode('.png', frame.surfaces)[1].tobytes())


def _labels(root: Path, split: str, scene: int) -> list[Path]:
    """Return the files of a scene's labels, the last one being written last."""
    first = scene * FRAMES_PER_SCENE
    return [
        label_file(root, split, f'{number:06d}.png')
        for number in range(first, first + FRAMES_PER_SCENE)
    ]

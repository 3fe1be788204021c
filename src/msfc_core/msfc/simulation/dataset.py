"""Writes the tabletop world as a COCO data set: on all cores, resumable, reproducible by seed."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from msfc.files import write_atomically
from msfc.simulation.objects import CLASS_NAMES
from msfc.simulation.scene import (
    FRAMES_PER_SCENE,
    MIN_MASK_AREA,
    SPLITS,
    WORLD_VERSION,
    Frame,
    frames,
)

Annotation = dict[str, Any]


def annotate(frame: Frame) -> list[Annotation]:
    """Return a frame's objects as COCO annotations without ids.

    Category ids start at 1. Objects with fewer than ``MIN_MASK_AREA`` visible pixels are marked
    ``iscrowd``, which evaluation ignores.
    """
    annotations = []
    for label, mask in zip(frame.labels, frame.masks, strict=True):
        rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        area = int(mask.sum())
        annotations.append({
            'category_id': label + 1,
            'segmentation': {
                'size': [int(side) for side in rle['size']],
                'counts': rle['counts'].decode('ascii'),
            },
            'area': area,
            'bbox': [float(value) for value in coco_mask.toBbox(rle)],
            'iscrowd': int(area < MIN_MASK_AREA),
        })
    return annotations


def write_scene(root: Path, split: str, scene: int) -> None:
    """Render one scene: its images as PNG, then its annotations as the mark of completion."""
    folder = root / split
    parts = []
    for k, frame in enumerate(frames(split, scene)):
        name = f'{scene * FRAMES_PER_SCENE + k:06d}.png'
        encoded = cv2.imencode('.png', cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))[1]
        write_atomically(folder / name, encoded.tobytes())
        height, width = frame.image.shape[:2]
        parts.append({
            'image': {'file_name': name, 'height': height, 'width': width},
            'annotations': annotate(frame),
        })
    write_atomically(scene_file(root, split, scene), json.dumps(parts))


def scene_file(root: Path, split: str, scene: int) -> Path:
    """Return the file of a scene's annotations."""
    return root / 'scenes' / split / f'{scene:06d}.json'


def _merge(root: Path, split: str, images: int) -> Path:
    coco: dict[str, Any] = {
        'info': {
            'description': 'MSFC tabletop world',
            'version': WORLD_VERSION,
            'split': split,
        },
        'categories': [
            {'id': k + 1, 'name': name, 'supercategory': 'tabletop'}
            for k, name in enumerate(CLASS_NAMES)
        ],
        'images': [],
        'annotations': [],
    }
    for scene in range(-(-images // FRAMES_PER_SCENE)):
        for part in json.loads(scene_file(root, split, scene).read_text()):
            image_id = len(coco['images']) + 1
            if image_id > images:
                break
            coco['images'].append({'id': image_id, **part['image']})
            for annotation in part['annotations']:
                coco['annotations'].append({
                    'id': len(coco['annotations']) + 1, 'image_id': image_id, **annotation
                })
    path = root / 'annotations' / f'instances_{split}.json'
    write_atomically(path, json.dumps(coco))
    return path


def write_dataset(
    root: Path,
    counts: dict[str, int],
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Path]:
    """Write splits of the tabletop world as COCO data.

    Layout: ``<root>/<split>/NNNNNN.png`` and ``<root>/annotations/instances_<split>.json``.
    Scenes that are already there are kept, so an interrupted run resumes.

    Args:
        root: folder to write; made if missing.
        counts: images per split, of :data:`~msfc.simulation.scene.SPLITS`.
        workers: processes; all cores by default.
        progress: called with (images done, images in all).

    Returns:
        The annotation file of each split.

    Raises:
        ValueError: an unknown split, a negative count, or a folder with another world's scenes, or
            with a data set that this did not write.
    """
    _check_request(root, counts)
    write_atomically(_world_file(root), str(WORLD_VERSION))
    todo = []
    for split, count in counts.items():
        (root / split).mkdir(parents=True, exist_ok=True)  # also of no images
        for scene in range(-(-count // FRAMES_PER_SCENE)):
            if not scene_file(root, split, scene).exists():
                todo.append((root, split, scene))
    total = sum(-(-count // FRAMES_PER_SCENE) for count in counts.values()) * FRAMES_PER_SCENE
    done = total - len(todo) * FRAMES_PER_SCENE
    if progress:
        progress(done, total)
    # A fresh interpreter per worker: OpenGL contexts do not survive a fork.
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=context) as pool:
        try:
            for future in as_completed([pool.submit(write_scene, *job) for job in todo]):
                future.result()
                done += FRAMES_PER_SCENE
                if progress:
                    progress(done, total)
        except BaseException:
            # Else what failed is told when all the others are done.
            pool.shutdown(cancel_futures=True)
            raise
    return {split: _merge(root, split, count) for split, count in counts.items()}


def _world_file(root: Path) -> Path:
    return root / 'scenes' / 'world_version'


def _check_request(root: Path, counts: dict[str, int]) -> None:
    """Refuse what cannot be written, see :func:`write_dataset`."""
    for split, count in counts.items():
        if split not in SPLITS:
            raise ValueError(f'unknown split {split!r}: choose from {", ".join(SPLITS)}')
        if count < 0:
            raise ValueError(f'{split}: {count} images asked for; give 0 or more')
    if not _world_file(root).exists():
        _check_folder(root, counts)
    else:
        check_world(root)


def check_world(root: Path) -> None:
    """Refuse a folder whose scenes are not of this world.

    Raises:
        ValueError: it has none, or those of another version.
    """
    world = _world_file(root)
    if not world.is_file():
        raise ValueError(f'{root} was not made by msfc data tabletop')
    if world.read_text() != str(WORLD_VERSION):
        raise ValueError(
            f'{root} has scenes of world version {world.read_text()}, and this is version '
            f'{WORLD_VERSION}: name another folder'
        )


def _check_folder(root: Path, splits: Iterable[str]) -> None:
    """Refuse a folder with somebody else's data set.

    Raises:
        ValueError: images or annotations of a split are there.
    """
    for split in splits:
        for path in (root / split, root / 'annotations' / f'instances_{split}.json'):
            if path.is_file() or (path.is_dir() and any(path.iterdir())):
                raise ValueError(
                    f'{path} was not made by msfc data tabletop: choose another folder, or move '
                    'it away'
                )

"""A data set of a few small images, and an experiment that trains on it in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from pycocotools import mask as coco_mask

from msfc.model import SplitModel
from msfc.training.experiment import Experiment, Step
from msfc.training.trainer import build_model
from tiny import randomize_norm

HEIGHT, WIDTH = 80, 104
CATEGORIES = {3: 'cup', 7: 'ball'}
CLASS_NAMES = tuple(CATEGORIES.values())
SPLITS = {'train': 7, 'val': 3}


def write_split(root: Path, split: str, count: int, seed: int = 0) -> None:
    """Write images of squares (cups, as polygons) and discs (balls, as RLE) on noise.

    The last image has nothing but a crowd.
    """
    rng = np.random.default_rng([seed, len(split)])
    folder = root / split
    folder.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        image = rng.integers(0, 90, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        image_id = 10 * number + 5
        for category in CATEGORIES:
            size = int(rng.integers(24, 40))
            y, x = int(rng.integers(0, HEIGHT - size)), int(rng.integers(0, WIDTH - size))
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            if category == 3:
                mask[y:y + size, x:x + size] = 1
                corners = [x, y, x + size, y, x + size, y + size, x, y + size]
                segmentation: Any = [corners]
            else:
                centre = (x + size // 2, y + size // 2)
                cv2.circle(mask, centre, size // 2 - 1, 1, -1)
                rle = coco_mask.encode(np.asfortranarray(mask))
                segmentation = {'size': rle['size'], 'counts': rle['counts'].decode()}
            image[mask > 0] = (40, 200, 120) if category == 3 else (220, 90, 160)
            rows, columns = np.where(mask)
            crowd = number == count - 1
            if crowd:
                rle = coco_mask.encode(np.asfortranarray(mask))
                segmentation = {'size': rle['size'], 'counts': rle['counts'].decode()}
            annotations.append({
                'id': len(annotations) + 1,
                'image_id': image_id,
                'category_id': category,
                'bbox': [
                    int(columns.min()), int(rows.min()),
                    int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1,
                ],
                'segmentation': segmentation,
                'area': int(mask.sum()),
                'iscrowd': int(crowd),
            })
        name = f'{number:03d}.png'
        cv2.imwrite(str(folder / name), image)
        images.append({'id': image_id, 'file_name': name, 'height': HEIGHT, 'width': WIDTH})
    path = root / 'annotations' / f'instances_{split}.json'
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({
        'images': images,
        'annotations': annotations,
        'categories': [{'id': key, 'name': name} for key, name in CATEGORIES.items()],
    }))


def write_data(root: Path) -> Path:
    """Write all splits and return the folder."""
    for split, count in SPLITS.items():
        write_split(root, split, count)
    return root


def experiment_values(**changes: Any) -> dict[str, Any]:
    """Return the YAML values of a small experiment of three steps."""
    return {
        'detector': {
            'type': 'torchvision',
            'backbone': 'resnet18',
            'fpn_channels': 16,
            'box_head_channels': 16,
            'mask_head_layers': 1,
            'min_size': 64,
            'max_size': 96,
            'rpn_batch': 16,
            'rpn_pre_nms': 40,
            'rpn_post_nms': 20,
            'box_batch': 8,
            'max_detections': 5,
            'score_threshold': 0.0,
        },
        'codec': {'type': 'msfc', 'code_channels': 4, 'se_reduction': 4},
        'seed': 3,
        'val_images': 2,
        'steps': [
            {'name': 'detector', 'trains': 'detector', 'iterations': 2, 'batch_size': 2},
            {'name': 'msfc', 'trains': 'codec', 'iterations': 2, 'batch_size': 2,
             'feature_weight': 0.5},
            {'name': 'joint', 'trains': 'all', 'iterations': 3, 'batch_size': 2},
        ],
        **changes,
    }


def write_experiment(path: Path, **changes: Any) -> Path:
    """Write the small experiment and return its path."""
    path.write_text(yaml.safe_dump(experiment_values(**changes)))
    return path


def build_small_model(code_channels: int, seed: int = 0, trained: bool = True) -> SplitModel:
    """Return the experiment's model with random weights, in evaluation mode.

    Args:
        code_channels: C'.
        seed: of the weights.
        trained: whether the codec's norm has statistics, as after a training.
    """
    codec = {'type': 'msfc', 'code_channels': code_channels, 'se_reduction': 4}
    values = experiment_values(codec=codec, seed=seed)
    steps = tuple(Step(**step) for step in values.pop('steps'))
    with torch.random.fork_rng():
        model = build_model(Experiment(steps=steps, **values), CLASS_NAMES).eval()
        if trained:
            randomize_norm(model.codec)
        return model

r"""Draws ground truth, the unsplit detector and the model with its codec side by side.

    python benchmarks/side_by_side.py runs/few/joint --reference runs/few/detector_masks \
        --data datasets/few --split few --output side_by_side.jpg

The images stay under the terms of their data set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer

from msfc.cli.console import report_errors
from msfc.data import CocoDataset
from msfc.model_file import load_model
from msfc.types import Instances, Targets
from msfc.visualization import draw_instances

HEIGHT = 320  # of each picture, in pixels


def as_instances(targets: Targets) -> Instances:
    """Return ground truth as detections of score 1."""
    scores = torch.ones(len(targets.labels))
    return Instances(targets.boxes, scores, targets.labels, targets.masks)


def titled(picture: np.ndarray, title: str) -> np.ndarray:
    """Return a picture of the common height with a title above it."""
    width = round(picture.shape[1] * HEIGHT / picture.shape[0])
    picture = cv2.resize(picture, (width, HEIGHT), interpolation=cv2.INTER_AREA)
    bar = np.full((28, width, 3), 255, np.uint8)
    cv2.putText(bar, title, (6, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([bar, picture])


@report_errors()
def main(
    model: Annotated[str, typer.Argument(help='Model with codec.')],
    reference: Annotated[str, typer.Option(help='Model whose detector is drawn unsplit.')],
    data: Annotated[Path, typer.Option(help='Folder of a COCO-format data set.')],
    split: Annotated[str, typer.Option(help='Split to take images of.')] = 'test',
    output: Annotated[Path, typer.Option(help='Picture to write.')] = Path('side_by_side.jpg'),
    images: Annotated[int, typer.Option(help='How many, the first ones.', min=1)] = 4,
    threshold: Annotated[float, typer.Option(help='Least score drawn.', min=0, max=1)] = 0.5,
) -> None:
    """Draw a row per image."""
    coded, plain = load_model(model), load_model(reference)
    plain.codec = None
    dataset = CocoDataset(data, split)
    rows = []
    for index in range(min(images, len(dataset))):
        example = dataset[index]
        image = dataset.read_image(index)
        (unsplit,), (split_found,) = plain([example.image]), coded([example.image])
        codec = coded.require_codec()
        rate = codec.coder().rate_name(coded.rate)
        columns = {
            'ground truth': as_instances(example.targets),
            'unsplit': unsplit.above(threshold),
            f"C'={codec.code_channels}, {rate}": split_found.above(threshold),
        }
        rows.append(np.concatenate([
            titled(draw_instances(image, found, dataset.class_names), title)
            for title, found in columns.items()
        ], axis=1))
    width = max(row.shape[1] for row in rows)
    padded = [
        cv2.copyMakeBorder(
            row, 0, 0, 0, width - row.shape[1], cv2.BORDER_CONSTANT, value=(255, 255, 255)
        )
        for row in rows
    ]
    if not cv2.imwrite(str(output), np.concatenate(padded)):
        raise ValueError(f'{output} cannot be written')


if __name__ == '__main__':
    typer.run(main)

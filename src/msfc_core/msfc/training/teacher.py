"""What an uncompressed detector says of its images: the goal of a codec's training without labels.

Answers can be kept in a folder, a file an image, so that the backbone and the heads look at each
image once, however long the training is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from msfc.data import Example
from msfc.detectors.base import TeacherDetector, detector_digest
from msfc.progress import Progress
from msfc.types import ImageSizes, Pyramid, Size

POOLED = 'p6'
MASK_SCORE = 0.1
"""Detections of at least this score are kept for their masks."""

MAX_MASKS = 16
"""So many detections of an image are kept at most."""


@dataclass(frozen=True)
class Answer:
    """What the detector says of one image.

    Attributes:
        pyramid: ``p2`` .. ``p5``, each C x h x w float32 in channels-last memory.
        rpn: for each level ``p2`` .. ``p6``: A x 5 x h x w, objectness logit and box offsets.
        proposals: K x 4, the boxes that the RPN proposes, in network input pixels.
        logits: K x (classes + 1), their class logits, background last.
        offsets: K x classes x 4 (or K x 1 x 4), their box offsets.
        boxes: D x 4, the boxes of the detections in network input pixels.
        scores: D.
        labels: D int64.
        masks: D x S x S, mask logits of the detections.
        source: the image's size in pixels.
        valid: its size at network scale.
        padded: the network input's size.
    """

    pyramid: dict[str, Tensor]
    rpn: dict[str, Tensor]
    proposals: Tensor
    logits: Tensor
    offsets: Tensor
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor
    source: Size
    valid: Size
    padded: Size

    def to(self, device: torch.device) -> Answer:
        """Return the answer with its tensors on a device."""
        moved: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, dict):
                moved[entry.name] = {key: tensor.to(device) for key, tensor in value.items()}
            elif isinstance(value, Tensor):
                moved[entry.name] = value.to(device)
        return replace(self, **moved)


@torch.no_grad()
def ask(detector: TeacherDetector, images: Sequence[Tensor]) -> list[Answer]:
    """Return what a detector in evaluation mode says of images.

    Args:
        detector: the detector.
        images: N tensors 3 x H x W, uint8, RGB.
    """
    batch = detector.preprocess(images)
    # As they come back from a file, so that the answers are those to what the codec is given.
    pyramid = {k: v.half().float() for k, v in detector.extract(batch).items()}
    rpn = detector.rpn_outputs(pyramid)
    proposals = detector.proposals(pyramid, batch.sizes)
    logits, offsets = detector.box_outputs(pyramid, proposals, batch.sizes)
    counts = [len(boxes) for boxes in proposals]
    found = detector.infer(pyramid, batch.sizes, max_instances=MAX_MASKS)
    found = [instances.above(MASK_SCORE) for instances in found]
    boxes = [
        _resized(instances.boxes, source, valid)
        for instances, source, valid in zip(
            found, batch.sizes.source, batch.sizes.valid, strict=True
        )
    ]
    labels = [instances.labels for instances in found]
    masks = detector.mask_outputs(pyramid, boxes, labels, batch.sizes)
    masks_of = masks.split([len(entry) for entry in boxes])
    logits_of, offsets_of = logits.split(counts), offsets.split(counts)
    return [
        Answer(
            pyramid={level: pyramid[level][k] for level in detector.strides},
            rpn={
                level: torch.cat([scores[k].unsqueeze(1), deltas[k]], 1)
                for level, (scores, deltas) in rpn.items()
            },
            proposals=proposals[k],
            logits=logits_of[k],
            offsets=offsets_of[k],
            boxes=boxes[k],
            scores=found[k].scores,
            labels=labels[k],
            masks=masks_of[k],
            source=batch.sizes.source[k],
            valid=batch.sizes.valid[k],
            padded=batch.sizes.padded,
        )
        for k in range(len(images))
    ]


def _resized(boxes: Tensor, source: Size, valid: Size) -> Tensor:
    """Bring boxes from source pixels to network input pixels."""
    return boxes * boxes.new_tensor([valid[1] / source[1], valid[0] / source[0]] * 2)


class Mirrored(Dataset[Example]):
    """The images of a data set, left and right exchanged."""

    def __init__(self, dataset: Dataset[Example]) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Example:
        return self._dataset[index].flipped()


def keep_answers(
    detector: TeacherDetector,
    dataset: Dataset[Example],
    folder: Path,
    progress: Progress | None = None,
    batch_size: int = 4,
) -> list[Path]:
    """Ask a detector about all images of a data set, but those that it was asked about before.

    Args:
        detector: in evaluation mode.
        dataset: the images.
        folder: of the answers; a folder in it is named after the detector's weights.
        progress: called with (images done, images in all).
        batch_size: images that are looked at together.

    Returns:
        The file of each image's answer.
    """
    place = folder / detector_digest(detector)
    place.mkdir(parents=True, exist_ok=True)
    count = len(dataset)  # type: ignore[arg-type]
    paths = [place / f'{index}.safetensors' for index in range(count)]
    missing = [index for index, path in enumerate(paths) if not path.is_file()]
    for start in range(0, len(missing), batch_size):
        chosen = missing[start : start + batch_size]
        answers = ask(detector, [dataset[index].image for index in chosen])
        for index, answer in zip(chosen, answers, strict=True):
            write_answer(answer, paths[index])
        if progress:
            progress(count - len(missing) + start + len(chosen), count)
    return paths


def write_answer(answer: Answer, path: Path) -> None:
    """Write an answer, in half precision where that is enough; a kill leaves no half file."""
    tensors = {f'pyramid.{k}': v.permute(1, 2, 0).half() for k, v in answer.pyramid.items()}
    tensors |= {f'rpn.{level}': values.half() for level, values in answer.rpn.items()}
    tensors |= {name: getattr(answer, name).half() for name in ('logits', 'offsets', 'masks')}
    tensors |= {name: getattr(answer, name) for name in ('proposals', 'boxes', 'scores', 'labels')}
    tensors['sizes'] = torch.tensor([answer.source, answer.valid, answer.padded])
    partial = path.with_suffix('.partial')
    save_file({name: value.contiguous() for name, value in tensors.items()}, partial)
    os.replace(partial, path)


def read_answer(path: Path) -> Answer:
    """Read what :func:`write_answer` wrote; everything is float32 again."""
    tensors = load_file(path)
    pyramid: dict[str, Tensor] = {}
    rpn: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for name, value in tensors.items():
        group, _, level = name.partition('.')
        if group == 'pyramid':
            pyramid[level] = value.permute(2, 0, 1).float()
        elif group == 'rpn':
            rpn[level] = value.float()
        else:
            plain[name] = value if name in ('labels', 'sizes') else value.float()
    source, valid, padded = ((int(h), int(w)) for h, w in plain.pop('sizes').tolist())
    return Answer(pyramid, rpn, **plain, source=source, valid=valid, padded=padded)


def stack_pyramids(answers: Sequence[Answer]) -> Pyramid:
    """Return the pyramids of answers of one padded size as a batch, ``p6`` pooled again."""
    pyramid = {
        level: torch.stack([answer.pyramid[level] for answer in answers])
        for level in answers[0].pyramid
    }
    coarsest = pyramid[list(pyramid)[-1]]
    pyramid[POOLED] = functional.max_pool2d(coarsest, 1, 2)
    return pyramid


def stack_sizes(answers: Sequence[Answer]) -> ImageSizes:
    """Return the image sizes of answers of one padded size."""
    return ImageSizes(
        tuple(answer.source for answer in answers),
        tuple(answer.valid for answer in answers),
        answers[0].padded,
    )

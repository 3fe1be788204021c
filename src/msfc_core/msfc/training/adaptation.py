"""Fitting a learned codec to somebody's own pictures, without labels.

The uncompressed detector's detections take the place of annotations: what is written is a data
set like any other, and is trained on and measured like one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import torch
from lightning_fabric import Fabric

from msfc.codecs.learned import LearnedCodec
from msfc.data import CocoDataset
from msfc.data.files import place_image
from msfc.detectors.base import SplitDetector, TeacherDetector
from msfc.evaluation.coco_map import to_coco_results
from msfc.evaluation.measurement import Measurement, measure
from msfc.evaluation.variants import Coded, Uncompressed, Variant
from msfc.export import export_model
from msfc.files import write_atomically
from msfc.model import SplitModel
from msfc.model_file import load_model
from msfc.pipeline.torch_network import image_to_tensor
from msfc.progress import StageProgress, no_progress, progress_of_stage, progress_of_training
from msfc.training.experiment import Experiment, Step
from msfc.training.trainer import Trainer
from msfc.types import Instances

PARTS = {'both': 'codec', 'encoder': 'encoder'}
"""What may be adapted, and what a training step calls it."""

SURE = 0.5
"""Detections of at least this score count as objects."""

HELD_OUT, MOST_HELD_OUT = 0.1, 200
"""Share of the pictures, the last ones, that are not trained on, and how many at most."""

BYTES = (80, 115, 160, 215, 320, 500, 850, 1500)
"""Bytes of the rates of a new codec at :data:`CELLS` cells; more for larger images."""

CELLS = 320

NEW_CODEC: dict[str, Any] = {'type': 'learned'}
"""Settings of a new codec; channels are the detector's."""

_Row = tuple[dict[str, Any], list[dict[str, Any]]]

@dataclass(frozen=True)
class AdaptationSettings:
    """How a codec is adapted.

    Attributes:
        part: ``both``, or ``encoder`` for the robot's half alone: the receivers' half and the
            fingerprint stay.
        iterations: optimiser steps.
        batch_size: images each.
        learning_rate: its peak.
        seed: of everything random.

    Raises:
        ValueError: an impossible value.
    """

    part: str = 'both'
    iterations: int = 4000
    batch_size: int = 4
    learning_rate: float = 5e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise ValueError(f'part is {self.part!r}, not one of {", ".join(PARTS)}')


@dataclass(frozen=True)
class AdaptationReport:
    """What an adaptation brought, on pictures that were held out.

    Attributes:
        uncompressed: the detector against its own detections: what is lost at :data:`SURE`.
        before: the model as it was, a row for each rate; none if it had no learned codec.
        after: the adapted model.
        model: folder of the adapted model.
        fingerprint: of it.
    """

    uncompressed: Measurement
    before: tuple[Measurement, ...]
    after: tuple[Measurement, ...]
    model: Path
    fingerprint: str

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-serialisable values."""
        return {
            'fingerprint': self.fingerprint,
            'uncompressed': self.uncompressed.to_dict(),
            'before': [row.to_dict(self.uncompressed) for row in self.before],
            'after': [row.to_dict(self.uncompressed) for row in self.after],
        }


@torch.inference_mode()
def write_detections(
    detector: SplitDetector,
    pictures: Sequence[Path],
    root: Path,
    progress: StageProgress = no_progress,
) -> None:
    """Write a data set whose annotations are what a detector finds.

    Splits are ``train``, ``empty`` (without an object, if there are any) and ``val``, the last
    pictures. A data set that is there already is taken for it.

    Args:
        detector: in evaluation mode.
        pictures: image files.
        root: folder to write.
        progress: shows how far it is.

    Raises:
        ValueError: a picture cannot be read, or too few have an object.
    """
    if (root / 'annotations' / 'instances_val.json').is_file():
        return
    held_out = min(MOST_HELD_OUT, max(1, round(HELD_OUT * len(pictures))))
    rows: dict[str, list[_Row]] = {'train': [], 'val': []}
    for index, path in enumerate(pictures):
        entry, results = _detect(detector, path, index + 1)
        last = index >= len(pictures) - held_out
        split = 'val' if last else 'train' if results else 'empty'
        (root / split).mkdir(parents=True, exist_ok=True)
        place_image(path, root / split / entry['file_name'], copy=False)
        rows.setdefault(split, []).append((entry, results))
        progress(index + 1, len(pictures), 'detections')
    for split in ('train', 'val'):
        if not any(results for _, results in rows[split]):
            raise ValueError(
                f'the detector finds nothing in the {split} pictures: give more of them'
            )
    (root / 'annotations').mkdir(exist_ok=True)
    for split in sorted(rows):  # val is the last: it says that all are there
        content = _annotations(rows[split], detector.class_names)
        write_atomically(root / 'annotations' / f'instances_{split}.json', json.dumps(content))


def _detect(detector: SplitDetector, path: Path, number: int) -> _Row:
    """Return a picture's entry, and what is surely in it."""
    picture: Any = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f'{path} is no picture that can be read: take it out')
    batch = detector.preprocess([image_to_tensor(picture).to(detector.device)])
    (found,) = detector.infer(detector.extract(batch), batch.sizes)
    entry = {
        'id': number, 'file_name': f'{number:06d}{path.suffix.lower()}',
        'height': picture.shape[0], 'width': picture.shape[1],
    }
    ids = range(1, len(detector.class_names) + 1)
    return entry, to_coco_results(number, _with_masks(found.above(SURE)), ids)


def _with_masks(found: Instances) -> Instances:
    """Fill the boxes of what has no mask: annotations need one, and some detectors make none."""
    masks = found.masks.clone()
    for mask, box in zip(masks, found.boxes, strict=True):
        if not mask.any():
            left, top = (int(value) for value in box[:2].floor())
            right, bottom = (int(value) for value in box[2:].ceil())
            mask[top:bottom, left:right] = True
    return replace(found, masks=masks)


def _annotations(rows: Sequence[_Row], class_names: Sequence[str]) -> dict[str, Any]:
    """Return a COCO annotation file of one split."""
    found = [result for _, results in rows for result in results]
    return {
        'images': [entry for entry, _ in rows],
        'annotations': [
            {
                **result, 'id': number, 'iscrowd': 0,
                'area': result['bbox'][2] * result['bbox'][3],
            }
            for number, result in enumerate(found, start=1)
        ],
        'categories': [
            {'id': number, 'name': name} for number, name in enumerate(class_names, start=1)
        ],
    }


def adapt(
    source: str,
    pictures: Sequence[Path],
    output: Path,
    fabric: Fabric,
    settings: AdaptationSettings | None = None,
    workers: int = 1,
    progress: StageProgress = no_progress,
) -> AdaptationReport:
    """Fit a model's learned codec to pictures, or a new one if it has none.

    Args:
        source: model folder, or name of a shipped model.
        pictures: image files, such as of :func:`msfc.data.files.find_pictures`.
        output: folder for everything that is written; the same call resumes what was broken off.
        fabric: launched Lightning Fabric.
        settings: how.
        workers: processes that read answers.
        progress: shows how far it is.

    Raises:
        OSError: a file is missing or cannot be written.
        ValueError: the model or the pictures are of no use.
    """
    settings = settings or AdaptationSettings()
    start = load_model(source)
    fitted = isinstance(start.codec, LearnedCodec)
    if settings.part == 'encoder' and not fitted:
        raise ValueError(f'{source} has no learned codec whose encoder could be adapted')
    if not isinstance(start.detector, TeacherDetector):
        raise ValueError(f'{source} has a {type(start.detector).__name__}, which cannot teach')
    data = output / 'data'
    write_detections(start.detector, pictures, data, progress)
    validation = CocoDataset(data, 'val')
    experiment = _experiment(source, start, validation, data, settings)
    trainer = Trainer(
        experiment, data, output / 'training', fabric, workers,
        progress=progress_of_training(progress),
        detector=None if fitted else start.detector,
    )
    trainer.run()
    model = output / 'model'
    note = f'{source}, {settings.part} adapted to {len(pictures)} pictures'
    export_model(str(output / 'training' / 'adapted'), model, note=note)
    report = _measure(start if fitted else None, load_model(model), validation, model, progress)
    write_atomically(output / 'report.json', json.dumps(
        {**report.to_dict(), 'settings': asdict(settings)}, indent=2
    ) + '\n')
    return report


def _experiment(
    source: str, start: SplitModel, images: CocoDataset, data: Path, settings: AdaptationSettings
) -> Experiment:
    """Return the training of an adaptation."""
    size = images.read_image(0)
    padded = start.detector.preprocess([image_to_tensor(size)]).sizes.padded
    codec = start.codec if isinstance(start.codec, LearnedCodec) else None
    if codec is not None:
        shape = start.code_shape(padded)
        coder = codec.coder()
        targets = [coder.expected_bytes(shape, rate) for rate in coder.rates]
    else:
        height, width = start.detector.pyramid_sizes(padded)['p4']
        targets = [count * height * width / CELLS for count in BYTES]
    step = Step(
        name='adapted', trains=PARTS[settings.part], iterations=settings.iterations,
        batch_size=settings.batch_size, learning_rate=settings.learning_rate, warmup=0.02,
        hold=0.5, weight_decay=1e-4, clip_norm=2.0, objective='distill', average=0.998,
        byte_targets=sorted(targets),
        distill={} if codec is not None else {'distance_first': settings.iterations // 20},
    )
    empty = (data / 'annotations' / 'instances_empty.json').is_file()
    return Experiment(
        detector={} if codec is not None else start.detector.config(),
        codec=NEW_CODEC,
        steps=(step,),
        start_from=source if codec is not None else '',
        empty_split='empty' if empty else '',
        val_images=0,
        seed=settings.seed,
    )


def _measure(
    before: SplitModel | None,
    after: SplitModel,
    dataset: CocoDataset,
    folder: Path,
    progress: StageProgress,
) -> AdaptationReport:
    variants: list[Variant] = [Uncompressed(after.detector)]
    for name, model in (('before', before), ('after', after)):
        if model is not None:
            model.detector = after.detector
            coder = model.require_codec().coder()
            variants += [
                Coded(model, rate, f'{name}, {coder.rate_name(rate)}') for rate in coder.rates
            ]
    rows = measure(
        dataset, variants, replicates=0, progress=progress_of_stage(progress, 'held-out pictures')
    )
    return AdaptationReport(
        rows[0],
        tuple(row for row in rows if row.variant.startswith('before')),
        tuple(row for row in rows if row.variant.startswith('after')),
        folder,
        after.fingerprint,
    )

"""What else the frames of a run could have crossed the link as: other rates, and H.265 images.

A few frames are coded at every rate of the model, and sent as intra frames of H.265 at some of the
settings of :mod:`msfc.evaluation.image_settings` to a detector without a codec. The bytes that
H.265 needs for the mask mAP that the pair had on the same frames are interpolated between two of
the settings (:mod:`msfc.evaluation.rate_curves`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from msfc.detectors.base import SplitDetector
from msfc.evaluation.baselines import image_methods, thin_out
from msfc.evaluation.image_codecs import find_codecs
from msfc.evaluation.rate_curves import (
    AT_MOST,
    RateCurve,
    RateRatio,
    ratio_at_equal_precision,
)
from msfc.evaluation.variants import SourceImage, Variant
from msfc.model import SplitModel
from msfc.model_file import describe_model, load_model, shipped_models
from msfc.pipeline.torch_network import edge_pipeline, prepare_model
from msfc_demo.accuracy import RunningAccuracy
from msfc_demo.sample import SampledFrame
from msfc_ros.messages import instances_from_message

STANDARD = 'H.265'
IMAGES = f'{STANDARD} intra'

SETTINGS = 5
"""Of the image codec, from the fewest bytes to the most; each takes a detection a frame.

On 14 frames of the clip all nine gave ratios of 1.28, 0.72 and 0.35 for n = 2, 4 and 8 of
``tabletop_msfc``, these five 1.26, 0.67 and 0.33.
"""

Progress = Callable[[int, int], None]
"""Called with the steps that are done and that there are in all; may raise to break off."""


@dataclass(frozen=True)
class RateBytes:
    """A rate of the model's codec, and the mean bytes of a payload."""

    rate: int
    name: str
    payload_bytes: float


@dataclass(frozen=True)
class ImagePoint:
    """A setting of the image codec: mean bytes of an image, and mask mAP of what is found."""

    setting: str
    payload_bytes: float
    mask_map: float


@dataclass(frozen=True)
class Comparison:
    """The pair's figures on a few frames, and what else these frames could have been.

    Attributes:
        frames: how many.
        payload_bytes: mean of the run.
        mask_map: of what the cloud found; NaN where the model does not know the true classes.
        rates: the codec's, cheapest first.
        detector: name of the model whose detector got the images.
        points: settings of the image codec; empty if there is none.
        missing: why there is none, in words.
    """

    frames: int
    payload_bytes: float
    mask_map: float
    rates: tuple[RateBytes, ...]
    detector: str
    points: tuple[ImagePoint, ...] = ()
    missing: str = ''

    @property
    def ratio(self) -> RateRatio | None:
        """How many times the payload's bytes the image codec needs for the same mask mAP.

        None where there is nothing to compare: no encoder, or no object found rightly.
        """
        if not self.points or not self.mask_map > 0:
            return None
        curve = RateCurve(
            IMAGES,
            tuple(point.payload_bytes for point in self.points),
            tuple(point.mask_map for point in self.points),
        )
        return ratio_at_equal_precision(curve, self.payload_bytes, self.mask_map)

    def sentence(self) -> str:
        """Return the comparison in words, whoever wins."""
        if self.missing:
            return f'no comparison with {IMAGES}: {self.missing}'
        ratio = self.ratio
        if ratio is None:
            return f'no comparison with {IMAGES}: no object was found rightly'
        where = f'{self.frames} of the frames, mask mAP {self.mask_map:.3f}'
        sent = f'{self.payload_bytes:,.0f} bytes of features'
        if ratio.ratio is None or ratio.rate is None:
            return f'{where} by {sent}: {IMAGES} reaches it at no setting measured'
        most = 'at most ' if ratio.status == AT_MOST else ''
        return (
            f'{where} by {sent}: {IMAGES} needs {most}{ratio.rate:,.0f} bytes, '
            f'{ratio.ratio:.2f} times as many'
        )

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON data."""
        ratio = self.ratio
        return {
            'frames': self.frames,
            'payload_bytes': self.payload_bytes,
            'mask_map': None if math.isnan(self.mask_map) else self.mask_map,
            'rates': [vars(rate) for rate in self.rates],
            'images': {
                'codec': IMAGES,
                'detector': self.detector,
                'points': [vars(point) for point in self.points],
                'status': ratio and ratio.status,
                'bytes': ratio and ratio.rate,
                'ratio': ratio and ratio.ratio,
                'missing': self.missing or None,
            },
        }


@dataclass(frozen=True)
class Reference:
    """The detector that images are sent to, and the name of its model."""

    name: str
    detector: SplitDetector


def find_reference(name: str, model: SplitModel, given: str | None = None) -> Reference:
    """Return the detector that a user without the codec would send images to.

    Args:
        name: of the model.
        model: the model.
        given: name or directory of another model. By default the shipped one that the model's
            figures are against, and the model's own detector where they name none.

    Raises:
        ModelFileError: the given model cannot be loaded.
        ValueError: it has other classes.
    """
    description = {} if given else describe_model(name)
    chosen = given or _measured_against(description)
    if not chosen:
        shared = description.get('detector_from')
        return Reference(shared['model'] if shared else name, model.detector)
    other = load_model(chosen)
    if set(other.class_names) != set(model.class_names):
        raise ValueError(f'{chosen} does not have the classes of {name}')
    return Reference(chosen, other.detector)


def _measured_against(description: dict[str, Any]) -> str | None:
    """Return the shipped model that a model's own figures are against."""
    label: Any = description['extra']
    for key in ('figures', 'reference_detector', 'label'):
        label = label.get(key) if isinstance(label, dict) else None
    return label if label in shipped_models() else None


def compare(
    model: SplitModel, frames: Sequence[SampledFrame], reference: Reference, progress: Progress
) -> Comparison:
    """Measure what a few frames could have been.

    Args:
        model: the one of the run; with a codec.
        frames: at least one.
        reference: detector for the images.
        progress: told after each step.
    """
    accuracy = RunningAccuracy(model.class_names)
    for frame in frames:
        accuracy.add(instances_from_message(frame.found), frame.truth)
    variants, missing = _image_variants(reference)
    if accuracy.unknown:
        variants, missing = [], 'the model does not have the classes of the true objects'
    steps = len(frames) * (1 + len(variants))
    rates = _measure_rates(model, frames, lambda done: progress(done, steps))
    points = _measure_images(
        variants, frames, lambda done: progress(len(frames) + done, steps)
    )
    return Comparison(
        len(frames),
        float(np.mean([frame.payload_bytes for frame in frames])),
        accuracy.compute().get('mask_map', math.nan),
        rates,
        reference.name,
        points,
        missing,
    )


def _image_variants(reference: Reference) -> tuple[list[Variant], str]:
    """Return the image codec's settings with their detector, or why there is none."""
    codecs, missing = find_codecs()
    prepared = prepare_model(SplitModel(reference.detector)).detector
    methods = image_methods(prepared, [c for c in codecs if c.name.startswith(IMAGES)])
    variants = [variant for method in methods for variant in method.variants]
    if not variants:
        return [], missing[STANDARD]
    return [variants[place] for place in thin_out(range(len(variants)), SETTINGS)], ''


def _measure_rates(
    model: SplitModel, frames: Sequence[SampledFrame], step: Callable[[int], None]
) -> tuple[RateBytes, ...]:
    coder = model.require_codec().coder()
    edge = edge_pipeline(model)
    lengths = []
    for done, frame in enumerate(frames, start=1):
        coded = edge.analyse(frame.image)
        lengths.append([coded.payload_bytes(rate) for rate in edge.rates])
        step(done)
    means = np.mean(lengths, axis=0)
    return tuple(
        RateBytes(rate, coder.rate_name(rate), float(mean))
        for rate, mean in zip(edge.rates, means, strict=True)
    )


@torch.inference_mode()
def _measure_images(
    variants: Sequence[Variant], frames: Sequence[SampledFrame], step: Callable[[int], None]
) -> tuple[ImagePoint, ...]:
    accuracies = [RunningAccuracy(variant.detector.class_names) for variant in variants]
    lengths = np.zeros(len(variants))
    for number, frame in enumerate(frames):
        source = SourceImage(number, frame.image)
        for place, variant in enumerate(variants):
            outcome = variant.run(source)
            assert outcome.payload_bytes is not None
            accuracies[place].add(outcome.instances, frame.truth)
            lengths[place] += outcome.payload_bytes
            step(number * len(variants) + place + 1)
    return tuple(
        ImagePoint(variant.name, float(length / len(frames)), accuracy.compute()['mask_map'])
        for variant, accuracy, length in zip(variants, accuracies, lengths, strict=True)
    )

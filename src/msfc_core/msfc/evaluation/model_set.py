"""Several models of one kind, measured side by side: their names, weights and variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from msfc.codecs.learned import LearnedCodec
from msfc.evaluation.report import weights_digest
from msfc.evaluation.variants import Coded, Uncompressed, Variant
from msfc.model import SplitModel
from msfc.wire.packed import PackedCoder


@dataclass(frozen=True)
class NamedModel:
    """A model and what tables call it.

    Attributes:
        label: unique among the models of a run; empty if there is but one.
        model: the model.
        identity: hash of all its weights.
    """

    label: str
    model: SplitModel
    identity: str

    @classmethod
    def of(cls, label: str, model: SplitModel) -> NamedModel:
        """Return a model with its hash."""
        return cls(label, model, weights_digest(model))

    def variant_name(self, rate: int) -> str:
        """Return the name of the model at a rate."""
        name = self.model.require_codec().coder().rate_name(rate)
        return f'{self.label}, {name}' if self.label else name

    def rates(self, wanted: Sequence[int] = ()) -> list[int]:
        """Return those of some rates that the model knows, its own if there are none."""
        known = self.model.require_codec().coder().rates
        return [rate for rate in dict.fromkeys(wanted) if rate in known] or [self.model.rate]

    def variants(self, rates: Sequence[int] = ()) -> list[Variant]:
        """Return the model at several rates, see :meth:`rates`; once if it has no codec."""
        if self.model.codec is None:
            detector = self.model.detector
            return [Uncompressed(detector, self.label or 'detector', self.identity)]
        return [
            Coded(self.model, rate, self.variant_name(rate), self.identity)
            for rate in self.rates(rates)
        ]

    def columns(self, rates: Sequence[int] = ()) -> dict[str, dict[str, Any]]:
        """Return what a table says of each variant besides its results, by its name."""
        codec = self.model.codec
        if codec is None:
            return {}
        packed = codec.coder().coding == PackedCoder.coding
        return {
            self.variant_name(rate): {
                'model': self.label,
                'code_channels': codec.code_channels,
                'bit_depth': rate if packed else None,
                'rate': rate,
            }
            for rate in self.rates(rates)
        }

    def describe(self) -> dict[str, Any]:
        """Return what a report says of the model."""
        codec = self.model.codec
        return {
            'label': self.label,
            'fingerprint': self.model.fingerprint,
            'weights': self.identity,
            'code_channels': None if codec is None else codec.code_channels,
            'feature_channels': self.model.detector.feature_channels,
        }


def uncompressed_variant(detector_of: SplitModel) -> Uncompressed:
    """Return the detector of a model as the variant that the others are compared with."""
    identity = weights_digest(SplitModel(detector_of.detector))
    return Uncompressed(detector_of.detector, identity=identity)


def make_labels(models: Sequence[SplitModel], names: Sequence[str]) -> list[str]:
    """Return short names by which models can be told apart.

    One model needs none. C' is the name where it tells them apart; else it is what their paths
    end with, as many parts of them as it takes.

    Args:
        models: the models.
        names: their paths, or names of shipped ones.

    Raises:
        ValueError: two models have one path.
    """
    if len(models) == 1:
        return ['']
    widths = [None if m.codec is None else m.codec.code_channels for m in models]
    if None not in widths and len(set(widths)) == len(widths):
        return [f"C'={width}" for width in widths]
    parts = [Path(name).resolve().parts for name in names]
    for count in range(1, max(len(part) for part in parts) + 1):
        labels = ['/'.join(part[-count:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    raise ValueError(f'a model was given twice: {", ".join(names)}')


def share_detectors(models: Sequence[SplitModel]) -> None:
    """Let models whose detectors are equal to the last bit have one detector.

    Then its pyramid is computed once for all of them, such as for the models of the second step,
    whose detectors were frozen.
    """
    for index, model in enumerate(models):
        for other in models[:index]:
            if _equal(model, other):
                model.detector = other.detector
                break


def _equal(model: SplitModel, other: SplitModel) -> bool:
    if model.detector is other.detector:
        return True
    if model.detector.config() != other.detector.config():
        return False
    first, second = model.detector.state_dict(), other.detector.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


def is_untrained(model: SplitModel) -> bool:
    """Return whether a model has a codec that no training has touched.

    The model of a training's first step has one. It is told by the batch norm's statistics, which
    the first batch changes, or by a learned codec's, which are taken before its first.
    """
    if model.codec is None:
        return False
    if isinstance(model.codec, LearnedCodec):
        return not model.codec.synthesis.statistics.taken()
    norms = [module for module in model.codec.modules() if isinstance(module, nn.BatchNorm2d)]
    return bool(norms) and all(
        norm.running_mean is not None
        and norm.running_var is not None
        and not norm.running_mean.any()
        and bool((norm.running_var == 1).all())
        for norm in norms
    )

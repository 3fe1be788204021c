"""What a sweep shows: curves over BPFE (the paper's Fig. 5), and what the last step adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msfc.evaluation.bootstrap import MEASURES, Interval
from msfc.evaluation.measurement import Measurement, json_interval
from msfc.evaluation.model_set import NamedModel
from msfc.evaluation.plots import Series, plot_rates

SUFFIXES = ('.png', '.pdf')


@dataclass(frozen=True)
class SweepModel:
    """One of a sweep's models.

    Attributes:
        code_channels: its C'.
        step: name of the training step that ended with it.
        last: whether that was the last one.
        named: the model.
    """

    code_channels: int
    step: str
    last: bool
    named: NamedModel


def model_label(code_channels: int, step: str, last: bool) -> str:
    """Return what tables and plots call a sweep's model."""
    return f"C'={code_channels}" if last else f"C'={code_channels} {step}"


@dataclass(frozen=True)
class StepGain:
    """What the last step added to an earlier one, on the same images.

    Attributes:
        model: after the earlier step.
        last_step: name of the last one.
        bit_depth: n.
        before: what the model reached after the earlier step.
        after: what it reached after the last one.
    """

    model: SweepModel
    last_step: str
    bit_depth: int
    before: Measurement
    after: Measurement

    def gain(self, measure: str) -> Interval:
        """Return the difference, with its paired interval."""
        return self.after.precision.difference(self.before.precision, measure)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-serialisable values."""
        row: dict[str, Any] = {
            'code_channels': self.model.code_channels,
            'bit_depth': self.bit_depth,
            'step': self.model.step,
            'last_step': self.last_step,
        }
        for measure in MEASURES:
            row[measure] = json_interval(self.before.interval(measure))
            row[f'{measure}_last'] = json_interval(self.after.interval(measure))
            row[f'{measure}_gain'] = json_interval(self.gain(measure))
        return row


def compare_steps(
    models: Sequence[SweepModel], bits: Sequence[int], measured: Mapping[str, Measurement]
) -> list[StepGain]:
    """Return what the last step adds, for each C', step before it, and bit depth.

    Args:
        models: of the sweep.
        bits: bit depths measured.
        measured: by name of the variant.
    """
    last = {model.code_channels: model for model in models if model.last}
    return [
        StepGain(
            model,
            last[model.code_channels].step,
            depth,
            measured[model.named.variant_name(depth)],
            measured[last[model.code_channels].named.variant_name(depth)],
        )
        for model in models if not model.last
        for depth in bits
    ]


def plot_sweep(
    models: Sequence[SweepModel],
    bits: Sequence[int],
    measured: Mapping[str, Measurement],
    uncompressed: Mapping[str, Interval],
    panels: Mapping[str, str],
    path: Path,
    floor: float,
    title: str = '',
    all_steps: bool = False,
) -> list[str]:
    """Draw precision over payload BPFE, a line for each C' and a point for each n.

    Args:
        models: of the sweep.
        bits: bit depths measured.
        measured: by name of the variant.
        uncompressed: the detector without codec, by panel.
        panels: name of the panel by what it shows.
        path: of the figure, without suffix; PNG and PDF are written.
        floor: least average precision that is drawn.
        title: over the figure.
        all_steps: draw the models of the steps before the last one too, dashed.

    Returns:
        What was left out, in words.
    """
    chosen = [model for model in models if all_steps or model.last]

    def line(model: SweepModel, measure: str) -> Series:
        points = [measured[model.named.variant_name(depth)] for depth in bits]
        return Series(
            model.named.label,
            tuple(entry.payload_bpfe or 0.0 for entry in points),
            tuple(entry.interval(measure) for entry in points),
            not model.last,
            f"C'={model.code_channels}",
        )

    drawn = {label: [line(k, measure) for k in chosen] for measure, label in panels.items()}
    for suffix in SUFFIXES:
        left_out = plot_rates(
            drawn, uncompressed, path.with_name(path.name + suffix),
            'payload bits per feature element (BPFE)', floor, title,
        )
    return left_out

"""What the measuring commands show: progress, and results as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msfc.cli.console import Bar, print_lines, print_table, stoppable

if TYPE_CHECKING:
    from msfc.evaluation.bootstrap import Interval
    from msfc.evaluation.measurement import Measurement
    from msfc.evaluation.studies.baselines import BaselinesResult, ImageCodecChoice
    from msfc.evaluation.studies.common import StudyResult
    from msfc.evaluation.studies.importance import ImportanceResult
    from msfc.evaluation.studies.sweep import SweepResult
    from msfc.evaluation.sweep_report import StepGain
    from msfc.progress import StageProgress

MEASURES = ('box_map', 'mask_map')

Result = TypeVar('Result')


def run_study(
    run: Callable[[StageProgress], Result], notes: Sequence[str], folder: Path | None
) -> Result:
    """Run a study with a progress bar.

    Args:
        run: does it.
        notes: what to say first.
        folder: where the same command resumes it; None if it begins anew.
    """
    print_lines(notes)
    with stoppable(folder), Bar('starting') as update:
        return run(update)


def print_comparison(result: StudyResult) -> None:
    """Print models beside the uncompressed detector."""
    print_measurements(result.title, result.measured)
    if len(result.measured) > 1:
        print_differences(result.measured, result.reference)
    print_lines(result.notes)


def print_sweep(result: SweepResult) -> None:
    """Print a sweep."""
    print_measurements(result.title, result.measured)
    print_differences(result.measured, result.reference)
    _print_gains(result.gains)
    print_lines([*result.notes, *result.not_drawn, f'tables and plots: {result.output}'])


def print_baselines(result: BaselinesResult) -> None:
    """Print the codec's points, and the bytes of others at equal precision."""
    print_measurements(result.title, result.measured)
    print_lines(['At equal mask mAP:'])
    print_lines(
        [row['sentence'] for row in result.equal_precision if row['measure'] == 'mask_map']
    )
    print_table(
        'the best image codec and setting for its bytes, by mask mAP',
        ('bytes', 'box', 'mask', 'encoder', 'setting'),
        [
            (
                f'{row["bytes"]:,.0f}', f'{row["box_map"]:.3f}', f'{row["mask_map"]:.3f}',
                '' if row['encode_seconds'] is None else f'{1000 * row["encode_seconds"]:.0f} ms',
                row['setting'],
            )
            for row in result.envelope
        ],
    )
    print_lines(
        [
            f'over mask mAP {row["low"]:.3f} to {row["high"]:.3f}: {row["method"]} needs '
            f'{row["ratio"]:.2f} times the bytes'
            for row in result.over_range if row['measure'] == 'mask_map'
        ]
    )
    print_lines([*result.not_drawn, *result.notes, f'tables and plots: {result.output}'])


def print_missing(codecs: ImageCodecChoice) -> None:
    """Print which image codecs are not here, and why."""
    print_lines([f'{name} is not measured: {why}' for name, why in codecs.missing.items()])


def print_importance(result: ImportanceResult) -> None:
    """Print what noise on each level does, and the sizes."""
    print_measurements(result.title, result.measured)
    print_table(
        'sizes, and ratios to the image, at a network input of '
        f'{result.size[0]} x {result.size[1]}',
        ('', 'shape', 'elements', 'ratio', 'bits', 'ratio'),
        [
            (
                row.name, 'x'.join(map(str, row.shape or ())), f'{row.elements:,}',
                f'{row.elements_ratio:.3g}', f'{row.bits:,}', f'{row.bits_ratio:.3g}',
            )
            for row in result.sizes
        ],
    )
    print_lines([*result.notes, f'tables and plots: {result.output}'])


def print_measurements(title: str, measured: Sequence[Measurement]) -> None:
    """Print measurements as a table with intervals of 95 %."""

    def number(value: float | None, form: str) -> str:
        return '' if value is None else format(value, form)

    print_table(
        f'mAP of {title}, {measured[0].images} images',
        ('variant', 'box', '95 %', 'mask', '95 %', 'payload', 'message', 'BPFE', 'bpp'),
        [
            (
                entry.variant, *_value_and_range(entry.interval('box_map')),
                *_value_and_range(entry.interval('mask_map')),
                number(entry.payload_bytes, ',.0f'), number(entry.message_bytes, ',.0f'),
                number(entry.payload_bpfe, '.4f'), number(entry.bits_per_pixel, '.4f'),
            )
            for entry in measured
        ],
    )


def print_differences(measured: Sequence[Measurement], reference: Measurement) -> None:
    """Print AP50, and the change of mAP against a reference with paired intervals of 95 %."""
    print_table(
        f'mAP50, and change of mAP against {reference.variant}',
        ('variant', 'box 50', 'mask 50', 'box', '95 %', 'mask', '95 %'),
        [
            (
                entry.variant, f'{entry.precision.values["box_map50"]:.4f}',
                f'{entry.precision.values["mask_map50"]:.4f}',
                *(
                    text
                    for name in MEASURES
                    for text in (
                        change_and_range(entry.precision.difference(reference.precision, name))
                        if entry is not reference else ('', '')
                    )
                ),
            )
            for entry in measured
        ],
    )


def change_and_range(found: Interval) -> tuple[str, str]:
    """Return a difference and its interval in words, with signs."""
    return f'{found.value:+.4f}', f'{_short(found.low, "+.3f")} to {_short(found.high, "+.3f")}'


def _value_and_range(found: Interval) -> tuple[str, str]:
    return f'{found.value:.3f}', f'{_short(found.low, ".3f")}-{_short(found.high, ".3f")}'


def _short(value: float, form: str) -> str:
    """Return a number between -1 and 1 without the zero before the point."""
    return format(value, form).replace('0.', '.', 1)


def _print_gains(gains: Sequence[StepGain]) -> None:
    """Print what the last step adds."""
    if not gains:
        return
    # What it was after the last step stands in the table of all variants.
    print_table(
        f'what step {gains[0].last_step} adds',
        ('', 'box', 'change', '95 %', 'mask', 'change', '95 %'),
        [
            (
                f'{row.model.named.label}, n={row.bit_depth}',
                *(
                    text
                    for name in MEASURES
                    for text in (
                        f'{row.before.precision.values[name]:.3f}',
                        *change_and_range(row.gain(name)),
                    )
                ),
            )
            for row in gains
        ],
    )

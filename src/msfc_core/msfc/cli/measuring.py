"""What the measuring commands share: options, a run with its progress, tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msfc.cli.console import Bar, print_lines, print_table

if TYPE_CHECKING:
    from msfc.data import CocoDataset
    from msfc.evaluation.bootstrap import Interval
    from msfc.evaluation.measurement import Measurement
    from msfc.evaluation.variants import Variant

QUICK_IMAGES = 8
QUICK_WARNING = 'quick: a check that it works; its figures mean nothing'
QUICK_FOLDER = 'quick'
"""In the output folder, since what is in it must not be taken for the real thing."""
PANELS = {'box_map': 'box mAP', 'mask_map': 'mask mAP'}

Images = Annotated[int | None, typer.Option(help='Measure the first images only.', min=1)]
Device = Annotated[str, typer.Option(help='cpu or cuda.')]
Replicates = Annotated[int, typer.Option(help='Bootstrap samples for the intervals.', min=0)]
Quick = Annotated[
    bool, typer.Option('--quick', help='A few images and settings: does it work, in minutes.')
]
DataFolder = Annotated[Path, typer.Option(help='Folder of a COCO-format data set.')]
Split = Annotated[str, typer.Option(help='Split to measure on.')]
Workers = Annotated[int, typer.Option(help='Processes that read data.', min=0)]
Detector = Annotated[
    str | None,
    typer.Option(help='Trained model whose detector all codecs start from and are compared with; '
                      'trained first if none.'),
]
Runs = Annotated[
    list[Path] | None,
    typer.Option(help="Output of msfc train with the same steps, taken for its C' in place of "
                      'training; repeatable.'),
]
Output = Annotated[
    Path, typer.Option(help='Folder for tables, plots and what is needed to go on after a break.')
]


@contextmanager
def stoppable(folder: Path | None) -> Iterator[None]:
    """Turn Ctrl-C into one line and exit status 130.

    Args:
        folder: where the same command goes on from; None if it has to begin anew.
    """
    try:
        yield
    except KeyboardInterrupt:
        print_lines([f'stopped; the same command goes on from {folder}' if folder else 'stopped'])
        raise typer.Exit(130) from None


def quick_run(
    quick: bool, output: Path, limit: int | None
) -> tuple[Path, int | None, list[str]]:
    """Return folder, number of images and notes of a run, and print the notes.

    A quick run has few images, and a folder of its own since it must not be taken for the real
    thing.
    """
    if not quick:
        return output, limit, []
    print_lines([QUICK_WARNING])
    return output / QUICK_FOLDER, limit or QUICK_IMAGES, [QUICK_WARNING]


def measure_with_progress(
    dataset: CocoDataset,
    variants: Sequence[Variant],
    image_ids: Sequence[int],
    journals: Path | None,
    settings: Mapping[str, Any],
    replicates: int,
) -> list[Measurement]:
    """Measure variants with a progress bar; see :func:`msfc.evaluation.measurement.measure`."""
    from msfc.evaluation.measurement import measure

    stage = f'{len(image_ids)} images by {len(variants)} variants'
    with stoppable(journals), Bar(stage) as update:
        return measure(
            dataset, variants, image_ids, journals, settings, replicates,
            progress=update, computed=lambda done, total: update(done, total, 'intervals'),
        )


def describe_run(
    dataset: CocoDataset,
    data: Path,
    split: str,
    images: int,
    replicates: int,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what the JSON of every measuring command says of its run.

    Args:
        dataset: what was measured on.
        data: its folder.
        split: which of its splits.
        images: how many images, the first by id.
        replicates: bootstrap samples.
        notes: what a reader has to know.
    """
    from msfc.evaluation.bootstrap import CONFIDENCE
    from msfc.evaluation.report import describe_data

    return {
        'data': describe_data(dataset, data, split, images),
        'bootstrap': {'replicates': replicates, 'confidence': CONFIDENCE},
        'notes': list(notes),
    }


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
                    for name in PANELS
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


def kinds(entry: Measurement) -> dict[str, Interval]:
    """Return box and mask mAP with their intervals, by their names in plots."""
    return {label: entry.interval(name) for name, label in PANELS.items()}


def _value_and_range(found: Interval) -> tuple[str, str]:
    return f'{found.value:.3f}', f'{_short(found.low, ".3f")}-{_short(found.high, ".3f")}'


def _short(value: float, form: str) -> str:
    """Return a number between -1 and 1 without the zero before the point."""
    return format(value, form).replace('0.', '.', 1)

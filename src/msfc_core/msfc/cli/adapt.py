"""The command ``msfc adapt``: a learned codec for one's own pictures, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfc.cli.console import Bar, check_device, console, print_table, report_errors, stoppable
from msfc.cli.options import ModelName, Workers

if TYPE_CHECKING:
    from msfc.evaluation.measurement import Measurement
    from msfc.training.adaptation import AdaptationReport

# The heavy imports are in the commands, so that --help answers at once.


def adapt(
    model: ModelName,
    output: Annotated[Path, typer.Option(help='Folder for the model, the report, and what is '
                                              'needed to resume.')],
    images: Annotated[Path | None, typer.Option(help='Folder of pictures.')] = None,
    bag: Annotated[Path | None, typer.Option(help='Bag with camera images.')] = None,
    topic: Annotated[
        list[str] | None, typer.Option(help='Topic of the bag; repeatable. All images by default.')
    ] = None,
    part: Annotated[
        str,
        typer.Option(help='both, or encoder: then receivers keep the model that they have.'),
    ] = 'both',
    iterations: Annotated[int, typer.Option(help='Optimiser steps.', min=1)] = 4000,
    batch_size: Annotated[int, typer.Option(help='Images of each.', min=1)] = 4,
    accelerator: Annotated[str, typer.Option(help='auto, cpu or cuda.')] = 'auto',
    workers: Workers = 1,
) -> None:
    """Fit a learned codec to your own pictures: no labels are needed.

    A model that has a learned codec is adapted, any other gets a new one. The report is of
    pictures that are not trained on, the last tenth: bytes, and how well instances agree with
    those of the uncompressed detector. Run again to resume after an interruption.
    """
    with report_errors():
        from msfc.bags.images import extract_images
        from msfc.data.files import find_pictures
        from msfc.output import check_output_folder
        from msfc.training.adaptation import AdaptationSettings
        from msfc.training.adaptation import adapt as run
        from msfc.training.processes import launch_fabric

        if (images is None) == (bag is None):
            raise ValueError('give either --images or --bag')
        settings = AdaptationSettings(part, iterations, batch_size)
        device = check_device(accelerator, ('auto', 'cpu', 'cuda'))
        check_output_folder(output)
        fabric = launch_fabric(device, '32-true')
        with stoppable(output), Bar('adapting') as update:
            if bag is not None:
                images = extract_images(bag, output / 'images', tuple(topic or ()), update)
            assert images is not None
            report = run(model, find_pictures(images), output, fabric, settings, workers, update)
        _print(report)


def _print(report: AdaptationReport) -> None:
    rows = [_row(row) for row in (*report.before, *report.after)]
    print_table(
        f'agreement with the uncompressed detector on {report.uncompressed.images} held-out '
        'pictures',
        ('variant', 'payload B', 'box mAP', 'mask mAP'), rows,
    )
    console.print(f'model {report.fingerprint}: {report.model}', highlight=False)


def _row(row: Measurement) -> tuple[str, ...]:
    values = row.precision.values
    return (
        row.variant, f'{row.payload_bytes or 0:.0f}', f'{values["box_map"]:.3f}',
        f'{values["mask_map"]:.3f}',
    )

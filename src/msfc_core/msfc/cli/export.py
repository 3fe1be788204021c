"""The command ``msfc export``: a trained model as it is shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfc.cli.console import console, report_errors

# The heavy imports are in the commands, so that --help answers at once.


def export(
    source: Annotated[str, typer.Argument(help='Model folder, such as a training step.')],
    destination: Annotated[Path, typer.Argument(help='Folder to write.')],
    rate: Annotated[
        int | None,
        typer.Option('--rate', '--bits', help='Default rate; for packed codes n.'),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help='JSON of msfc evaluate, kept with the model.')
    ] = None,
    note: Annotated[str, typer.Option(help='What the model is and how it was made.')] = '',
    detector_only: Annotated[
        bool, typer.Option('--detector-only', help='Leave the codec out, as after the first step.')
    ] = False,
    detector_from: Annotated[
        str | None,
        typer.Option(metavar='MODEL',
                     help='Leave the detector out: it is that of MODEL, to the bit. A shipped '
                          'model, or one in a folder beside DESTINATION.'),
    ] = None,
) -> None:
    """Write a model in half precision, for shipping; prints its fingerprint."""
    with report_errors():
        from msfc.export import export_model

        console.print(export_model(
            source, destination, rate, figures, note, detector_only, detector_from
        ))

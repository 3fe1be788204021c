"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Images = Annotated[int | None, typer.Option(help='Measure the first images only.', min=1)]
Device = Annotated[str, typer.Option(help='cpu or cuda.')]
Replicates = Annotated[int, typer.Option(help='Bootstrap samples for the intervals.', min=0)]
Quick = Annotated[
    bool, typer.Option('--quick', help='A few images and settings: does it work, in minutes.')
]
QuickTraining = Annotated[
    bool,
    typer.Option('--quick', help='A few iterations, images and settings, into folders of their '
                                 'own: does it work, in minutes.'),
]
DataFolder = Annotated[Path, typer.Option(help='Folder of a COCO-format data set.')]
Split = Annotated[str, typer.Option(help='Split to measure on.')]
Workers = Annotated[int, typer.Option(help='Processes that read data.', min=0)]
CheckpointEvery = Annotated[float, typer.Option(help='Seconds.', min=0)]
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
    Path, typer.Option(help='Folder for tables, plots and what is needed to resume.')
]
SweepPlan = Annotated[
    Path, typer.Argument(help='YAML file, see experiments/tabletop_sweep.yaml.')
]
ModelName = Annotated[str, typer.Argument(help='Model folder, or name of a shipped model.')]

"""The commands ``msfc import ...``: models of other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfc.cli.console import console, report_errors
from msfc.output import check_output_folder

if TYPE_CHECKING:
    from msfc.detectors.base import SplitDetector

import_app = typer.Typer(
    help='Make models of the detectors of other libraries.', no_args_is_help=True
)

Output = Annotated[
    Path | None, typer.Option(help='Folder to write; by default models/ and the name.')
]
Classes = Annotated[
    Path | None, typer.Option(help='Text file with a class name a line, without background.')
]


@import_app.command('torchvision')
def import_torchvision(
    architecture: Annotated[
        str,
        typer.Argument(
            help='maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2 or keypointrcnn_resnet50_fpn.'
        ),
    ],
    weights: Annotated[
        str, typer.Option(metavar='FILE|NAME',
                          help='File of a state dict, or weights that torchvision downloads.')
    ] = 'COCO_V1',
    classes: Classes = None,
    output: Output = None,
) -> None:
    """Make a model of a Mask or Keypoint R-CNN of torchvision, without codec.

    msfc adapt fits one.
    """
    with report_errors():
        from msfc.detectors.torchvision_weights import import_torchvision as load

        folder = check_output_folder(output or Path('models') / architecture)
        _write(load(architecture, weights, _read_classes(classes)), folder)


@import_app.command('detectron2')
def import_detectron2(
    config: Annotated[str, typer.Argument(help='YAML or LazyConfig file, or one of the zoo.')],
    weights: Annotated[str, typer.Option(metavar='FILE|ADDRESS', help='Weights.')],
    classes: Classes = None,
    output: Output = None,
) -> None:
    """Make a model of a Detectron2 model; it has no codec: msfc adapt fits one."""
    with report_errors():
        from msfc.detectors.detectron2 import Detectron2Detector

        folder = check_output_folder(output or Path('models') / Path(config).stem)
        detector = Detectron2Detector.from_file(
            config, weights=weights, class_names=_read_classes(classes)
        )
        _write(detector, folder)


def _read_classes(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def _write(detector: SplitDetector, folder: Path) -> None:
    from msfc.model import SplitModel
    from msfc.model_file import save_model

    fingerprint = save_model(SplitModel(detector), folder, half=False)
    console.print(f'{folder}: {len(detector.class_names)} classes, fingerprint {fingerprint}')

"""The command ``msfc export-edge``: a model's robot half for robots without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfc.cli.console import Bar, print_lines, report_errors
from msfc.cli.options import ModelName

# The heavy imports are in the commands, so that --help answers at once.


def export_edge(
    model: ModelName,
    output: Annotated[Path, typer.Argument(help='Folder to write.')],
    graph_format: Annotated[
        str,
        typer.Option('--format', help='onnx, which ONNX Runtime and OpenVINO run, or openvino.'),
    ] = 'onnx',
    precision: Annotated[
        str,
        typer.Option(help='fp32, fp16, int8, or for openvino bf16: what the graph is to run in.'),
    ] = 'fp32',
    images: Annotated[
        Path | None,
        typer.Option(help='Folder of pictures that the bundle is checked with; by default some '
                          'that come with msfc, or of those for calibration.'),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help='For int8: folder with pictures of what the robot will see, or a bag '
                          'with its camera images.'),
    ] = None,
) -> None:
    """Write an edge bundle: what a robot without PyTorch needs of a model.

    The graph is run beside PyTorch on pictures first. Nothing is written where they differ more
    than the precision explains.
    """
    with report_errors():
        from msfc.edge_bundle import GRAPH_FILES
        from msfc.export_edge import export_edge as run

        with Bar('loading') as update:
            bundle = run(model, output, graph_format, precision, images, update, calibration)
        check = bundle.check
        size = sum((output / name).stat().st_size for name in GRAPH_FILES[graph_format])
        print_lines([
            f'edge bundle {output}: model {bundle.fingerprint}, {graph_format} in {precision}, '
            f'{size / 1e6:.1f} MB'
            + (f', calibrated with {check["calibrated"]} pictures' * bool(check['calibrated'])),
            f'against PyTorch, {check["pictures"]} pictures in {check["runtime"]}: the code '
            f'differs by {check["largest_difference"]:.2g} at most; of {check["symbols"]} symbols '
            f'at rate {check["rate"]} {check["changed"]} changed',
        ])

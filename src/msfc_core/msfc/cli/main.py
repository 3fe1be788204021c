"""The command ``msfc``: data, training, evaluation and model files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msfc.cli.bag import bag_app
from msfc.cli.baselines import baselines
from msfc.cli.console import Bar, check_device, console, print_table, report_errors
from msfc.cli.data import data_app
from msfc.cli.evaluate import evaluate
from msfc.cli.importance import importance
from msfc.cli.reproduce import reproduce
from msfc.cli.sweep import sweep

if TYPE_CHECKING:
    from msfc.evaluation.evaluate import ModelMetrics

# The heavy imports (torch, MuJoCo) are in the commands, so that --help answers at once.

app = typer.Typer(
    help='MSFC: multi-scale feature compression for split instance segmentation.',
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name='data')
app.add_typer(bag_app, name='bag')


def _print_figures(title: str, figures: Sequence[ModelMetrics]) -> None:
    """Print a table, one row per variant."""
    headings = (
        'variant', 'box mAP', 'mask mAP', 'box mAP50', 'mask mAP50', 'payload B', 'BPFE', 'bpp'
    )
    rows = [
        (
            row.variant, f'{row.box_map:.4f}', f'{row.mask_map:.4f}', f'{row.box_map50:.4f}',
            f'{row.mask_map50:.4f}', f'{row.payload_bytes:.0f}', f'{row.payload_bpfe:.4f}',
            f'{row.bits_per_pixel:.4f}',
        )
        for row in figures
    ]
    print_table(f'{title}, {figures[0].images} images', headings, rows)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} is not JSON: {error}') from error


@app.command()
def train(
    experiment: Annotated[Path, typer.Argument(help='YAML file, see experiments/.')],
    data: Annotated[Path, typer.Option(help='Folder of a COCO-format data set.')],
    output: Annotated[Path, typer.Option(help='Folder for models, checkpoints and curves.')],
    accelerator: Annotated[str, typer.Option(help='auto, cpu or cuda.')] = 'auto',
    workers: Annotated[int, typer.Option(help='Processes that read data.', min=0)] = 1,
    checkpoint_every: Annotated[float, typer.Option(help='Seconds.', min=0)] = 120.0,
    weights: Annotated[
        str | None,
        typer.Option(help='File or address of Detectron2 weights to start from.'),
    ] = None,
) -> None:
    """Train in the paper's three steps; run again to go on after a break.

    On several GPUs or hosts, start it with torchrun.
    """
    with report_errors():
        from msfc.training.experiment import load_experiment
        from msfc.training.processes import launch_fabric
        from msfc.training.trainer import Trainer

        plan = load_experiment(experiment)
        if weights is not None:
            plan = plan.with_weights(weights)
        device = check_device(accelerator, ('auto', 'cpu', 'cuda'))
        fabric = launch_fabric(device, plan.precision)
        with Bar('training', fabric.is_global_zero) as update:

            def show(stage: str, done: int, total: int, losses: dict[str, float]) -> None:
                update(done, total, stage, f'loss {losses["loss"]:.3f}' if losses else '')

            def report(step: str, figures: list[ModelMetrics]) -> None:
                _print_figures(f'{step} on {data / plan.val_split}', figures)

            trainer = Trainer(
                plan, data, output, fabric, workers, checkpoint_every, show, report
            )
            try:
                trainer.run()
            except KeyboardInterrupt:
                if fabric.is_global_zero:
                    console.print(f'stopped; the same command goes on from {output}')
                raise typer.Exit(130) from None
        if fabric.is_global_zero:
            console.print(f'models and curves: {output}', highlight=False)


app.command()(evaluate)
app.command()(sweep)
app.command()(baselines)
app.command()(importance)
app.command()(reproduce)


@app.command()
def export(
    source: Annotated[str, typer.Argument(help='Model folder, such as a training step.')],
    destination: Annotated[Path, typer.Argument(help='Folder to write.')],
    bits: Annotated[int | None, typer.Option(help='Default bit depth n.')] = None,
    figures: Annotated[
        Path | None, typer.Option(help='JSON of msfc evaluate, kept with the model.')
    ] = None,
    note: Annotated[str, typer.Option(help='What the model is and how it was made.')] = '',
    detector_only: Annotated[
        bool, typer.Option('--detector-only', help='Leave the codec out, as after the first step.')
    ] = False,
) -> None:
    """Write a model in half precision, for shipping; prints its fingerprint."""
    with report_errors():
        from msfc.model import SplitModel
        from msfc.model_file import load_model, save_model
        from msfc.wire.quantizer import check_bit_depth

        if destination.is_dir() and Path(source).is_dir() and destination.samefile(source):
            raise ValueError(f'{destination} would be overwritten: choose another destination')
        model = load_model(source)
        if detector_only:
            model = SplitModel(model.detector)
        if bits is not None:
            model.bit_depth = check_bit_depth(bits)
        extra: dict[str, Any] = {'note': note} if note else {}
        if figures:
            extra['figures'] = _read_json(figures)
        console.print(save_model(model, destination, half=True, extra=extra))


@app.command()
def info(
    model: Annotated[str, typer.Argument(help='Model folder, or name of a shipped model.')],
) -> None:
    """Show what a model file says of itself."""
    with report_errors():
        from msfc.model_file import describe_model

        console.print_json(json.dumps(describe_model(model)))


if __name__ == '__main__':
    app()

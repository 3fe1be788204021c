"""The command ``msfc``, put together."""

from __future__ import annotations

import typer

from msfc.cli.adapt import adapt
from msfc.cli.bag import bag_app
from msfc.cli.baselines import baselines
from msfc.cli.data import data_app
from msfc.cli.evaluate import evaluate
from msfc.cli.export import export
from msfc.cli.export_edge import export_edge
from msfc.cli.importance import importance
from msfc.cli.importing import import_app
from msfc.cli.info import info
from msfc.cli.reproduce import reproduce
from msfc.cli.serve import serve
from msfc.cli.sweep import sweep
from msfc.cli.train import train
from msfc.cli.train_head import train_head

app = typer.Typer(
    help='MSFC: multi-scale feature compression for split instance segmentation.',
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name='data')
app.add_typer(bag_app, name='bag')
app.add_typer(import_app, name='import')
for command in (
    train, train_head, adapt, evaluate, sweep, baselines, importance, reproduce, export,
    export_edge, info, serve,
):
    app.command()(command)


if __name__ == '__main__':
    app()

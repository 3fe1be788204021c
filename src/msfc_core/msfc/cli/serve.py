"""The command ``msfc serve``: decoder and heads for many robots, on Ray Serve."""

from __future__ import annotations

import importlib.util
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from msfc.cli.console import print_lines, report_errors

MISSING = "msfc serve needs Ray, which is not installed: run  pip install 'ray[serve]'"


def serve(
    config: Annotated[Path, typer.Argument(help='YAML file, see docs/serving.md.')],
) -> None:
    """Run decoder and heads as a Ray Serve application, until Ctrl-C or SIGTERM.

    Cloud nodes use it with engine:=ray and ray_address:=http://HOST:PORT.
    """
    with report_errors():
        from msfc.serving.settings import load_settings

        settings = load_settings(config)
        if importlib.util.find_spec('ray') is None:
            raise ValueError(MISSING)
        from msfc.serving.application import start, stop

        try:
            deployed = start(settings)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):  # now: Ray has handlers of its own
            signal.signal(number, lambda *_: ended.set())
        print_lines([f'model {settings.model} at http://{settings.host}:{settings.port}'])
        ended.wait()
        stop(deployed)

"""The command ``msfc info``: what a model file says of itself."""

from __future__ import annotations

import json

from msfc.cli.console import console, report_errors
from msfc.cli.options import ModelName

# The heavy imports are in the commands, so that --help answers at once.


def info(model: ModelName) -> None:
    """Show what a model file says of itself."""
    with report_errors():
        from msfc.model_file import describe_model

        console.print_json(json.dumps(describe_model(model)))

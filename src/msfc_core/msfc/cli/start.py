"""The executable ``msfc``."""

from msfc.programs import run_program


def main() -> None:
    """Run the command that the command line says."""
    run_program('msfc.cli.main', 'app')

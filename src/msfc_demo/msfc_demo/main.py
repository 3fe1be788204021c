"""The executable ``demo``."""

from msfc.programs import run_program


def main() -> None:
    """Run the demo."""
    run_program('msfc_demo.program')

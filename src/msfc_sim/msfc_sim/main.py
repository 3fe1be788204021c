"""The executables of this package."""

from msfc.programs import run_program


def camera_node() -> None:
    """Run the live simulated camera until SIGINT or SIGTERM."""
    run_program('msfc_sim.camera_node')


def clip_player() -> None:
    """Play a recorded clip until SIGINT or SIGTERM."""
    run_program('msfc_sim.clip_player')


def record_clip() -> None:
    """Record a clip as the command line says."""
    run_program('msfc_sim.record_clip')

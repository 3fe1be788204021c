"""How long-running functions report their progress to whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Progress = Callable[[int, int], None]
"""Called with (items done, items in all)."""

TrainingProgress = Callable[[str, int, int, dict[str, float]], None]
"""Called with (step, iterations done, iterations in all, latest losses by name)."""


class StageProgress(Protocol):
    """Shows work of several stages, one after the other."""

    def __call__(self, done: int, total: int, stage: str = '', note: str = '') -> None:
        """Show how much of a stage is done; the same stage as before if it has no name."""


def no_progress(done: int, total: int, stage: str = '', note: str = '') -> None:
    """Show nothing."""


def progress_of_stage(progress: StageProgress, stage: str) -> Progress:
    """Return what shows the items of one stage."""
    return lambda done, total: progress(done, total, stage)


def progress_of_training(progress: StageProgress) -> TrainingProgress:
    """Return what shows the iterations of a training, with the latest loss."""

    def show(step: str, done: int, total: int, losses: dict[str, float]) -> None:
        progress(done, total, step, f'loss {losses["loss"]:.3f}' if losses else '')

    return show

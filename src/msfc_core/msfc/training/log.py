"""The training log, JSON lines, and its picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from msfc.files import write_atomically, writing


def append_log(log: Path, entry: dict[str, Any]) -> None:
    """Add an entry; it has ``step``, ``iteration``, ``learning_rate`` and the losses."""
    with writing(log), log.open('a', encoding='utf-8') as file:
        file.write(json.dumps(entry) + '\n')


def read_log(log: Path) -> list[dict[str, Any]]:
    """Return the entries of a log; a line that a kill cut short is left out."""
    entries = []
    for line in log.read_text(encoding='utf-8').splitlines() if log.is_file() else ():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries


def rewind_log(log: Path, step: str, iteration: int) -> None:
    """Drop what a step logged from an iteration on, since it is about to be done again."""
    kept = [
        entry for entry in read_log(log)
        if entry['step'] != step or entry['iteration'] < iteration
    ]
    write_atomically(log, ''.join(json.dumps(entry) + '\n' for entry in kept))


def plot_curves(log: Path, picture: Path) -> None:
    """Draw the losses of a log, one panel per step, smoothed over 15 entries.

    Args:
        log: as :func:`append_log` writes it; without entries, nothing is drawn.
        picture: PNG to write.
    """
    steps: dict[str, dict[int, dict[str, float]]] = {}
    for entry in read_log(log):
        steps.setdefault(entry.pop('step'), {})[entry.pop('iteration')] = entry
    if not steps:
        return
    figure = Figure(figsize=(5 * len(steps), 4), layout='constrained')
    axes = figure.subplots(1, len(steps), squeeze=False)
    for axis, (step, points) in zip(axes[0], steps.items(), strict=True):
        iterations = sorted(points)
        for name in points[iterations[0]]:
            if name in ('learning_rate', 'skipped'):
                continue
            values = np.array([points[k].get(name, np.nan) for k in iterations])
            width = min(15, len(values))
            smooth = np.convolve(values, np.ones(width) / width, 'valid')
            # A single point has no line.
            axis.plot(
                iterations[width - 1:], smooth, '.-' if len(smooth) == 1 else '-',
                label=name.removeprefix('loss_'),
            )
        axis.set(title=step, xlabel='iteration', ylabel='loss', yscale='log')
        axis.grid(alpha=0.3)
        axis.legend(fontsize='small')
    with writing(picture):
        figure.savefig(picture, dpi=120)

"""Training curves as a picture."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use('Agg')

from matplotlib import pyplot  # noqa: E402


def plot_curves(log: Path, picture: Path) -> None:
    """Draw the losses of a training log, one panel per step, smoothed over 15 entries.

    Args:
        log: JSON lines with ``step``, ``iteration`` and the losses.
        picture: PNG to write.
    """
    # A resumed run logs some iterations again: the last word counts.
    entries: dict[str, dict[int, dict[str, float]]] = {}
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        entries.setdefault(entry.pop('step'), {})[entry.pop('iteration')] = entry
    figure, axes = pyplot.subplots(
        1, len(entries), figsize=(5 * len(entries), 4), squeeze=False, layout='constrained'
    )
    for axis, (step, points) in zip(axes[0], entries.items(), strict=True):
        iterations = sorted(points)
        for name in points[iterations[0]]:
            if name == 'learning_rate':
                continue
            values = np.array([points[k].get(name, np.nan) for k in iterations])
            width = min(15, len(values))
            smooth = np.convolve(values, np.ones(width) / width, 'valid')
            axis.plot(iterations[width - 1:], smooth, label=name.removeprefix('loss_'))
        axis.set(title=step, xlabel='iteration', ylabel='loss', yscale='log')
        axis.grid(alpha=0.3)
        axis.legend(fontsize='small')
    figure.savefig(picture, dpi=120)
    pyplot.close(figure)

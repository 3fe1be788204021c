"""Figures of the evaluation, fit for a paper: average precision over rate, and importance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use('Agg')

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from msfc.evaluation.bootstrap import Interval

STYLE: Any = {
    'font.size': 9,
    'axes.titlesize': 10,
    'axes.labelsize': 9,
    'legend.fontsize': 7.5,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'axes.axisbelow': True,
    'grid.color': '#dddddd',
    'grid.linewidth': 0.6,
    'lines.linewidth': 1.4,
    'lines.markersize': 4.5,
    'savefig.dpi': 200,
    'figure.constrained_layout.use': True,
    'pdf.fonttype': 42,
    'svg.fonttype': 'none',
    'svg.hashsalt': 'msfc',
}

# Told apart by the colour-blind and in grey (Okabe and Ito), each with a marker of its own.
COLOURS = (
    '#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000', '#8A6D3B',
)
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '*')
SUFFIXES = ('.png', '.pdf', '.svg')


@dataclass(frozen=True)
class Series:
    """One line of a plot.

    Attributes:
        name: for the legend.
        rates: rate of each setting, positive.
        values: average precision of each setting with its interval, 0 to 1.
        baseline: drawn dashed, so that the codec's own lines stand out.
        group: lines of one group have one colour and marker; the name if empty.
    """

    name: str
    rates: tuple[float, ...]
    values: tuple[Interval, ...]
    baseline: bool = False
    group: str = ''


def plot_rates(
    panels: Mapping[str, Sequence[Series]],
    uncompressed: Mapping[str, Interval],
    path: Path,
    rate_label: str = 'bits per feature element (BPFE)',
    floor: float = 0.0,
    title: str = '',
) -> list[str]:
    """Draw average precision over rate, a panel each for boxes and masks (the paper's Fig. 5).

    Points under the floor are left out; the figure says how many, the result which.

    Args:
        panels: lines by name of the panel, such as ``box mAP``.
        uncompressed: the detector without compression, by panel; drawn as a band.
        path: PNG, PDF or SVG to write.
        rate_label: of the horizontal axis, which is logarithmic.
        floor: least average precision that is drawn, 0 to 1.
        title: over the figure.

    Returns:
        What was left out, in words.

    Raises:
        ValueError: there is nothing to draw, or the file is of another kind.
    """
    _check_path(path)
    if not panels:
        raise ValueError('there is nothing to draw')
    left_out = []
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(
            1, len(panels), figsize=(3.5 * len(panels) + 0.2, 3.3), squeeze=False
        )
        looks = _looks(panels)
        for axis, (name, lines) in zip(axes[0], panels.items(), strict=True):
            left_out += _rate_panel(axis, name, lines, uncompressed.get(name), floor, looks)
            axis.set(xlabel=rate_label, ylabel=name, title='')
        handles, labels = _legend(axes[0])
        rows = math.ceil(len(labels) / 5)
        columns = math.ceil(len(labels) / max(1, rows))
        figure.legend(
            handles, labels, loc='outside lower center', ncols=max(1, columns), frameon=False
        )
        if title:
            figure.suptitle(title, fontsize=10)
        _save(figure, path)
    return left_out


def plot_importance(
    levels: Mapping[str, Mapping[str, Interval]],
    clean: Mapping[str, Interval],
    path: Path,
    title: str = '',
) -> None:
    """Draw average precision with noise on each level in turn, as bars (the paper's Fig. 3).

    Args:
        levels: average precision by level and kind, such as ``box mAP`` and ``mask mAP``.
        clean: the same without noise, by kind; drawn as a line with its band.
        path: PNG, PDF or SVG to write.
        title: over the figure, such as the noise's variance.

    Raises:
        ValueError: there is nothing to draw, or the file is of another kind.
    """
    _check_path(path)
    if not levels or not clean:
        raise ValueError('there is nothing to draw')
    with pyplot.rc_context(STYLE):
        figure, axis = pyplot.subplots(figsize=(4.6, 3.0))
        width = 0.8 / len(clean)
        for index, (kind, without) in enumerate(clean.items()):
            values = [levels[level][kind] for level in levels]
            places = np.arange(len(levels)) + (index - (len(clean) - 1) / 2) * width
            colour = COLOURS[index % len(COLOURS)]
            axis.bar(places, [v.value for v in values], width * 0.92, color=colour, label=kind)
            axis.errorbar(
                places, [v.value for v in values], _errors(values), fmt='none', ecolor='#222222',
                elinewidth=0.9, capsize=2,
            )
            axis.axhline(
                without.value, color=colour, linestyle='--', linewidth=1.1,
                label=f'{kind} without noise',
            )
            _band(axis, without, colour)
        axis.set_xticks(np.arange(len(levels)), list(levels))
        axis.set(xlabel='level with noise', ylabel='average precision', title=title)
        axis.set_ylim(bottom=0)
        axis.margins(x=0.02)
        axis.grid(visible=False, axis='x')
        figure.legend(loc='outside lower center', ncols=2, frameon=False)
        _save(figure, path)


def _rate_panel(
    axis: Axes,
    name: str,
    lines: Sequence[Series],
    uncompressed: Interval | None,
    floor: float,
    looks: Mapping[str, tuple[str, str]],
) -> list[str]:
    """Draw one panel; returns what was left out."""
    left_out, hidden = [], 0
    axis.set_xscale('log')
    if uncompressed is not None:
        axis.axhline(uncompressed.value, color='#555555', linewidth=1.0, label='uncompressed')
        _band(axis, uncompressed, '#555555')
    drawn: list[float] = []
    for line in lines:
        points = sorted(zip(line.rates, line.values, strict=True), key=lambda point: point[0])
        kept = [point for point in points if point[1].value >= floor]
        hidden += len(points) - len(kept)
        if len(kept) < len(points):
            left_out.append(
                f'{name}: {len(points) - len(kept)} of {len(points)} points of {line.name} are '
                f'under {floor:g} and not shown'
            )
        if not kept:
            continue
        rates, values = [point[0] for point in kept], [point[1] for point in kept]
        colour, marker = looks[line.group or line.name]
        drawing = axis.errorbar(
            rates, [value.value for value in values], _errors(values), label=line.name,
            color=colour, marker=marker, linestyle='--' if line.baseline else '-',
            markerfacecolor='white' if line.baseline else colour,
            linewidth=1.0 if line.baseline else 1.6, elinewidth=0.8,
            capsize=0.0 if line.baseline else 1.8, zorder=3 if line.baseline else 4,
        )
        if line.baseline:  # many lines meet there
            for bars in drawing[2]:
                bars.set_alpha(0.35)
        drawn += rates
    if drawn:
        _log_axis(axis, min(drawn), max(drawn))
    if hidden:
        axis.text(
            0.99, 0.015, f'points under {floor:g} not shown: {hidden}',
            transform=axis.transAxes, ha='right', va='bottom', fontsize=6.5, color='#555555',
        )
    return left_out


def _log_axis(axis: Axes, low: float, high: float) -> None:
    """Label a logarithmic axis with plain numbers, as many as there is room for."""
    margin = max((high / low) ** 0.06, 1.15)
    axis.set_xlim(low / margin, high * margin)
    decades = math.log10(high / low)
    steps = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.2 else (1.0, 2.0, 5.0)
    axis.xaxis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:,.9g}'))
    axis.xaxis.set_minor_locator(LogLocator(subs=[float(k) for k in range(1, 10)], numticks=40))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _looks(panels: Mapping[str, Sequence[Series]]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of each group of lines, the same in all panels."""
    names = dict.fromkeys(line.group or line.name for lines in panels.values() for line in lines)
    return {
        name: (COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)])
        for index, name in enumerate(names)
    }


def _legend(axes: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    """Return what the panels' legends have, each name once."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    return list(entries.values()), list(entries)


def _band(axis: Axes, interval: Interval, colour: str) -> None:
    if math.isfinite(interval.low) and math.isfinite(interval.high):
        axis.axhspan(
            interval.low, interval.high, color=colour, alpha=0.12, linewidth=0, zorder=0.5
        )


def _errors(values: Sequence[Interval]) -> np.ndarray:
    """Return the lengths of error bars, 2 x N; none where an end is no number."""
    lengths = np.array(
        [[v.value - v.low for v in values], [v.high - v.value for v in values]], float
    )
    return np.clip(np.nan_to_num(lengths), 0, None)


def _check_path(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise ValueError(f'{path}: a figure is one of {", ".join(SUFFIXES)}')


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # No dates, so that the same figures give the same file.
    metadata = {'.pdf': {'CreationDate': None}, '.svg': {'Date': None}, '.png': {'Software': None}}
    figure.savefig(path, metadata=metadata[path.suffix])
    pyplot.close(figure)

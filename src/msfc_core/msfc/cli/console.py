"""What the commands share: errors in words, progress bars, tables, devices."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from msfc.files import NO_ROOM
from msfc.missing import missing_in_words

console = Console()
error_console = Console(stderr=True)

LINE_EVERY = 60.0
"""Seconds between lines of progress where there is no terminal to draw a bar on."""


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn what a user can mend into one line and exit status 1."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        error_console.print(
            f'[bold red]error:[/] {escape(_sentence(error))}', highlight=False, soft_wrap=True
        )
        raise typer.Exit(1) from error


@contextmanager
def stoppable(folder: Path | None, shown: bool = True) -> Iterator[None]:
    """Turn Ctrl-C into one line and exit status 130.

    Args:
        folder: where the same command goes on from; None if it has to begin anew.
        shown: False for no line.
    """
    try:
        yield
    except KeyboardInterrupt:
        if shown:
            where = f'; the same command resumes from {folder}' if folder else ''
            print_lines([f'stopped{where}'])
        raise typer.Exit(130) from None


def _sentence(error: Exception) -> str:
    """Return what an error says, without the traceback that a data reading process adds."""
    if isinstance(error, ModuleNotFoundError) and (sentence := missing_in_words(error)):
        return sentence
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        where = f'{error.filename} cannot be written' if error.filename else 'the disk is full'
        return (
            f'{where} ({error.strerror}): make room, then run the same command again; what was '
            'finished is kept'
        )
    text = str(error).strip()
    if '\nOriginal Traceback' not in text:
        return text
    kind, found, words = text.rpartition('\n')[2].partition(': ')
    return words if found else kind


class Bar:
    """A progress bar with time left; lines now and then where there is no terminal.

    Args:
        stage: what is done first.
        shown: False for no output at all.
    """

    def __init__(self, stage: str, shown: bool = True) -> None:
        self._stage, self._lines = stage, shown and not console.is_terminal
        self._next_line = 0.0
        self._first: tuple[float, int] | None = None
        self._progress = Progress(
            TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TextColumn('left'), TimeRemainingColumn(),
            console=console, disable=not shown or self._lines, speed_estimate_period=600,
        )
        self._task = self._progress.add_task(stage, total=None)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def __call__(self, done: int, total: int, stage: str = '', note: str = '') -> None:
        """Show how much is done, and of what; the note stands behind it."""
        if stage and stage != self._stage:
            self._stage, self._next_line, self._first = stage, 0.0, None
            self._progress.reset(self._task)
        text = f'{self._stage}: {note}' if note else self._stage
        self._progress.update(self._task, completed=done, total=total, description=text)
        now = time.monotonic()
        if self._first is None:
            # What an earlier run did says nothing of this one's speed.
            self._first = (now, done)
        if self._lines and (now >= self._next_line or done == total):
            self._next_line = now + LINE_EVERY
            left = self._left(now, done, total)
            print_lines([f'{text}, {done} of {total}{left}'])

    def _left(self, now: float, done: int, total: int) -> str:
        """Return the time that is left in words, as far as it can be told."""
        began, before = self._first or (now, done)
        if done >= total or done <= before:
            return ''
        seconds = (now - began) * (total - done) / (done - before)
        return f', about {timedelta(seconds=round(seconds))} left'


def check_device(name: str, allowed: Sequence[str] = ('cpu', 'cuda')) -> str:
    """Return the name of a device that is here.

    Raises:
        ValueError: it is unknown, or not on this machine.
    """
    import torch

    if name not in allowed:
        raise ValueError(f'unknown device {name!r}: choose {" or ".join(allowed)}')
    if name == 'cuda' and not torch.cuda.is_available():
        raise ValueError('PyTorch finds no CUDA device here')
    return name


def print_lines(lines: Sequence[str]) -> None:
    """Print lines as they are, however long."""
    for line in lines:
        console.print(escape(line), highlight=False, soft_wrap=True)


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, the first column to the left, the others to the right; no empty columns."""
    # Narrow, to fit into a terminal of 80 characters.
    table = Table(title=escape(title), box=SIMPLE, padding=0)
    shown = [
        index for index in range(len(headings)) if not index or any(row[index] for row in rows)
    ]
    for index in shown:
        table.add_column(
            headings[index], justify='right' if index else 'left', overflow='fold',
            no_wrap=bool(index),
        )
    for row in rows:
        table.add_row(*(escape(row[index]) for index in shown))
    console.print(table)

"""Commands that other packages bring, by entry points: imported when they are used, no sooner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from msfc.cli.console import report_errors


class PluginGroup(TyperGroup):
    """A group of commands, some of which come from other packages.

    Such a package names each as an entry point of the group :attr:`entry_points`: a function with
    Typer's annotations, in a module that is quick to import.

    Attributes:
        entry_points: name of the group of entry points.
        expected: commands that a package is known to bring.
        missing: what to say of them where it is not here.
    """

    entry_points: ClassVar[str]
    expected: ClassVar[tuple[str, ...]] = ()
    missing: ClassVar[str]

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *self._found(), *self.expected})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command; one that only says what to do where its package is not here."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        point = self._found().get(cmd_name)
        if point is None:
            return self._stand_in(cmd_name, 'not installed') if cmd_name in self.expected else None
        try:
            return _as_command(point.load(), cmd_name)
        except ImportError as error:
            return self._stand_in(cmd_name, str(error))

    def _found(self) -> Mapping[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.entry_points)}

    def _stand_in(self, name: str, reason: str) -> Any:
        sentence = self.missing.format(reason=reason)

        def fail() -> None:
            with report_errors():
                raise ImportError(sentence)

        # Whatever it is given, what it needs is told first.
        anything = {'ignore_unknown_options': True, 'allow_extra_args': True}
        return _as_command(
            fail, name, help=sentence, short_help='Not here: it needs another package.',
            context_settings=anything,
        )


def _as_command(function: Callable[..., Any], name: str, **settings: Any) -> Any:
    app = typer.Typer(add_completion=False)
    app.command(name, **settings)(function)
    return typer.main.get_command(app)

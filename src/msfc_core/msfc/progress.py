"""How long-running functions report their progress to whoever shows it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with (items done, items in all)."""

StageProgress = Callable[[str, int, int, dict[str, float]], None]
"""Called with (stage, iterations done, iterations in all, last losses by name)."""

"""Whether there is a screen. Imports nothing that may be missing."""

import os
import sys

SCREENS = ('DISPLAY', 'WAYLAND_DISPLAY')
"""Environment variables of Linux, one of which is set where there is a screen."""


def has_screen() -> bool:
    """Return whether a window can be opened here."""
    return not sys.platform.startswith('linux') or any(map(os.environ.get, SCREENS))

"""Whether there is a screen. Imports nothing that may be missing."""

import os
import sys
from urllib.parse import quote

SCREENS = ('DISPLAY', 'WAYLAND_DISPLAY')
"""Environment variables of Linux, one of which is set where there is a screen."""


WEB_PORT = 9090
"""Of the pages for browsers, if nothing else is asked for."""


def has_screen() -> bool:
    """Return whether a window can be opened here."""
    return not sys.platform.startswith('linux') or any(map(os.environ.get, SCREENS))


def web_address(port: int) -> str:
    """Return the address that a browser on this machine opens.

    Args:
        port: of the pages; the next one is that of the data.
    """
    data = f'rerun+http://localhost:{port + 1}/proxy'
    return f'http://localhost:{port}/?url={quote(data, safe="")}'

"""Being found soon by others, also on a busy machine or a bad link."""

from __future__ import annotations

import os
from pathlib import Path

PROFILE = Path(__file__).with_name('discovery.xml')
"""Profile of Fast DDS: a node announces itself every half second, not every three."""

VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
"""What Fast DDS 2, which is in Jazzy, and Fast DDS 3 read the name of a file of profiles from."""

OWN_CHOICES = (*VARIABLES, 'ROS_DISCOVERY_SERVER')
"""Variables by which a user sets up discovery."""

OWN_FILES = ('DEFAULT_FASTRTPS_PROFILES.xml', 'DEFAULT_FASTDDS_PROFILES.xml')
"""Files by which a user does so, in the working directory."""


def announce_often() -> None:
    """Let Fast DDS use :data:`PROFILE`, unless a user's own settings are there.

    A new node announces itself a few times in its first half second. If those are lost, or come
    while the other process is not scheduled, both wait for the next one, 3 s later by default.
    Other middleware ignores the variables. Call before ``rclpy.init``.
    """
    if any(map(os.environ.get, OWN_CHOICES)) or any(map(os.path.exists, OWN_FILES)):
        return
    os.environ.update(dict.fromkeys(VARIABLES, str(PROFILE)))

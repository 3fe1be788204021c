"""Profiles of Fast DDS: being found soon, images that fit into shared memory, unspoilt ports."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

PROFILE = Path(__file__).with_name('fast_dds.xml')
"""A node announces itself every half second, not every three."""

IMAGES_PROFILE = Path(__file__).with_name('fast_dds_images.xml')
"""The same, with shared memory for several images, not for half of one."""

NODE_PROFILE = Path(__file__).with_name('fast_dds_node.xml')
"""As :data:`PROFILE`, for a participant whose number is in :data:`PARTICIPANT`."""

NODE_IMAGES_PROFILE = Path(__file__).with_name('fast_dds_node_images.xml')
"""As :data:`IMAGES_PROFILE`, for such a participant."""

PARTICIPANT = 'MSFC_PARTICIPANT_ID'
"""Variable with the number of this process's participant, from which its ports follow."""

PROFILES = {False: (PROFILE, NODE_PROFILE), True: (IMAGES_PROFILE, NODE_IMAGES_PROFILE)}
"""Profiles by whether images are sent; without and with a number of the participant."""

SHARED_MEMORY = Path('/dev/shm')
"""Where Fast DDS makes its segments."""

IMAGES_NEED = 32 << 20
"""Bytes that must be free there for :data:`IMAGES_PROFILE`: twice its segment."""

VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
"""What Fast DDS 2, which is in Jazzy, and Fast DDS 3 read the name of a file of profiles from."""

OWN_CHOICES = (*VARIABLES, 'ROS_DISCOVERY_SERVER')
"""Variables by which a user sets up discovery."""

OWN_TRANSPORTS = 'FASTDDS_BUILTIN_TRANSPORTS'
"""Variable by which a user sets up transports; a profile that names some would win over it."""

OWN_FILES = ('DEFAULT_FASTRTPS_PROFILES.xml', 'DEFAULT_FASTDDS_PROFILES.xml')
"""Files by which a user does so, in the working directory."""


def use_profile(sends_images: bool = False, participant: int | None = None) -> None:
    """Let Fast DDS use a profile of this package, unless a user's own settings are there.

    A new node announces itself a few times in its first half second. If those are lost, or come
    while the other process is not scheduled, both wait for the next one, 3 s later by default.

    The sender's shared memory has 512 KB by default: a larger image comes late, or not at all if
    it is sent best effort. Other middleware ignores the variables. Call before ``rclpy.init``.

    Args:
        sends_images: whether this process is a camera, or draws pictures.
        participant: number of the process's one participant, see :mod:`msfc_ros.participants`;
            by default the first that is free.
    """
    # A process that started this one may have chosen already.
    profiles = {str(profile) for pair in PROFILES.values() for profile in pair}
    own = any(os.environ.get(name, '') not in ('', *profiles) for name in OWN_CHOICES)
    if own or any(map(os.path.exists, OWN_FILES)):
        return
    images = sends_images and not os.environ.get(OWN_TRANSPORTS) and _has_room()
    chosen = PROFILES[images][participant is not None]
    if participant is not None:
        os.environ[PARTICIPANT] = str(participant)
    os.environ.update(dict.fromkeys(VARIABLES, str(chosen)))


def _has_room() -> bool:
    """Whether the larger segment can be made; without, Fast DDS would fall back to UDP."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free >= IMAGES_NEED
    except OSError:
        return False

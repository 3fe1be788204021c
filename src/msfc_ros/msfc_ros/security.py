"""ROS 2's security variables, read as strictly as a user means them.

ROS 2 takes only ``ROS_SECURITY_ENABLE=true`` for yes and only ``ROS_SECURITY_STRATEGY=Enforce``
for no exceptions, in exactly these letters. With anything else, such as ``1`` or ``enforce``,
nodes run without protection and say nothing (rcl, ``security.c``). Whoever writes that believes
otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

ENABLE = 'ROS_SECURITY_ENABLE'
STRATEGY = 'ROS_SECURITY_STRATEGY'
KEYSTORE = 'ROS_SECURITY_KEYSTORE'

NO = ('', '0', 'false', 'no', 'off')
STRATEGIES = ('', 'Enforce', 'Permissive')


def check_security(environment: Mapping[str, str] = os.environ) -> None:
    """Check that security is on wherever the variables were meant to switch it on.

    Args:
        environment: the process's environment.

    Raises:
        ValueError: if ROS 2 would run unprotected, or not at all, because of how a variable is
            written or of one that is missing.
    """
    enable = environment.get(ENABLE, '')
    if enable.lower() in NO:
        return
    if enable != 'true':
        raise ValueError(
            f"{ENABLE} is '{enable}', for which ROS 2 would switch security off without a word; "
            "write 'true' or 'false'"
        )
    strategy = environment.get(STRATEGY, '')
    if strategy not in STRATEGIES:
        raise ValueError(
            f"{STRATEGY} is '{strategy}', which ROS 2 would take for 'Permissive' without a word; "
            "write 'Enforce' or 'Permissive'"
        )
    if strategy == 'Enforce' and not environment.get(KEYSTORE):
        raise ValueError(f'{STRATEGY} is Enforce, but {KEYSTORE} does not say where the keys are')

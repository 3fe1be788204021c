"""Becoming part of a Ray cluster. Importing this module needs Ray."""

from __future__ import annotations

import os

import ray

STORE = 256 * 2**20
"""Bytes of memory of a cluster that is started here, for what goes between its processes."""


def join(address: str) -> None:
    """Become part of a cluster, or start one on this machine where there is no address.

    Where this process is part of one already, nothing is done.

    Args:
        address: of its head, as 10.0.0.2:6379; empty to start one.

    Raises:
        ConnectionError: there is no cluster at the address.
        RuntimeError: Ray does not start.
    """
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')  # or its makers are told of its use
    if ray.is_initialized():
        return
    started = {} if address else {'include_dashboard': False, 'object_store_memory': STORE}
    try:
        ray.init(
            address=address or 'local', log_to_driver=False, configure_logging=False, **started
        )
    except (ConnectionError, RuntimeError, ValueError):
        raise
    except Exception as error:  # Ray has no class of its own for this
        raise RuntimeError(f'Ray does not start: {error}') from error

"""Masks of ``msfc_msgs/Instance``, packed or plain. Needs NumPy alone."""

from __future__ import annotations

import numpy as np
from msfc_msgs.msg import Instance
from numpy.typing import NDArray

from msfc.mask_runs import unpack_mask


def mask_of(instance: Instance) -> NDArray[np.bool_]:
    """Return an instance's mask, H x W of its box; True is the object.

    Args:
        instance: with a plain or a packed mask; with both, the plain one is taken.

    Raises:
        ValueError: if it has neither, or one that is not of its box's size.
    """
    height, width = instance.height, instance.width
    try:
        if len(instance.packed_mask) and not len(instance.mask):
            return unpack_mask(np.frombuffer(instance.packed_mask, np.uint8), height, width)
    except ValueError as error:
        raise ValueError(f'instance {instance.id}: {error}') from error
    if len(instance.mask) != height * width:
        raise ValueError(
            f'the mask of instance {instance.id} has {len(instance.mask)} bytes, but its box has '
            f'{width} x {height} pixels'
        )
    return np.frombuffer(instance.mask, np.uint8).reshape(height, width) > 0

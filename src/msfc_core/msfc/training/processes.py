"""One process, or several that torchrun started: gloo between CPUs, NCCL between GPUs."""

from __future__ import annotations

import os
from typing import Any

from lightning_fabric import Fabric


def launch_fabric(accelerator: str, precision: str) -> Fabric:
    """Return a launched Fabric for this process, with DDP where torchrun started it.

    Args:
        accelerator: ``cpu``, ``cuda`` or ``auto``.
        precision: as Lightning Fabric names them, such as ``bf16-mixed``.
    """
    options: dict[str, Any] = {'precision': precision, 'devices': 1}
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        options |= {
            # A step that freezes something, or a batch without objects, leaves gradients out.
            'strategy': 'ddp_find_unused_parameters_true',
            'devices': int(os.environ['LOCAL_WORLD_SIZE']),
            'num_nodes': int(os.environ['GROUP_WORLD_SIZE']),
        }
    fabric = Fabric(accelerator=accelerator, **options)
    fabric.launch()
    return fabric

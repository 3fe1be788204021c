"""Starting a node's process.

This module imports little, and what it starts is named by text: while torch is imported, which
takes seconds, an interrupt has to end the process without a page of traceback.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from msfc.missing import missing_modules_told
from msfc_ros.fast_dds_queues import domain_of_environment, release_queues

WAITING = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')
"""Variables by which a user says how OpenMP's threads wait."""

SPIN_COUNT = 10_000
"""How often such a thread looks for work before it sleeps: tens of microseconds."""


def wait_briefly() -> None:
    """Let the threads of OpenMP (GNU's, which PyTorch comes with) leave the cores to others soon.

    By default they keep a core busy for milliseconds after each frame. Where edge and cloud
    share a machine, the other one needs it just then. Call before torch is imported.
    """
    if not any(map(os.environ.get, WAITING)):
        os.environ['GOMP_SPINCOUNT'] = str(SPIN_COUNT)


COMPILER = 'torch._dynamo'
"""The package of ``torch.compile``."""


def import_torchvision() -> None:
    """Import torchvision without the package of ``torch.compile``, a third of a node's start.

    torchvision's RoIAlign takes one function of it, for deterministic GPU operation, and so
    imports it all at once. That function is replaced by one that imports it when it is called.
    """
    if COMPILER in sys.modules:
        return
    stand_ins = {name: _Later(name) for name in (COMPILER, f'{COMPILER}.utils')}
    sys.modules.update(stand_ins)
    try:
        importlib.import_module('torchvision')
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


@contextmanager
def collector_paused() -> Iterator[None]:
    """Look for no garbage while modules are imported, and never among what they consist of.

    The search takes a seventh of torch's import, and finds nothing; later it would come between
    frames.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class _Later(ModuleType):
    """Stands in for a module, until something else of it is asked for."""

    def is_compile_supported(self, device: Any) -> bool:
        return bool(self._real().is_compile_supported(device))

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        return getattr(self._real(), name)

    def _real(self) -> Any:
        for name, module in list(sys.modules.items()):
            if isinstance(module, _Later):
                del sys.modules[name]
        return importlib.import_module(self.__name__)


def start(
    module: str,
    node: str,
    args: Sequence[str] | None = None,
    sends_images: bool = False,
    uses_torch: bool = True,
) -> None:
    """Run a node until SIGINT or SIGTERM, then exit.

    Args:
        module: name of the module that it is in.
        node: name of its class, a :class:`msfc_ros.node.ManagedNode`.
        args: command line; by default the process's.
        sends_images: whether it sends images, see :func:`msfc_ros.fast_dds.use_profile`.
        uses_torch: whether it imports PyTorch in any case.
    """
    # Until the node handles it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    wait_briefly()
    # Before the imports: the one whose place this node takes may have been killed just now.
    if (domain := domain_of_environment()) is not None:
        release_queues(domain)
    with missing_modules_told(), collector_paused():
        if uses_torch:
            import_torchvision()
        node_type = getattr(importlib.import_module(module), node)
        run = importlib.import_module('msfc_ros.node').run
    sys.exit(run(node_type, args, sends_images))

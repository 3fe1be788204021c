"""The parameters that say which model a node uses and where it runs, and loading it.

PyTorch is imported when a model is loaded, no sooner: a robot may be without it.
"""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

from rclpy.node import Node

from msfc.missing import missing_in_words
from msfc.zoo import DEFAULT_MODEL
from msfc_ros.parameters import declare
from msfc_ros.start import collector_paused, import_torchvision

if TYPE_CHECKING:
    from msfc.model import SplitModel


class ModelParameters:
    """Which model, and where it runs: declares the parameters of a node.

    Args:
        node: the node.

    Attributes:
        model: name of a shipped model, or a directory.
        device: ``auto``, or a device as torch names it.
        threads: threads for the CPU's work; 0 for as many as torch takes.
    """

    def __init__(self, node: Node) -> None:
        named: str = declare(
            node,
            'model',
            '',
            'Name of a shipped model, or the directory of one; the same at both ends. Empty for '
            'the shipped default.',
            read_only=True,
        )
        self.model = named or DEFAULT_MODEL
        self.device: str = declare(
            node,
            'device',
            'auto',
            "Where the network runs: 'cpu', 'cuda', 'cuda:1', or 'auto' for a GPU if any.",
            read_only=True,
        )
        self.threads: int = declare(
            node,
            'threads',
            0,
            'Threads for work on the CPU; 0 leaves it to torch.',
            limits=(0, 1024),
            read_only=True,
        )

    def load(self) -> SplitModel:
        """Load the model.

        Raises:
            ModelFileError: if it cannot be loaded.
            ValueError: if the device is not there, the model has no codec, or PyTorch is missing.
        """
        try:
            with collector_paused():
                import_torchvision()
                import torch

                from msfc.model_file import load_model
        except ModuleNotFoundError as error:
            raise ValueError(missing_in_words(error) or str(error)) from error
        device = resolve_device(self.device)
        if self.threads:
            torch.set_num_threads(self.threads)
        model = load_model(self.model, device=device)
        model.require_codec()
        return model


def free_memory() -> None:
    """Give back what belonged to models that nothing refers to any more."""
    gc.collect()  # modules and their hooks refer to each other
    torch = sys.modules.get('torch')
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def resolve_device(name: str) -> str:
    """Return the device that a parameter means, as torch names it.

    Raises:
        ValueError: if it is no device, or not there.
    """
    import torch

    if name == 'auto':
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"parameter device is '{name}', which is no device") from error
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise ValueError(f"parameter device is '{name}', but there is no usable GPU here")
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"parameter device is '{name}', but there are {torch.cuda.device_count()} GPUs here"
        )
    return name

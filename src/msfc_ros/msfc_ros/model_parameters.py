"""The parameters that say which model a node uses and where it runs, and loading it."""

from __future__ import annotations

import gc

import torch
from rclpy.node import Node

from msfc.model import SplitModel
from msfc.model_file import DEFAULT_MODEL, load_model
from msfc_ros.parameters import LiveParameters, declare


class ModelParameters:
    """Which model, and where it runs: declares the parameters of a node.

    Args:
        node: the node.

    Attributes:
        model: name of a shipped model, or a directory.
        device: ``auto``, or a device as torch names it.
        channels: the channels C' that the model has to have; 0 for any. It can be changed, but
            while a model is loaded to no other than what that has: what a codec was trained for
            is what it sends.
        threads: threads for the CPU's work; 0 for as many as torch takes.
    """

    def __init__(self, node: Node) -> None:
        self._loaded: int | None = None
        self.model: str = declare(
            node,
            'model',
            DEFAULT_MODEL,
            'Name of a shipped model, or the directory of one; the same at both ends.',
            read_only=True,
        )
        self.device: str = declare(
            node,
            'device',
            'auto',
            "Where the network runs: 'cpu', 'cuda', 'cuda:1', or 'auto' for a GPU if any.",
            read_only=True,
        )
        self.channels: int = LiveParameters(node).declare(
            'channels',
            0,
            "Channels C' that the model has to have; 0 accepts what it has.",
            self._set_channels,
            limits=(0, 65535),
            check=self._check_channels,
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
            ValueError: if the device is not there, or C' is not what was asked for.
        """
        device = resolve_device(self.device)
        if self.threads:
            torch.set_num_threads(self.threads)
        model = load_model(self.model, device=device)
        self._loaded = model.codec.config.code_channels
        try:
            # After the line above: what is asked for meanwhile is checked there or here.
            self._check_channels(self.channels)
        except ValueError:
            self._loaded = None
            raise
        return model

    def release(self) -> None:
        """Say that the model is no longer in use."""
        self._loaded = None

    def _check_channels(self, asked: int) -> None:
        has = self._loaded
        if has is not None and asked not in (0, has):
            raise ValueError(
                f"parameter channels asks for C' = {asked}, but model '{self.model}' has "
                f"C' = {has}; set it to {has} or to 0, or choose another model"
            )

    def _set_channels(self, value: int) -> None:
        self.channels = value


def free_memory() -> None:
    """Give back what belonged to models that nothing refers to any more."""
    gc.collect()  # modules and their hooks refer to each other
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def resolve_device(name: str) -> str:
    """Return the device that a parameter means, as torch names it.

    Raises:
        ValueError: if it is no device, or not there.
    """
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

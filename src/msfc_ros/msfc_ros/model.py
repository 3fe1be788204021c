"""The parameters that say which model a node uses and where it runs, and loading it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from rclpy.node import Node

from msfc.model import SplitModel
from msfc.model_file import DEFAULT_MODEL, load_model
from msfc_ros.parameters import declare


@dataclass(frozen=True)
class ModelParameters:
    """Which model, and where it runs.

    Attributes:
        model: name of a shipped model, or a directory.
        device: ``auto``, or a device as torch names it.
        channels: the channels C' that the model has to have; 0 for any.
        threads: threads for the CPU's work; 0 for as many as torch takes.
    """

    model: str
    device: str
    channels: int
    threads: int

    @classmethod
    def declare(cls, node: Node) -> ModelParameters:
        """Declare the parameters and return their values."""
        return cls(
            model=declare(
                node,
                'model',
                DEFAULT_MODEL,
                'Name of a shipped model, or the directory of one; the same at both ends.',
                read_only=True,
            ),
            device=declare(
                node,
                'device',
                'auto',
                "Where the network runs: 'cpu', 'cuda', 'cuda:1', or 'auto' for a GPU if any.",
                read_only=True,
            ),
            channels=declare(
                node,
                'channels',
                0,
                "Channels C' that the model has to have; 0 accepts what it has.",
                limits=(0, 65535),
                read_only=True,
            ),
            threads=declare(
                node,
                'threads',
                0,
                'Threads for work on the CPU; 0 leaves it to torch.',
                limits=(0, 1024),
                read_only=True,
            ),
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
        channels = model.codec.config.code_channels
        if self.channels not in (0, channels):
            raise ValueError(
                f"parameter channels asks for C' = {self.channels}, but model '{self.model}' has "
                f"C' = {channels}; set it to {channels} or to 0, or choose another model"
            )
        return model


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

"""What the codec's modules share."""

from __future__ import annotations

from torch import nn


def conv3x3(in_channels: int, out_channels: int, *, bias: bool = True) -> nn.Conv2d:
    """Return a 3 x 3 convolution that keeps height and width.

    It starts as the convolutions of an FPN do (Kaiming uniform with a=1, no offset), which keeps
    the variance of the features: the heads behind the codec expect the FPN's.
    """
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv

"""Single-stream feature codec (SSFC): fewer channels, values in [-1, 1]."""

from __future__ import annotations

from torch import Tensor, nn

from msfc.codecs.msfc.layers import conv3x3


class SSFCEncoder(nn.Module):
    """Convolution, batch norm, tanh; height and width stay.

    Args:
        channels: channels C of the fused map.
        code_channels: channels C' of the code.
    """

    def __init__(self, channels: int, code_channels: int) -> None:
        super().__init__()
        # The batch norm that follows has the offset.
        self.conv = conv3x3(channels, code_channels, bias=False)
        self.norm = nn.BatchNorm2d(code_channels)

    def forward(self, fused: Tensor) -> Tensor:
        """Map N x C x h x w to a code N x C' x h x w with values in [-1, 1]."""
        code: Tensor = self.norm(self.conv(fused))
        return code.tanh()


class SSFCDecoder(nn.Module):
    """One convolution and PReLU; height and width stay.

    Args:
        code_channels: channels C' of the code.
        channels: channels C of the fused map.
    """

    def __init__(self, code_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(code_channels, channels)
        self.activation = nn.PReLU()

    def forward(self, code: Tensor) -> Tensor:
        """Map a code N x C' x h x w to a fused map N x C x h x w."""
        fused: Tensor = self.activation(self.conv(code))
        return fused

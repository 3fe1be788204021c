"""What gives the edge a code of an image, on whatever runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from msfc.types import ImageSizes
from msfc.wire.coder import Code


@dataclass(frozen=True)
class EdgeOutput:
    """What a network made of one image.

    Attributes:
        code: C' x h x w float32, not quantised.
        sizes: of the one image.
        durations: the stage times in seconds: ``preprocess``, ``backbone``, ``encode``.
    """

    code: Code
    sizes: ImageSizes
    durations: Mapping[str, float]


class EdgeNetwork(Protocol):
    """The robot's half of a model: preprocessing, backbone and FPN, the codec's analysis."""

    def __call__(self, image: NDArray[np.uint8]) -> EdgeOutput:
        """Compute the code of one image.

        Args:
            image: H x W x 3, uint8, BGR; any strides, may be read-only.
        """

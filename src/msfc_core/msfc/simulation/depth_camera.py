"""A stereo depth camera's faults: noise that grows with the distance, holes at edges, dropouts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msfc.geometry.depth import beside_jumps


@dataclass(frozen=True)
class DepthCamera:
    """A depth camera that finds depths by the disparity of two views.

    The noise of a depth z is ``z^2 * disparity_noise / (focal * baseline)``: that of its
    disparity, which is the same everywhere. The defaults are of the size that makers and reviews
    of short-range stereo cameras give.

    Attributes:
        baseline: between the two views, in metres.
        disparity_noise: standard deviation in pixels.
        dropouts: part of the pixels that have no depth, anywhere.
        edge_dropouts: part of the pixels beside a jump of depth that have none; the others have
            a depth between near and far.
        max_depth: in metres, beyond which there is none.
    """

    baseline: float = 0.055
    disparity_noise: float = 0.08
    dropouts: float = 0.005
    edge_dropouts: float = 0.5
    max_depth: float = 10.0

    def apply(
        self, depth: NDArray[np.float32], focal: float, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Return a true depth image as the camera gives it.

        Args:
            depth: H x W in metres.
            focal: focal length in pixels.
            rng: decides the noise.

        Returns:
            H x W in metres, NaN where there is none.
        """
        edges = beside_jumps(depth, 0.03)
        # What a block of pixels sees there is of both sides.
        mixed = np.where(edges, depth + rng.random(depth.shape) * (_blurred(depth) - depth), depth)
        noise = mixed**2 * (self.disparity_noise / (focal * self.baseline))
        seen = mixed + noise * rng.standard_normal(depth.shape)
        lost = rng.random(depth.shape) < np.where(edges, self.edge_dropouts, self.dropouts)
        seen[lost | (depth > self.max_depth) | (seen <= 0)] = np.nan
        return seen.astype(np.float32)


def _blurred(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of each pixel's 3 x 3 neighbours."""
    padded = np.pad(depth, 1, mode='edge')
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    return windows.mean(axis=(-2, -1), dtype=np.float32)

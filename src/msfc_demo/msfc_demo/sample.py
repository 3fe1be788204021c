"""Some frames of a run, kept whole for what is measured after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from msfc_msgs.msg import InstanceArray
from numpy.typing import NDArray

from msfc_demo.monitor import FrameRecord


@dataclass(frozen=True)
class SampledFrame:
    """A frame with its image.

    Attributes:
        image: the camera's, H x W x 3 uint8 BGR.
        truth: its true instances.
        found: what the cloud found in it, of all scores.
        payload_bytes: bytes of the code that it was found in.
    """

    image: NDArray[np.uint8]
    truth: InstanceArray
    found: InstanceArray
    payload_bytes: int


class FrameSample:
    """Keeps a few frames of a run, spread over it evenly.

    Args:
        total: frames of the run.
        count: how many to keep; all if there are fewer.

    Attributes:
        frames: those that came so far.
    """

    def __init__(self, total: int, count: int) -> None:
        self.frames: list[SampledFrame] = []
        self._places = set(middles(total, min(count, total)))
        self._offered = 0

    def offer(self, record: FrameRecord) -> None:
        """Look at the next frame of the run, and keep it if it is one of the sample's."""
        assert record.image is not None
        assert record.truth is not None
        assert record.found is not None
        assert record.sent is not None
        if self._offered in self._places:
            self.frames.append(
                SampledFrame(record.image, record.truth, record.found, record.sent.payload_bytes)
            )
        self._offered += 1


def middles(total: int, count: int) -> list[int]:
    """Return the middles of ``count`` equal parts of ``range(total)``.

    So each of a few shots is seen as often.
    """
    return [int((k + 0.5) * total / count) for k in range(count)]

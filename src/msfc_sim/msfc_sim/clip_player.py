"""Plays a recorded clip as a camera would give it.

Publishes ``image_raw`` (sensor_msgs/Image, bgr8), ``camera_info`` (sensor_msgs/CameraInfo) and
``ground_truth`` (msfc_msgs/InstanceArray), stamped anew as they are published.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from msfc_ros.node import run
from msfc_ros.parameters import declare
from msfc_sim.clip import DEFAULT_CLIP, ClipFrame, read_clip, shipped_clip
from msfc_sim.streaming_camera import CameraFrame, StreamNode


class ClipPlayer(StreamNode):
    """A recorded clip as a camera.

    Args:
        **kwargs: for :class:`rclpy.node.Node`.

    Raises:
        ValueError: if a parameter has a value that it cannot have.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('clip_player', **kwargs)
        self._clip: str = declare(
            self,
            'clip',
            DEFAULT_CLIP,
            'Name of a shipped clip, or the folder of one.',
            read_only=True,
        )
        self._loop: bool = declare(
            self, 'loop', True, 'Begin again after the last frame.', read_only=True
        )

    def frames(self) -> Iterator[CameraFrame]:
        """Read the clip and return its frames.

        Raises:
            ClipError: if the clip cannot be read, or a picture of it is damaged.
        """
        shipped = shipped_clip(self._clip)
        clip = read_clip(shipped if shipped.is_dir() else Path(self._clip))
        for frame in clip:
            frame.decode()
        self.get_logger().info(f"clip '{self._clip}': {len(clip)} frames")
        rounds = repeat(clip) if self._loop else (clip,)
        return map(_camera_frame, chain.from_iterable(rounds))


def _camera_frame(frame: ClipFrame) -> CameraFrame:
    # A copy, as the headers are filled in, and anew in the next round.
    return CameraFrame(frame.decode(), deepcopy(frame.camera_info), deepcopy(frame.ground_truth))


def main(args: Sequence[str] | None = None) -> None:
    """Run the node until SIGINT or SIGTERM."""
    sys.exit(run(ClipPlayer, args, sends_images=True))

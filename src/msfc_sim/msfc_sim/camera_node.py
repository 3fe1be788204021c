"""A live simulated camera that moves over tabletops.

Publishes ``image_raw`` (sensor_msgs/Image, bgr8), ``camera_info`` (sensor_msgs/CameraInfo) and
``ground_truth`` (msfc_msgs/InstanceArray); with ``depth`` also ``depth/image`` (sensor_msgs/Image)
and ``depth/camera_info``, registered to the camera. Its scenes are of the split ``clip``, on which
nothing is trained.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, count
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from msfc.missing import missing_in_words
from msfc_ros.node import run
from msfc_ros.parameters import declare
from msfc_sim.messages import (
    SCENE_IDS,
    camera_info_message,
    depth_message,
    focal_length,
    ground_truth_message,
)
from msfc_sim.streaming_camera import CameraFrame, StreamNode

NO_DEPTH = 'none'

DEPTHS = (NO_DEPTH, '16UC1', '32FC1')
"""Values of the parameter ``depth``: none, or the encoding of the depth images."""


class CameraNode(StreamNode):
    """A MuJoCo camera.

    Args:
        **kwargs: for :class:`rclpy.node.Node`.

    Raises:
        ValueError: if a parameter has a value that it cannot have.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('camera_node', **kwargs)
        self._seed: int = declare(
            self,
            'seed',
            0,
            'Number of the first scene; the same seed shows the same.',
            limits=(0, 2**31 - 1),
            read_only=True,
        )
        self._width: int = declare(
            self, 'width', 640, 'Width of the images in pixels.', limits=(64, 4096), read_only=True
        )
        self._height: int = declare(
            self,
            'height',
            480,
            'Height of the images in pixels.',
            limits=(64, 4096),
            read_only=True,
        )
        self._shot: int = declare(
            self,
            'frames_per_scene',
            100,
            'Frames after which the next scene is set up, which takes a few seconds.',
            limits=(1, 2**31 - 1),
            read_only=True,
        )

        self._depth: str = declare(
            self,
            'depth',
            NO_DEPTH,
            "Depth images as well: 'none', '16UC1' (millimetres, 0 where there is none) or "
            "'32FC1' (metres, NaN).",
            choices=DEPTHS,
            read_only=True,
        )
        self._depth_noise: bool = declare(
            self,
            'depth_noise',
            True,
            'Noise, holes and mixed edges in the depth images, as of a stereo camera.',
            read_only=True,
        )
        self.has_depth = self._depth != NO_DEPTH

    def frames(self) -> Iterator[CameraFrame]:
        """Set up the first scene and return the frames of all.

        Raises:
            ValueError: if MuJoCo is not here or cannot draw.
        """
        frames = self._film()
        try:
            first = next(frames)
        except ModuleNotFoundError as error:
            raise ValueError(missing_in_words(error) or str(error)) from error
        except Exception as error:  # each way of drawing fails in its own way
            raise ValueError(
                f'MuJoCo cannot draw here ({type(error).__name__}: {error}); without a screen it '
                f'needs EGL or OSMesa, now MUJOCO_GL={os.environ.get("MUJOCO_GL", "")}. Debian, '
                'Ubuntu: apt-get install libegl1 libgl1-mesa-dri (or: libosmesa6)'
            ) from error
        return chain((first,), frames)

    def _film(self) -> Iterator[CameraFrame]:
        # MuJoCo looks for a way of drawing as it is imported.
        from msfc.simulation.objects import CLASS_NAMES
        from msfc.simulation.path import Shot

        size = (self._height, self._width)
        for scene in count(self._seed):
            shot = Shot('clip', scene, self._width, self._height)
            focal = focal_length(self._height, shot.fovy)
            for number, frame in enumerate(shot.frames(self._shot, self.has_depth)):
                header = Header()
                first = (scene - self._seed) * SCENE_IDS
                identities = [first + number for number in frame.identities]
                yield CameraFrame(
                    cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR),
                    camera_info_message(header, size, shot.fovy),
                    ground_truth_message(
                        frame.labels, frame.masks, header, size, CLASS_NAMES, identities
                    ),
                    self._depth_image(frame.depth, focal, (scene, number)),
                )

    def _depth_image(
        self, depth: np.ndarray | None, focal: float, seed: tuple[int, int]
    ) -> Image | None:
        """Return a true depth image as the depth camera gives it, None if there is none."""
        from msfc.simulation.depth_camera import DepthCamera

        if depth is None:
            return None
        if self._depth_noise:
            depth = DepthCamera().apply(depth, focal, np.random.default_rng(seed))
        return depth_message(depth, self._depth)


def main(args: Sequence[str] | None = None) -> None:
    """Run the node until SIGINT or SIGTERM."""
    sys.exit(run(CameraNode, args, sends_images=True))

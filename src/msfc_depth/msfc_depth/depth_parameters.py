"""The parameters of the depth node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from rclpy.node import Node

from msfc.geometry.boxes import horizontal_basis
from msfc.geometry.depth import PointSettings
from msfc_ros.parameters import LiveParameters, declare
from msfc_ros.qos import declare_qos

OPTICAL_UP = (0.0, -1.0, 0.0)
"""Up in the optical frame of a camera that is held level (REP 103)."""

TARGET_UP = (0.0, 0.0, 1.0)
"""Up in the frame of a robot or a map (REP 103)."""

DEFAULT_UP = [0.0, 0.0, 0.0]
"""The value of ``vertical`` that stands for these."""

POINT_PARAMETERS: dict[str, tuple[str, str, tuple[float, float]]] = {
    'erode': (
        'erode',
        'Pixels of the depth image that are left out along the border of a mask, where depth is '
        'mixed; less of thin objects.',
        (0, 50),
    ),
    'depth_gap': (
        'gap',
        'Jump of depth, as a part of the depth, that separates an object from what is before or '
        'behind it.',
        (0.001, 1.0),
    ),
    # Before the other, which has to be below it.
    'max_depth': ('max_depth', 'Depths in metres beyond it are none.', (0.01, 1000.0)),
    'min_depth': ('min_depth', 'Depths in metres below it are none.', (0.0, 1000.0)),
    'min_points': (
        'min_points',
        'Objects with fewer pixels that have a depth are not published.',
        (1, 1_000_000),
    ),
}
"""Field of :class:`PointSettings`, description and limits of each parameter."""


class DepthParameters:
    """Declares the parameters and holds their values.

    Args:
        node: the node.

    Attributes:
        depth_topic: topic of the depth images.
        camera_info_topic: topic of their calibration.
        target_frame: frame of the results; empty for the camera's.
        history: depth images that are kept.
        points: which depth pixels count as an object.
        depth_qos: of depth images and calibration.
        instances_qos: of the instances.
        output_qos: of the outputs.

    Raises:
        ValueError: if a parameter has a value that it cannot have.
    """

    def __init__(self, node: Node) -> None:
        self._live = LiveParameters(node)
        self._values: dict[str, Any] = {}
        self.depth_topic: str = declare(
            node, 'depth_topic', 'depth/image',
            'Topic of the depth images, registered to the camera.', read_only=True,
        )
        self.camera_info_topic: str = declare(
            node, 'camera_info_topic', 'depth/camera_info',
            'Topic of the calibration of the depth images.', read_only=True,
        )
        self.target_frame: str = declare(
            node, 'target_frame', '',
            "Frame of the results, by tf2; empty: that of the depth images, the camera's.",
            read_only=True,
        )
        self.history: int = declare(
            node, 'history', 90,
            'Depth images that are kept until the results of their images come.',
            limits=(1, 10_000), read_only=True,
        )  # fmt: skip
        self.points = PointSettings()
        self._declare_points()
        self._declare(
            'vertical', DEFAULT_UP,
            'What points up in the frame of the results, x y z; zeros: -y in the frame of a '
            'camera, which is then level, and z in a target_frame.',
            check=_check_vertical,
        )
        self._declare(
            'max_stamp_difference', 0.05,
            'Seconds between the stamps of a camera image and its depth image at most.',
            limits=(0.0, 60.0),
        )
        self._declare(
            'min_score', 0.0, 'Instances with a lower score are left out.', limits=(0.0, 1.0)
        )
        self._declare(
            'max_points', 2000, 'Points of an object in object_points at most.',
            limits=(1, 10_000_000),
        )
        self._declare(
            'trim', 0.002,
            "Part of an object's points that is left outside at either end of each axis of its "
            'box.',
            limits=(0.0, 0.4),
        )
        self._declare(
            'marker_lifetime', 1.0,
            'Seconds after which markers vanish if no others come; 0: never.',
            limits=(0.0, 3600.0),
        )  # fmt: skip
        # Depth images are as large as colour images, and as easily lost best effort.
        self.depth_qos = declare_qos(
            node, 'depth', 'the depth images and their calibration', 'best_available', depth=5
        )
        self.instances_qos = declare_qos(node, 'instances', 'the instances', 'reliable', depth=10)
        self.output_qos = declare_qos(node, 'output', 'the outputs', 'reliable', depth=10)

    @property
    def max_stamp_difference(self) -> float:
        """Seconds between the stamps of a camera image and its depth image at most."""
        return float(self._values['max_stamp_difference'])

    @property
    def min_score(self) -> float:
        """Least score of an instance."""
        return float(self._values['min_score'])

    @property
    def max_points(self) -> int:
        """Points of an object in the cloud at most."""
        return int(self._values['max_points'])

    @property
    def trim(self) -> float:
        """Part of the points outside of a box at either end of each axis."""
        return float(self._values['trim'])

    @property
    def marker_lifetime(self) -> float:
        """Seconds after which markers vanish."""
        return float(self._values['marker_lifetime'])

    def up(self, in_target: bool) -> Sequence[float]:
        """Return what points up in the frame of the results.

        Args:
            in_target: that is the target frame.
        """
        vertical: Sequence[float] = self._values['vertical']
        if any(vertical):
            return vertical
        return TARGET_UP if in_target else OPTICAL_UP

    def _declare(
        self,
        name: str,
        default: Any,
        description: str,
        limits: tuple[float, float] | None = None,
        check: Callable[[Any], None] | None = None,
    ) -> None:
        self._values[name] = self._live.declare(
            name, default, description, partial(self._values.__setitem__, name),
            limits=limits, check=check,
        )  # fmt: skip

    def _declare_points(self) -> None:
        for name, (field, description, limits) in POINT_PARAMETERS.items():
            value = self._live.declare(
                name,
                getattr(PointSettings(), field),
                description,
                partial(self._set_point, field),
                limits=limits,
                check=partial(self._check_point, field),
            )
            self._set_point(field, value)

    def _check_point(self, field: str, value: Any) -> None:
        replace(self.points, **{field: value})

    def _set_point(self, field: str, value: Any) -> None:
        self.points = replace(self.points, **{field: value})


def _check_vertical(value: Sequence[float]) -> None:
    if len(value) != 3 or not np.isfinite(value).all():
        raise ValueError(f'parameter vertical is {list(value)}, but has to be three numbers')
    if any(value):
        horizontal_basis(value)

"""What of the instances is published: the live parameters that choose it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from msfc.types import Instances
from msfc_ros.parameters import LiveParameters

ALL_CLASSES = ['']
"""The value of ``classes`` that names none; an empty list has no type in ROS 2."""


class Filters:
    """Chooses which instances are published.

    Args:
        live: where parameters are declared that can be changed live.
    """

    def __init__(self, live: LiveParameters) -> None:
        self._names: tuple[str, ...] = ()
        self._classes: Sequence[str] = live.declare(
            'classes',
            ALL_CLASSES,
            "Names of the classes of which instances are published; [''] is all.",
            self._set_classes,
            check=self._check_classes,
        )
        self._max_instances: int = live.declare(
            'max_instances',
            0,
            'Most instances of an image that are published, the surest; 0 is all.',
            self._set_max_instances,
            limits=(0, 65535),
        )
        self._min_area: int = live.declare(
            'min_area',
            0,
            'Instances whose mask has fewer pixels of the camera image are not published.',
            self._set_min_area,
            limits=(0, 2**31 - 1),
        )

    def take_classes(self, names: Sequence[str]) -> None:
        """Know the names of the model's classes, by label.

        Raises:
            ValueError: if ``classes`` has others.
        """
        self._names = tuple(names)
        self._check_classes(self._classes)

    def forget_classes(self) -> None:
        """Know of no model, so that any name will do."""
        self._names = ()

    def apply(self, instances: Instances) -> Instances:
        """Return the instances that are to be published.

        Args:
            instances: best score first.
        """
        wanted = [name for name in self._classes if name]
        if wanted:
            labels = [label for label, name in enumerate(self._names) if name in wanted]
            instances = instances.select(torch.isin(instances.labels, torch.tensor(labels)))
        if self._min_area:
            instances = instances.select(
                instances.masks.flatten(1).sum(1) >= self._min_area
            )
        if self._max_instances:
            instances = instances.select(torch.arange(len(instances)) < self._max_instances)
        return instances

    def _check_classes(self, wanted: Sequence[str]) -> None:
        unknown = [name for name in wanted if name and name not in self._names]
        if self._names and unknown:
            raise ValueError(
                f'parameter classes has {", ".join(map(repr, unknown))}, but the classes of the '
                f'model are {", ".join(self._names)}'
            )

    def _set_classes(self, classes: Sequence[str]) -> None:
        self._classes = classes

    def _set_max_instances(self, number: int) -> None:
        self._max_instances = number

    def _set_min_area(self, pixels: int) -> None:
        self._min_area = pixels

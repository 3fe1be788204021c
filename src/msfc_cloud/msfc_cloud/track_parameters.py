"""The parameters that say how instances are followed over time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

from msfc.pipeline.tracking import TrackSettings
from msfc_ros.parameters import LiveParameters

DESCRIPTIONS: dict[str, tuple[str, tuple[float, float] | None]] = {
    'enabled': ('Follow the instances: an object has the same track_id in all images.', None),
    'max_age': (
        'Seconds, by the stamps of the images, that an object may be out of sight and keep its '
        'track id.',
        (0.0, 3600.0),
    ),
    'min_hits': (
        'Images in a row that an object has to be found in before it gets a track id.',
        (1, 100),
    ),
    'new_score': ('Score with which an object is first followed.', (0.0, 1.0)),
    'high_score': ('Instances with this score or more are matched first.', (0.0, 1.0)),
    'low_score': (
        'Instances with a lower score are not matched. It may be below score_threshold: what is '
        'not published helps to follow an object.',
        (0.0, 1.0),
    ),
    'min_iou': (
        "Intersection over union of an object's predicted box and an instance's.",
        (0.0, 1.0),
    ),
}
"""What each of :class:`msfc.pipeline.tracking.TrackSettings` is, and its limits."""


def declare_tracking(
    live: LiveParameters, apply: Callable[[TrackSettings], None]
) -> None:
    """Declare the parameters.

    Args:
        live: where parameters are declared that can be changed live.
        apply: called with the settings, now and whenever one changes.
    """
    settings = TrackSettings()

    def change(name: str, value: Any) -> None:
        nonlocal settings
        settings = replace(settings, **{name: value})
        apply(settings)

    for field in fields(TrackSettings):
        description, limits = DESCRIPTIONS[field.name]
        value = live.declare(
            f'track.{field.name}',
            field.default,
            description,
            partial(change, field.name),
            limits=limits,
        )
        settings = replace(settings, **{field.name: value})
    apply(settings)

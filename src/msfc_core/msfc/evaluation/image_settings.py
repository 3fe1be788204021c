"""The settings at which image codecs are measured: one place for all of them.

A codec has a setting for each quality, subsampling of the colours and scale. The product of all
(:func:`all_ways`, ``msfc baselines --grid``) takes hours, and most of it is of no use: another
setting is better at fewer bytes. :data:`CHOSEN` are those that were best, or next to it, at some
number of bytes on *validation* images of the tabletop world, so that the test images have no part
in the choice.
"""

from __future__ import annotations

from collections.abc import Mapping

from msfc.evaluation.image_codecs import ImageCodec

CAMERA_SIZE = None
"""In place of a scale: the image as it comes from the camera."""

SCALES: tuple[float | None, ...] = (0.5, 0.75, 1.0, 1.5, CAMERA_SIZE)
"""Of the sides of the image that is sent, against the network's input."""

Ways = Mapping[float | None, tuple[int, ...]]
"""Qualities by scale."""

CHOSEN: Mapping[str, Ways] = {
    'AVIF 4:2:0': {},
    'AVIF 4:4:4': {0.5: (3,), 0.75: (5,), 1.0: (3, 6, 10, 15, 20, 32, 48, 70)},
    'H.265 intra 4:2:0': {0.5: (-47,), 0.75: (-50,), 1.0: (-51, -47, -43)},
    'H.265 intra 4:4:4': {1.0: (-46, -42, -38, -33)},
}
"""By name of the codec; those that are not here are measured at :data:`PLAIN_SCALES`.

Of AVIF 4:2:0 none: 4:4:4 needed 7 % fewer bytes at equal distance of the detector's features.
"""

PLAIN_SCALES: tuple[float | None, ...] = (0.5, 1.0)
"""For codecs that were nowhere best, with all their qualities."""


def chosen_ways(codec: ImageCodec) -> Ways:
    """Return the settings that a codec is measured at."""
    known = CHOSEN.get(codec.name)
    return dict.fromkeys(PLAIN_SCALES, codec.qualities) if known is None else known


def all_ways(codec: ImageCodec) -> Ways:
    """Return every quality at every scale."""
    return dict.fromkeys(SCALES, codec.qualities)

"""Identities over time: which instance of an image is which of the images before.

The work is done by ByteTrack (Zhang et al., ECCV 2022) as the library ``trackers`` has it: a
Kalman filter predicts each box to the stamp of the image, sure instances are matched first and
unsure ones, which nobody need see, keep a track alive in between. Time is that of the stamps, so
frames that were lost on the way count as the time that they took.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from supervision import Detections
from trackers import ByteTrackTracker

from msfc.types import Instances, Size

MAX_TRACKS = 500
"""Tracks beyond which everything begins anew: more objects than any image holds."""

MIN_STEP = 1e-3
"""Seconds by which an image is taken to be newer than one with the same stamp."""

REFERENCE_RATE = 10.0
"""Images per second that the library's noise of the motion is meant for; others are scaled."""


@dataclass(frozen=True)
class TrackSettings:
    """How instances are followed.

    Attributes:
        enabled: whether they are.
        max_age: seconds of the stamps that an object may be out of sight and keep its identity.
        min_hits: images in a row that an object has to be seen in before it gets one.
        new_score: score with which an object is first seen.
        high_score: score from which an instance is matched first.
        low_score: score from which it is matched at all.
        min_iou: intersection over union of the predicted box and an instance's.
    """

    enabled: bool = True
    max_age: float = 2.0
    min_hits: int = 2
    new_score: float = 0.6
    high_score: float = 0.5
    low_score: float = 0.1
    min_iou: float = 0.1


class InstanceTracker:
    """Follows the instances of one camera, in one thread; settings may be set from others.

    Args:
        settings: how.
    """

    _before: int
    _issued: int
    _size: Size
    _stamp: int
    _seconds: float
    _tracker: ByteTrackTracker

    def __init__(self, settings: TrackSettings | None = None) -> None:
        self.settings = settings or TrackSettings()
        self._begin(0)

    @property
    def followed(self) -> int:
        """The number of objects that are followed, in sight or not."""
        return len(self._tracker.tracks)

    def restart(self) -> None:
        """Forget all objects; their identities are not given again."""
        self._begin(self._issued)

    def track(self, instances: Instances, stamp: int, size: Size) -> Instances:
        """Return the instances of the next image with their identities.

        Where time goes back or the size changes everything begins anew, as another camera or
        another recording would. An object that nobody has seen for ``max_age`` comes back as
        another one.

        Args:
            instances: all that were found, the unsure ones as well.
            stamp: of the image in nanoseconds; 0 is none, and without it nothing is followed.
            size: height and width of the image in pixels.
        """
        settings = self.settings
        if not settings.enabled or not stamp:
            self.restart()
            return instances
        if size != self._size or stamp < self._stamp or self.followed > MAX_TRACKS:
            self.restart()
        self._size, self._stamp = size, stamp
        self._apply(settings)
        self._seconds = max(stamp * 1e-9, self._seconds + MIN_STEP)
        ids = np.zeros(len(instances), np.int64)
        scores = instances.scores.numpy()
        (known,) = np.nonzero(scores >= settings.low_score)
        found = self._tracker.update(
            Detections(
                xyxy=instances.boxes.numpy()[known],
                confidence=scores[known],
                data={'index': known},
            ),
            timestamp=self._seconds,
        )
        if len(found):
            # In an order of its own; -1 is an object that has not been seen often enough.
            numbers = np.asarray(found.tracker_id, np.int64)
            given = np.where(numbers < 0, 0, numbers + 1 + self._before)
            ids[np.asarray(found.data['index'])] = given
            self._issued = max(self._issued, int(given.max()))
        return replace(instances, track_ids=torch.from_numpy(ids))

    def _begin(self, issued: int) -> None:
        """Know of no object.

        Args:
            issued: the highest identity that was given.
        """
        self._before = self._issued = issued
        self._size = (0, 0)
        self._stamp = 0
        self._seconds = 0.0
        self._tracker = ByteTrackTracker(frame_rate=REFERENCE_RATE)

    def _apply(self, settings: TrackSettings) -> None:
        tracker = self._tracker
        tracker.maximum_time_without_update = settings.max_age
        tracker.minimum_consecutive_frames = settings.min_hits
        tracker.track_activation_threshold = settings.new_score
        tracker.high_conf_det_threshold = settings.high_score
        tracker.minimum_iou_threshold = settings.min_iou

"""A camera that glides over a tabletop: one smooth arc a shot, framed like the data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mujoco
import numpy as np

from msfc.simulation.camera_model import CameraModel
from msfc.simulation.scene import (
    MIN_MASK_AREA,
    SPLITS,
    WORLD_VERSION,
    Frame,
    TabletopScene,
    scene_rng,
)

PROBE_WIDTH, PROBE_HEIGHT = 160, 120
"""Size of the small views in pixels by which an arc is chosen."""

PROBE_TIMES = (0.0, 0.33, 0.67, 1.0)
"""Places on the arc that are looked at, from 0, its beginning, to 1, its end."""

CANDIDATES = 40
"""Arcs that are looked at before the best of them is taken."""

OBJECTS_IN_VIEW = (3, 6)
"""Fewest and most objects that a view should show."""

SIDES_IN_VIEW = (70.0, 110.0)
"""Limits of a shot's median of sqrt(mask area), in pixels at 320 x 240."""

WHOLE_IN_VIEW = 2
"""Fewest objects in a view that its border should not cut."""

LARGEST_OBJECT = 0.3
"""Part of the picture that no object should exceed."""


@dataclass(frozen=True)
class Arc:
    """A smooth camera movement; MuJoCo's free camera at each time from 0 to 1.

    Attributes:
        lookat: the points looked at in the beginning and at the end in metres, 2 x 3.
        distance: from them in metres, in the beginning and at the end.
        azimuth: in degrees, in the beginning and at the end.
        elevation: in degrees, in the beginning and at the end.
    """

    lookat: np.ndarray
    distance: tuple[float, float]
    azimuth: tuple[float, float]
    elevation: tuple[float, float]

    @classmethod
    def random(cls, rng: np.random.Generator, scene: TabletopScene) -> Arc:
        """Draw an arc around the objects on the table."""
        positions = scene.object_positions()
        on_table = positions[positions[:, 2] > -0.05]
        if not len(on_table):
            on_table = np.zeros((1, 3))
        chosen = on_table[int(rng.integers(len(on_table)))]
        # Between an object and the middle of the nearest ones: that is where several are seen.
        nearest = on_table[np.argsort(np.linalg.norm(on_table - chosen, axis=1))[:5]]
        centre = chosen + rng.uniform(0.3, 1.0) * (nearest.mean(0) - chosen)
        start, sweep = rng.uniform(0, 360), rng.choice([-1, 1]) * rng.uniform(35, 70)
        distance, elevation = rng.uniform(0.28, 0.6), -rng.uniform(28, 60)
        drift = rng.normal(0, 0.015, 3) * [1, 1, 0]
        return cls(
            lookat=np.stack([centre - drift, centre + drift]),
            distance=(distance, distance * rng.uniform(0.8, 1.25)),
            azimuth=(start, start + sweep),
            elevation=(elevation, float(np.clip(elevation + rng.uniform(-12, 12), -65, -25))),
        )

    def camera(self, time: float) -> mujoco.MjvCamera:
        """Return the camera at a time from 0 to 1."""
        # Mostly uniform, softly begun and ended.
        way = 0.7 * time + 0.3 * (3 - 2 * time) * time * time
        camera = mujoco.MjvCamera()
        camera.lookat = self.lookat[0] + way * (self.lookat[1] - self.lookat[0])
        for name in ('distance', 'azimuth', 'elevation'):
            first, last = getattr(self, name)
            setattr(camera, name, first + way * (last - first))
        return camera


def choose_arc(scene: TabletopScene, rng: np.random.Generator) -> Arc:
    """Draw arcs until one frames the objects as the data set does, or return the best drawn."""
    best, least = None, float('inf')
    probe = mujoco.Renderer(scene.model, PROBE_HEIGHT, PROBE_WIDTH)
    probe.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
    try:
        for _ in range(CANDIDATES):
            arc = Arc.random(rng, scene)
            flaw = _flaw(scene, probe, arc)
            if flaw < least:
                best, least = arc, flaw
            if flaw == 0:
                break
    finally:
        probe.close()
    assert best is not None
    return best


def _flaw(scene: TabletopScene, probe: mujoco.Renderer, arc: Arc) -> float:
    """Return how far an arc's views are from what they should be; 0 where they are right."""
    scale = PROBE_HEIGHT / 240
    flaw = 0.0
    sides: list[float] = []
    for time in PROBE_TIMES:
        _, bodies = scene.render(probe, arc.camera(time))
        smallest = MIN_MASK_AREA / 4 * scale**2
        masks = [mask for mask in scene.ground_truth(bodies)[1] if mask.sum() >= smallest]
        areas = [int(mask.sum()) for mask in masks]
        sides.extend(np.sqrt(areas) / scale)
        uncut = sum(not _touches_border(mask) for mask in masks)
        flaw += _outside(len(masks), *OBJECTS_IN_VIEW)
        flaw += max(WHOLE_IN_VIEW - uncut, 0)
        flaw += 10 * max(max(areas, default=0) / bodies.size - LARGEST_OBJECT, 0)
    median = float(np.median(sides)) if sides else 0.0
    return flaw + _outside(median, *SIDES_IN_VIEW) / 10


def _touches_border(mask: np.ndarray) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


def _outside(value: float, low: float, high: float) -> float:
    return float(max(low - value, 0, value - high))


class Shot:
    """One scene filmed by one camera on one arc.

    Args:
        split: split whose scene it is.
        index: of the scene in its split; decides everything but the sizes.
        width: of the image in pixels.
        height: of the image in pixels.
    """

    def __init__(self, split: str, index: int, width: int = 640, height: int = 480) -> None:
        self.scene = TabletopScene(scene_rng(split, index), width, height)
        # A generator of its own: the scene's decides the data set's pictures.
        self._rng = np.random.default_rng([WORLD_VERSION, SPLITS[split], index, 1])
        self.camera_model = CameraModel.random(self._rng)
        self.arc = choose_arc(self.scene, self._rng)

    @property
    def fovy(self) -> float:
        """The camera's vertical field of view in degrees."""
        return float(self.scene.model.vis.global_.fovy)

    def camera(self, number: int, count: int) -> mujoco.MjvCamera:
        """Return the camera of a frame of ``count``, from 0."""
        return self.arc.camera(number / max(count - 1, 1))

    def frames(self, count: int, depth: bool = False) -> Iterator[Frame]:
        """Film the arc in ``count`` frames, with fresh noise in each.

        Args:
            count: how many.
            depth: whether to render the depth as well.
        """
        with self.scene.renderer() as renderer:
            for k in range(count):
                camera = self.camera(k, count)
                image, bodies = self.scene.render(renderer, camera)
                truth = self.scene.ground_truth(bodies)
                yield Frame(
                    self.camera_model.apply(image, self._rng),
                    *truth,
                    depth=self.scene.depth(renderer, camera) if depth else None,
                )

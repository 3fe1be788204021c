"""Random tabletop scenes: built, dropped, settled by physics, framed and rendered off-screen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np

# A machine without a screen renders through EGL; the choice must precede MuJoCo's import.
os.environ.setdefault('MUJOCO_GL', 'egl')

import mujoco

from msfc.simulation.camera_model import CameraModel
from msfc.simulation.objects import (
    CLASS_NAMES,
    GEOM,
    OBJECT_CLASSES,
    TYPICAL_COLOURS,
    ObjectBuilder,
    random_colour,
)

FRAMES_PER_SCENE = 4
"""Pictures of one set of objects; they are dropped, lit and framed anew for each."""

WORLD_VERSION = 2
"""Goes into every seed; raised whenever the same seed would give another scene."""

SPLITS = {
    'train': 0, 'val': 1, 'test': 2, 'clip': 3, 'empty_train': 4, 'empty_val': 5,
    'evening_train': 6, 'evening_val': 7,
}
"""Split names; a scene's seed is (WORLD_VERSION, split, index), so splits never overlap."""

EMPTY_SPLITS = ('empty_train', 'empty_val')
"""Splits of tables without objects, with or without clutter: there is nothing to detect."""

TIME_STEP = 0.004
MAX_LIGHTS = 3
SETTLE_STEPS = 300
MIN_MASK_AREA = 256
"""Visible pixels of the source image under which an object is marked ``iscrowd`` (ignored)."""

SURFACES = ('table', 'floor', 'wall', 'object')
"""Classes of a frame's pixels, by their value: what is behind everything is the wall, and what
lies on the table an object, with a class of its own or without one."""

TABLE, FLOOR, WALL, OBJECT = range(len(SURFACES))

SPREAD = 0.45
"""Of the log-normal of the framed object's aimed-at size; see :class:`Surroundings`."""


@dataclass(frozen=True)
class Surroundings:
    """Light and camera of a world; ranges are drawn from evenly.

    Attributes:
        ambient: light that comes from everywhere.
        headlight: light from the camera's place.
        brightness: of the first lamp.
        warmth: blue over red of the lamps.
        elevation: of the camera over what it looks at, in degrees.
        median_side: median of the framed object's aimed-at size at 320 x 240, in pixels; others
            lie where they lie.
    """

    ambient: tuple[float, float] = (0.1, 0.4)
    headlight: tuple[float, float] = (0.0, 0.3)
    brightness: tuple[float, float] = (0.25, 0.8)
    warmth: tuple[float, float] = (0.85, 1.0)
    elevation: tuple[float, float] = (22, 75)
    median_side: float = 130.0


EVENING = Surroundings(
    ambient=(0.04, 0.12), headlight=(0.0, 0.05), brightness=(0.3, 0.6), warmth=(0.4, 0.6),
    elevation=(12, 35), median_side=75.0,
)
"""Lamplight, and a camera that stands low and farther away: for what was fitted to the rest."""


@dataclass(frozen=True)
class Frame:
    """One image of a scene with its ground truth.

    Attributes:
        image: H x W x 3 uint8 RGB, as the camera gives it.
        labels: class index of each visible object.
        masks: H x W bool per visible object, visible part only.
        identities: number of each visible object in its scene, from 1: the same in all views.
        depth: H x W float32 true depth along the optical axis in metres, where it was asked for.
        surfaces: H x W uint8, the index of each pixel's class in :data:`SURFACES`, in frames
            of data sets.
    """

    image: np.ndarray
    labels: list[int]
    masks: list[np.ndarray]
    identities: list[int]
    depth: np.ndarray | None = None
    surfaces: np.ndarray | None = None


def scene_rng(split: str, index: int) -> np.random.Generator:
    """Return the generator that decides everything about a scene."""
    return np.random.default_rng([WORLD_VERSION, SPLITS[split], index])


def _surface(rng: np.random.Generator, size: int = 256) -> np.ndarray:
    """Draw a table or floor texture, size x size x 3 uint8: noise, wood-like grain or tiles."""
    first, second = (np.array(random_colour(rng)) for _ in range(2))
    # Seen textures are mostly tame: keep the two colours near each other.
    second = first + (second - first) * rng.uniform(0.1, 0.8)
    stretch = (1.0, 1.0) if rng.random() < 0.5 else (rng.uniform(4, 16), 1.0)
    weight = np.zeros((size, size), np.float32)
    for octave in range(5):
        cells = 4 * 2**octave
        shape = (max(2, int(cells / stretch[1])), max(2, int(cells / stretch[0])))
        noise = rng.random(shape, dtype=np.float32)
        weight += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    weight = (weight - weight.min()) / max(float(np.ptp(weight)), 1e-6)
    if rng.random() < 0.25:
        tiles = int(rng.integers(2, 9))
        grid = np.indices((size, size)) * tiles // size
        weight = 0.7 * (grid.sum(0) % 2) + 0.3 * weight
    colour = first + (second - first) * weight[..., None]
    return (np.clip(colour, 0, 1) * 255).astype(np.uint8)


class TabletopScene:
    """A table and a set of objects that can be thrown onto it again and again.

    Args:
        rng: decides every random choice; the same generator state gives the same scene.
        width: of the image in pixels.
        height: of the image in pixels.
        empty: leave out the objects; clutter may lie there.
        surroundings: light and camera.

    Attributes:
        labels: classes of the objects.
        bodies: their bodies' ids in MuJoCo.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        width: int = 640,
        height: int = 480,
        empty: bool = False,
        surroundings: Surroundings | None = None,
    ) -> None:
        self._rng, self._empty = rng, empty
        self._around = surroundings or Surroundings()
        self.width, self.height = width, height
        self.labels: list[int] = []
        self._radii: list[float] = []
        self.model = self._build()
        self.data = mujoco.MjData(self.model)
        self.bodies: list[int] = [
            self.model.body(f'object{k}').id for k in range(len(self.labels))
        ]
        self.throw()

    def _texture(self, spec: mujoco.MjSpec, name: str, repeat: float) -> str:
        image = _surface(self._rng)
        texture = spec.add_texture(
            name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=image.shape[1],
            height=image.shape[0], nchannel=3,
        )
        texture.data = image.tobytes()
        material = spec.add_material(
            name=name, specular=self._rng.uniform(0, 0.4), shininess=self._rng.uniform(0, 0.6),
            texrepeat=[repeat, repeat], texuniform=True,
        )
        roles = [''] * mujoco.mjtTextureRole.mjNTEXROLE
        roles[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
        material.textures = roles
        return name

    def _build(self) -> mujoco.MjModel:
        rng = self._rng
        spec = mujoco.MjSpec()
        spec.option.timestep = TIME_STEP
        spec.visual.global_.offwidth, spec.visual.global_.offheight = self.width, self.height
        spec.visual.quality.shadowsize = 2048
        spec.visual.map.znear = 0.02
        ambient = rng.uniform(*self._around.ambient)
        spec.visual.headlight.ambient = [ambient] * 3
        spec.visual.headlight.diffuse = [rng.uniform(*self._around.headlight)] * 3
        world = spec.worldbody
        spec.add_texture(
            name='sky', type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
            builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT, width=64, height=64,
            rgb1=random_colour(rng), rgb2=random_colour(rng),
        )
        table = rng.uniform(0.45, 0.8, 2)
        world.add_geom(
            name='table', type=GEOM.mjGEOM_BOX, size=[*table, 0.02], pos=[0, 0, -0.02],
            material=self._texture(spec, 'table', rng.uniform(1, 4)), condim=6,
            friction=[1.0, 0.02, 0.01],
        )
        world.add_geom(
            name='floor', type=GEOM.mjGEOM_PLANE, size=[6, 6, 0.1], pos=[0, 0, -0.75],
            material=self._texture(spec, 'floor', rng.uniform(0.3, 2)),
        )
        for k in range(MAX_LIGHTS):
            world.add_light(
                type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, castshadow=k == 0,
                specular=[0.3] * 3, ambient=[0.0] * 3,
            )
        self._add_objects(spec)
        return spec.compile()

    def _add_objects(self, spec: mujoco.MjSpec) -> None:
        rng = self._rng
        for k in range(0 if self._empty else int(rng.integers(3, 8))):
            label = int(rng.integers(len(CLASS_NAMES)))
            body = spec.worldbody.add_body(name=f'object{k}')
            body.add_freejoint()
            name = CLASS_NAMES[label]
            scale = float(rng.uniform(0.8, 1.25))
            builder = ObjectBuilder(spec, body, rng, scale, TYPICAL_COLOURS[name])
            self._radii.append(OBJECT_CLASSES[name](builder) * scale)
            self.labels.append(label)
        for k in range(int(rng.integers(0, 3))):
            body = spec.worldbody.add_body(name=f'clutter{k}')
            body.add_freejoint()
            builder = ObjectBuilder(spec, body, rng)
            if rng.random() < 0.5:
                stick = (0.004, rng.uniform(0.05, 0.08))
                builder.geom(GEOM.mjGEOM_CAPSULE, stick, builder.material())
            else:
                card = (*rng.uniform(0.03, 0.06, 2), 0.001)
                builder.geom(GEOM.mjGEOM_BOX, card, builder.material())

    def throw(self) -> None:
        """Light the table anew, drop everything onto it at random and let it settle."""
        self._draw_lights()
        mujoco.mj_resetData(self.model, self.data)
        placed: list[tuple[np.ndarray, float]] = []
        for joint in range(self.model.njnt):
            start = self.model.jnt_qposadr[joint]
            radius = self._radii[joint] if joint < len(self._radii) else 0.04
            pose = [*self._free_spot(placed, radius), self._rng.uniform(0.06, 0.16)]
            self.data.qpos[start:start + 7] = [*pose, *self._random_pose()]
        for _ in range(SETTLE_STEPS):
            mujoco.mj_step(self.model, self.data)

    def _draw_lights(self) -> None:
        rng = self._rng
        count = int(rng.integers(1, MAX_LIGHTS + 1))
        for k in range(MAX_LIGHTS):
            position = np.array([*rng.uniform(-1.2, 1.2, 2), rng.uniform(0.8, 2.0)])
            brightness = rng.uniform(*self._around.brightness) / (1 + 0.6 * k) * (k < count)
            warmth = rng.uniform(*self._around.warmth)
            self.model.light_pos[k] = position
            self.model.light_dir[k] = -position / np.linalg.norm(position)
            self.model.light_diffuse[k] = brightness * np.array([1, (1 + warmth) / 2, warmth])

    def _random_pose(self) -> np.ndarray:
        """Draw a quaternion: mostly upright with any heading, else anyhow."""
        rng = self._rng
        if rng.random() < 0.85:
            half = rng.uniform(0, np.pi)
            return np.array([np.cos(half), 0, 0, np.sin(half)])
        quaternion = rng.normal(size=4)
        return quaternion / np.linalg.norm(quaternion)

    def _free_spot(
        self, placed: list[tuple[np.ndarray, float]], radius: float
    ) -> np.ndarray:
        """Draw a place on the table near the others but not inside them."""
        reach = 0.05
        while True:
            spot = self._rng.normal(0, reach, 2)
            if all(
                np.linalg.norm(spot - other) > 0.85 * (radius + r) for other, r in placed
            ):
                placed.append((spot, radius))
                return spot
            reach += 0.001

    def object_positions(self) -> np.ndarray:
        """Return the objects' positions in metres, K x 3."""
        return np.array([self.data.xpos[body] for body in self.bodies])

    def random_camera(self) -> mujoco.MjvCamera:
        """Frame an object as COCO frames its own: its size is drawn, not its place."""
        if self._empty:
            return self._camera_at_table()
        rng = self._rng
        positions = self.object_positions()
        on_table = [k for k, p in enumerate(positions) if p[2] > -0.05] or [0]
        chosen = int(rng.choice(on_table))
        focal = 0.5 * self.height / np.tan(np.deg2rad(self.model.vis.global_.fovy) / 2)
        side = np.exp(rng.normal(np.log(self._around.median_side), SPREAD)) * self.height / 240
        distance = np.clip(focal * 1.6 * self._radii[chosen] / side, 0.16, 0.65)
        # Between the object and its neighbours, so that few are cut off at the border.
        middle = 0.25 * positions[chosen] + 0.75 * positions[on_table].mean(0)
        return self._camera_towards(middle + rng.normal(0, 0.02, 3), distance)

    def _camera_at_table(self) -> mujoco.MjvCamera:
        """Look anywhere at the table, from the distances at which objects are framed."""
        rng = self._rng
        place = np.array([*rng.uniform(-0.2, 0.2, 2), 0.0])
        return self._camera_towards(place, rng.uniform(0.16, 0.65))

    def _camera_towards(self, place: np.ndarray, distance: float) -> mujoco.MjvCamera:
        camera = mujoco.MjvCamera()
        camera.lookat, camera.distance = place, distance
        camera.azimuth = self._rng.uniform(0, 360)
        camera.elevation = -self._rng.uniform(*self._around.elevation)
        return camera

    @contextmanager
    def renderer(self) -> Iterator[mujoco.Renderer]:
        """Open an off-screen renderer for this scene; closed on leaving."""
        renderer = mujoco.Renderer(self.model, self.height, self.width)
        try:
            yield renderer
        finally:
            renderer.close()

    def render(
        self, renderer: mujoco.Renderer, camera: mujoco.MjvCamera
    ) -> tuple[np.ndarray, np.ndarray]:
        """Render a view.

        Returns:
            image: H x W x 3 uint8 RGB, without the camera model.
            bodies: H x W body id per pixel, -1 where there is none.
        """
        image, geoms = self._render(renderer, camera)
        return image, self._bodies(geoms)

    def _render(
        self, renderer: mujoco.Renderer, camera: mujoco.MjvCamera
    ) -> tuple[np.ndarray, np.ndarray]:
        """Render a view: the image, and H x W geom id per pixel, -1 where there is none."""
        renderer.update_scene(self.data, camera)
        image = renderer.render().copy()
        renderer.enable_segmentation_rendering()
        renderer.update_scene(self.data, camera)
        segmentation = renderer.render()
        renderer.disable_segmentation_rendering()
        # int(): NumPy would compare every pixel with the enumeration object itself.
        is_geom = segmentation[..., 1] == int(mujoco.mjtObj.mjOBJ_GEOM)
        return image, np.where(is_geom, segmentation[..., 0], -1)

    def _bodies(self, geoms: np.ndarray) -> np.ndarray:
        return np.where(geoms >= 0, self.model.geom_bodyid[geoms], -1)

    def surfaces(self, geoms: np.ndarray) -> np.ndarray:
        """Return the class of each pixel, an index into :data:`SURFACES`.

        Args:
            geoms: H x W geom id per pixel, -1 where there is none.
        """
        classes = np.full(self.model.ngeom + 1, OBJECT, np.uint8)
        classes[self.model.geom('table').id] = TABLE
        classes[self.model.geom('floor').id] = FLOOR
        classes[-1] = WALL
        return classes[geoms]

    def depth(self, renderer: mujoco.Renderer, camera: mujoco.MjvCamera) -> np.ndarray:
        """Render the depth of a view along the optical axis in metres, H x W float32."""
        renderer.enable_depth_rendering()
        try:
            renderer.update_scene(self.data, camera)
            return np.array(renderer.render(), np.float32)
        finally:
            renderer.disable_depth_rendering()

    def ground_truth(
        self, bodies: np.ndarray
    ) -> tuple[list[int], list[np.ndarray], list[int]]:
        """Return label, visible mask and number of each object seen in a body-id image."""
        labels: list[int] = []
        masks: list[np.ndarray] = []
        identities: list[int] = []
        for number, (body, label) in enumerate(zip(self.bodies, self.labels, strict=True), 1):
            mask = bodies == body
            if mask.any():
                labels.append(label)
                masks.append(mask)
                identities.append(number)
        return labels, masks, identities

    def frame(self, renderer: mujoco.Renderer, attempts: int = 6) -> Frame:
        """Frame the objects at random and take a picture through a random camera model."""
        for _ in range(attempts):
            image, geoms = self._render(renderer, self.random_camera())
            bodies = self._bodies(geoms)
            labels, masks, identities = self.ground_truth(bodies)
            areas = [int(mask.sum()) for mask in masks]
            # Neither an empty view, unless it is to be one, nor one with the lens at an object.
            if self._empty or (areas and MIN_MASK_AREA <= max(areas) < 0.45 * bodies.size):
                break
        camera_model = CameraModel.random(self._rng)
        return Frame(
            camera_model.apply(image, self._rng), labels, masks, identities,
            surfaces=self.surfaces(geoms),
        )


def frames(split: str, index: int, width: int = 640, height: int = 480) -> Iterator[Frame]:
    """Yield the :data:`FRAMES_PER_SCENE` pictures of scene ``index`` of a split."""
    around = EVENING if split.startswith('evening') else None
    scene = TabletopScene(
        scene_rng(split, index), width, height, split in EMPTY_SPLITS, around
    )
    with scene.renderer() as renderer:
        for k in range(FRAMES_PER_SCENE):
            if k:
                scene.throw()
            yield scene.frame(renderer)

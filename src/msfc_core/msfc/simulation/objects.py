"""The tabletop's object classes, built from MuJoCo primitives and its built-in meshes.

Each class is a function that adds geoms to a body and returns the object's bounding radius in
metres. Proportions, colours and surface patterns are drawn from the generator that it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np

Rgb = tuple[float, float, float]

GEOM = mujoco.mjtGeom


def random_colour(rng: np.random.Generator) -> Rgb:
    """Draw an RGB colour in [0, 1], evenly over hue, with muted and dark ones among them."""
    hue = rng.uniform(0, 6)
    saturation = rng.uniform(0.1, 1.0)
    value = rng.uniform(0.25, 0.98)
    ramp = np.clip(np.abs(np.mod(hue + np.array([0.0, 4.0, 2.0]), 6) - 3) - 1, 0, 1)
    rgb = value * (1 - saturation * (1 - ramp))
    return (float(rgb[0]), float(rgb[1]), float(rgb[2]))


TYPICAL_COLOURS: dict[str, tuple[Rgb, ...]] = {
    'ball': ((0.85, 0.2, 0.15), (0.95, 0.55, 0.1), (0.75, 0.9, 0.2)),
    'bottle': ((0.1, 0.4, 0.2), (0.4, 0.25, 0.1), (0.15, 0.5, 0.45)),
    'bowl': ((0.25, 0.4, 0.75), (0.3, 0.6, 0.75), (0.2, 0.3, 0.5)),
    'box': ((0.7, 0.52, 0.33), (0.6, 0.43, 0.26), (0.78, 0.62, 0.42)),
    'can': ((0.75, 0.1, 0.12), (0.65, 0.67, 0.7), (0.1, 0.25, 0.6)),
    'cone': ((0.95, 0.4, 0.08), (0.9, 0.3, 0.05), (0.98, 0.5, 0.15)),
    'donut': ((0.9, 0.5, 0.65), (0.45, 0.26, 0.15), (0.85, 0.65, 0.4)),
    'dumbbell': ((0.15, 0.15, 0.17), (0.35, 0.35, 0.38), (0.45, 0.2, 0.55)),
    'hammer': ((0.65, 0.45, 0.25), (0.45, 0.47, 0.5), (0.75, 0.15, 0.1)),
    'mug': ((0.95, 0.93, 0.88), (0.2, 0.55, 0.55), (0.85, 0.75, 0.3)),
    'mushroom': ((0.75, 0.15, 0.12), (0.6, 0.42, 0.28), (0.85, 0.72, 0.55)),
    'plate': ((0.93, 0.93, 0.9), (0.8, 0.85, 0.9), (0.9, 0.87, 0.75)),
}
"""Colours that such things often have; :data:`TYPICAL_SHARE` of all parts have one of them."""

TYPICAL_SHARE = 0.7
PATTERNED_SHARE = 0.25


@dataclass
class ObjectBuilder:
    """Adds one object's geoms to a body.

    Attributes:
        spec: the model under construction.
        body: the body that carries the object.
        rng: source of all random choices.
        scale: size factor of the whole object.
        typical: colours to prefer; without any, all colours are equally likely.
    """

    spec: mujoco.MjSpec
    body: mujoco.MjsBody
    rng: np.random.Generator
    scale: float = 1.0
    typical: tuple[Rgb, ...] = ()
    _count: int = field(default=0, init=False)

    def colour(self) -> Rgb:
        """Draw a colour: often a typical one, give or take a little, else any."""
        if not self.typical or self.rng.random() >= TYPICAL_SHARE:
            return random_colour(self.rng)
        chosen = self.typical[int(self.rng.integers(len(self.typical)))]
        red, green, blue = np.clip(np.array(chosen) + self.rng.normal(0, 0.05, 3), 0.02, 0.98)
        return (float(red), float(green), float(blue))

    def material(self, colour: Rgb | None = None, patterned: bool = True) -> str:
        """Add a material of random finish and return its name."""
        rng = self.rng
        name = f'{self.body.name}_material{self._count}'
        self._count += 1
        colour = colour or self.colour()
        material = self.spec.add_material(
            name=name,
            rgba=[*colour, 1.0],
            specular=rng.uniform(0.0, 0.7),
            shininess=rng.uniform(0.1, 0.9),
        )
        if patterned and rng.random() < PATTERNED_SHARE:
            second = random_colour(rng)
            self.spec.add_texture(
                name=name,
                type=mujoco.mjtTexture.mjTEXTURE_CUBE,
                builtin=rng.choice([
                    mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
                    mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
                    mujoco.mjtBuiltin.mjBUILTIN_FLAT,
                ]),
                mark=mujoco.mjtMark.mjMARK_RANDOM,
                random=rng.uniform(0.005, 0.1),
                rgb1=colour,
                rgb2=second,
                markrgb=random_colour(rng),
                width=48,
                height=48,
            )
            roles = [''] * mujoco.mjtTextureRole.mjNTEXROLE
            roles[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
            material.textures = roles
            material.rgba = [1, 1, 1, 1]
            material.texrepeat = [1, 1]
        return name

    def geom(
        self,
        kind: mujoco.mjtGeom,
        size: tuple[float, ...],
        material: str,
        position: tuple[float, float, float] = (0, 0, 0),
        quaternion: tuple[float, float, float, float] = (1, 0, 0, 0),
        solid: bool = True,
    ) -> None:
        """Add a primitive; ``size`` and ``position`` in metres, before scaling."""
        padded = (*size, 0.0, 0.0, 0.0)[:3]
        scaled = [value * self.scale for value in padded]
        self._add(material, position, quaternion, solid, type=kind, size=scaled)

    def mesh(
        self,
        make: Callable[[mujoco.MjsMesh], None],
        scale: tuple[float, float, float],
        material: str,
        position: tuple[float, float, float] = (0, 0, 0),
        quaternion: tuple[float, float, float, float] = (1, 0, 0, 0),
        solid: bool = True,
    ) -> None:
        """Add a built-in mesh; ``scale`` gives its half extents in metres, before scaling."""
        name = f'{self.body.name}_mesh{self._count}'
        self._count += 1
        mesh = self.spec.add_mesh(name=name)
        make(mesh)
        mesh.scale = [value * self.scale for value in scale]
        self._add(material, position, quaternion, solid, type=GEOM.mjGEOM_MESH, meshname=name)

    def _add(
        self,
        material: str,
        position: tuple[float, float, float],
        quaternion: tuple[float, float, float, float],
        solid: bool,
        **shape: Any,
    ) -> None:
        self.body.add_geom(
            pos=[value * self.scale for value in position],
            quat=list(quaternion),
            material=material,
            density=400,
            friction=[1.0, 0.02, 0.01],
            condim=6,
            contype=int(solid),
            conaffinity=int(solid),
            **shape,
        )


HALF_TURN_X = (0.0, 1.0, 0.0, 0.0)
QUARTER_TURN_X = (0.70710678, 0.70710678, 0.0, 0.0)
QUARTER_TURN_Y = (0.70710678, 0.0, 0.70710678, 0.0)
DARK: Rgb = (0.07, 0.07, 0.08)


def _ball(b: ObjectBuilder) -> float:
    radius = b.rng.uniform(0.035, 0.055)
    b.geom(GEOM.mjGEOM_SPHERE, (radius,), b.material())
    return radius


def _box(b: ObjectBuilder) -> float:
    half = b.rng.uniform(0.025, 0.065, 3)
    b.geom(GEOM.mjGEOM_BOX, tuple(half), b.material())
    return float(np.linalg.norm(half[:2]))


def _can(b: ObjectBuilder) -> float:
    radius, half = b.rng.uniform(0.028, 0.038), b.rng.uniform(0.04, 0.065)
    b.geom(GEOM.mjGEOM_CYLINDER, (radius, half), b.material())
    rim = b.material((0.75, 0.76, 0.78), patterned=False)
    for side in (-1, 1):
        b.geom(GEOM.mjGEOM_CYLINDER, (radius * 0.93, 0.003), rim, (0, 0, side * (half + 0.002)))
    return half


def _cone(b: ObjectBuilder) -> float:
    radius, height = b.rng.uniform(0.03, 0.045), b.rng.uniform(0.09, 0.14)
    material = b.material()
    b.mesh(
        lambda mesh: mesh.make_cone(24, b.rng.uniform(0.0, 0.2)),
        (radius, radius, height / 2), material, (0, 0, height / 2),
    )
    base = radius * b.rng.uniform(1.1, 1.3)
    b.geom(GEOM.mjGEOM_CYLINDER, (base, 0.004), b.material(patterned=False), (0, 0, -0.002))
    return max(base, height / 2)


def _donut(b: ObjectBuilder) -> float:
    radius, tube = b.rng.uniform(0.05, 0.07), b.rng.uniform(0.3, 0.42)
    b.mesh(
        lambda mesh: mesh.make_supertorus(24, tube, 1.0, 1.0),
        (radius, radius, radius), b.material(),
    )
    return radius * 1.2


def _mug(b: ObjectBuilder) -> float:
    radius, half = b.rng.uniform(0.036, 0.048), b.rng.uniform(0.04, 0.058)
    colour = b.colour()
    b.geom(GEOM.mjGEOM_CYLINDER, (radius, half), b.material(colour))
    b.geom(
        GEOM.mjGEOM_CYLINDER, (radius * 0.86, 0.001),
        b.material(DARK, patterned=False), (0, 0, half + 0.0005), solid=False,
    )
    ring = half * b.rng.uniform(0.5, 0.65)
    b.mesh(
        lambda mesh: mesh.make_supertorus(20, 0.22, 1.0, 1.0),
        (ring, ring, ring * 0.8), b.material(colour, patterned=False),
        (radius, 0, 0), QUARTER_TURN_X, solid=False,
    )
    return radius + ring


def _bowl(b: ObjectBuilder) -> float:
    radius, depth = b.rng.uniform(0.06, 0.085), b.rng.uniform(0.035, 0.055)
    b.mesh(
        lambda mesh: mesh.make_hemisphere(8), (radius, radius, depth), b.material(),
        (0, 0, depth), HALF_TURN_X,
    )
    inside = b.colour()
    b.geom(
        GEOM.mjGEOM_CYLINDER, (radius * 0.9, 0.0008),
        b.material((inside[0] * 0.5, inside[1] * 0.5, inside[2] * 0.5), patterned=False),
        (0, 0, depth + 0.0006), solid=False,
    )
    return radius


def _bottle(b: ObjectBuilder) -> float:
    radius, half = b.rng.uniform(0.026, 0.036), b.rng.uniform(0.05, 0.075)
    colour = b.colour()
    glass = b.material(colour)
    b.geom(GEOM.mjGEOM_CYLINDER, (radius, half), glass)
    b.geom(GEOM.mjGEOM_ELLIPSOID, (radius, radius, radius * 1.2), glass, (0, 0, half))
    neck = b.rng.uniform(0.02, 0.035)
    top = half + radius * 1.1
    b.geom(GEOM.mjGEOM_CYLINDER, (radius * 0.38, neck), glass, (0, 0, top))
    b.geom(
        GEOM.mjGEOM_CYLINDER, (radius * 0.46, 0.008),
        b.material(patterned=False), (0, 0, top + neck),
    )
    return half + neck


def _plate(b: ObjectBuilder) -> float:
    radius = b.rng.uniform(0.075, 0.105)
    b.geom(GEOM.mjGEOM_CYLINDER, (radius, 0.005), b.material())
    b.geom(
        GEOM.mjGEOM_CYLINDER, (radius * b.rng.uniform(0.6, 0.75), 0.0015),
        b.material(), (0, 0, 0.005),
    )
    return radius


def _dumbbell(b: ObjectBuilder) -> float:
    half, radius = b.rng.uniform(0.05, 0.075), b.rng.uniform(0.026, 0.038)
    b.geom(
        GEOM.mjGEOM_CAPSULE, (radius * b.rng.uniform(0.3, 0.45), half),
        b.material(patterned=False), quaternion=QUARTER_TURN_Y,
    )
    weight = b.material()
    for side in (-1, 1):
        if b.scale > 1.0:
            b.geom(GEOM.mjGEOM_SPHERE, (radius,), weight, (side * half, 0, 0))
        else:
            b.geom(
                GEOM.mjGEOM_CYLINDER, (radius, 0.016), weight, (side * half, 0, 0),
                QUARTER_TURN_Y,
            )
    return half + radius


def _hammer(b: ObjectBuilder) -> float:
    half, head = b.rng.uniform(0.065, 0.09), b.rng.uniform(0.03, 0.042)
    b.geom(
        GEOM.mjGEOM_CAPSULE, (b.rng.uniform(0.008, 0.012), half),
        b.material(), quaternion=QUARTER_TURN_Y,
    )
    b.geom(
        GEOM.mjGEOM_BOX, (0.015, head, 0.016), b.material(patterned=False), (half, 0, 0)
    )
    return half + 0.02


def _mushroom(b: ObjectBuilder) -> float:
    cap, stem = b.rng.uniform(0.045, 0.065), b.rng.uniform(0.02, 0.035)
    b.geom(
        GEOM.mjGEOM_CYLINDER, (cap * b.rng.uniform(0.3, 0.42), stem),
        b.material((0.9, 0.86, 0.76), patterned=False),
    )
    b.mesh(
        lambda mesh: mesh.make_hemisphere(8),
        (cap, cap, cap * b.rng.uniform(0.6, 0.95)), b.material(), (0, 0, stem),
    )
    return cap


OBJECT_CLASSES: dict[str, Callable[[ObjectBuilder], float]] = {
    'ball': _ball,
    'bottle': _bottle,
    'bowl': _bowl,
    'box': _box,
    'can': _can,
    'cone': _cone,
    'donut': _donut,
    'dumbbell': _dumbbell,
    'hammer': _hammer,
    'mug': _mug,
    'mushroom': _mushroom,
    'plate': _plate,
}

CLASS_NAMES: tuple[str, ...] = tuple(OBJECT_CLASSES)
"""Names of the classes; a label is an index into them."""

"""What is true of a scene in metres: where the camera is, and what boxes its objects fill."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from msfc.geometry.boxes import OrientedBox, smallest_box
from msfc.geometry.transforms import RigidTransform
from msfc.simulation.scene import TabletopScene

UP = np.array([0.0, 0.0, 1.0])
"""What points up in the world."""

STEPS = 24
"""Points around what is round."""


def optical_frame(camera: mujoco.MjvCamera) -> RigidTransform:
    """Return what takes the world's coordinates to those of a free camera's optical frame."""
    azimuth, elevation = np.deg2rad(camera.azimuth), np.deg2rad(camera.elevation)
    heading = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    forward = np.cos(elevation) * heading + np.sin(elevation) * UP
    right = np.cross(forward, UP)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    position = np.asarray(camera.lookat) - camera.distance * forward
    return RigidTransform(rotation, -rotation @ position)


def object_boxes(scene: TabletopScene) -> list[OrientedBox]:
    """Return the smallest upright box of each object in the world, seen or not.

    Object k has the number k + 1 among a frame's identities.
    """
    return [smallest_box(outline(scene, body), UP) for body in scene.bodies]


def outline(scene: TabletopScene, body: int) -> NDArray[np.float64]:
    """Return points in the world whose convex hull is an object's, N x 3."""
    model, data = scene.model, scene.data
    first = model.body_geomadr[body]
    parts = []
    for geom in range(first, first + model.body_geomnum[body]):
        local = _geom_outline(model, geom)
        rotation = data.geom_xmat[geom].reshape(3, 3)
        parts.append(local @ rotation.T + data.geom_xpos[geom])
    return np.concatenate(parts)


def _geom_outline(model: mujoco.MjModel, geom: int) -> NDArray[np.float64]:
    """Return points in a geom's own frame whose convex hull is the geom's, N x 3.

    Raises:
        ValueError: if it is of a type that no object has.
    """
    kinds = mujoco.mjtGeom
    kind, size = model.geom_type[geom], model.geom_size[geom]
    if kind == kinds.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        start = model.mesh_vertadr[mesh]
        return np.array(model.mesh_vert[start : start + model.mesh_vertnum[mesh]], np.float64)
    if kind == kinds.mjGEOM_BOX:
        return np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * size
    ball = _sphere()
    if kind == kinds.mjGEOM_SPHERE:
        return ball * size[0]
    if kind == kinds.mjGEOM_ELLIPSOID:
        return ball * size
    if kind == kinds.mjGEOM_CAPSULE:
        ends = np.array([0, 0, size[1]])
        return np.concatenate([ball * size[0] + ends, ball * size[0] - ends])
    if kind == kinds.mjGEOM_CYLINDER:
        around = np.arange(STEPS) * (2 * np.pi / STEPS)
        ring = np.stack([np.cos(around), np.sin(around), np.ones(STEPS)], axis=1)
        return np.concatenate([ring, ring * [1, 1, -1]]) * [size[0], size[0], size[1]]
    raise ValueError(f'a geom of type {kind} has no outline here')


def _sphere() -> NDArray[np.float64]:
    """Return points on the unit sphere, its poles and the ends of its axes among them."""
    around = np.arange(STEPS) * (2 * np.pi / STEPS)
    heights = np.linspace(-np.pi / 2, np.pi / 2, STEPS + 1)
    latitude, longitude = (grid.ravel() for grid in np.meshgrid(heights, around))
    return np.stack(
        [
            np.cos(latitude) * np.cos(longitude),
            np.cos(latitude) * np.sin(longitude),
            np.sin(latitude),
        ],
        axis=1,
    )

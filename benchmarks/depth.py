"""Objects in metres against the simulator's: error of centre and size, by whose masks.

Films shots of the moving camera with a depth camera's faults, and puts the objects into metres as
`msfc_depth` does with its defaults, with `vertical` as it truly is. Compared are upright boxes:

* of the whole object, seen or not: the smallest upright box around it;
* of what is seen of it: around every true depth under its true mask. What lies between the two is
  what no single view can tell.

Objects count that are whole in the image and have 800 visible pixels or more. With `--model` the
masks are those that the pair finds, each of the true object that it overlaps by half or more,
else the true ones. Needs no ROS 2:

    python benchmarks/depth.py --json depth.json
    python benchmarks/depth.py --model tabletop_msfc --scenes 12
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

import harness
from msfc.geometry.boxes import OrientedBox, upright_box
from msfc.geometry.depth import MaskCrop, PointSettings, depth_in_metres, pinhole_rays
from msfc.geometry.objects import locate_objects
from msfc.simulation.depth_camera import DepthCamera
from msfc.simulation.path import Shot
from msfc.simulation.scene import Frame
from msfc.simulation.truth import UP, object_boxes, optical_frame

FIRST_SCENE = 300
"""Of the split `clip`: no scene of the shipped clip, nor one that settings were chosen on."""

LEAST_PIXELS = 800
"""Visible pixels of an object that counts."""

SIZES = ('long side', 'short side', 'height')

Masks = Callable[[Frame], list[NDArray[np.bool_] | None]]
"""Returns the mask of each object of a frame, None where it is not found."""


@dataclass
class Errors:
    """Errors in millimetres, one row an object."""

    whole: list[list[float]] = field(default_factory=list)
    seen: list[list[float]] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return medians and 90 % quantiles."""
        found: dict[str, Any] = {}
        for name, rows in (('whole object', self.whole), ('what is seen', self.seen)):
            values = np.array(rows)
            signed, size = values[:, 1:4], np.abs(values[:, 1:4])
            found[name] = {
                'centre': [float(np.median(values[:, 0])), float(np.quantile(values[:, 0], 0.9))],
                **{
                    side: [float(np.median(signed[:, k])), float(np.quantile(size[:, k], 0.9))]
                    for k, side in enumerate(SIZES)
                },
            }
        return found


def crop_of(mask: NDArray[np.bool_]) -> MaskCrop:
    """Return a mask as the messages carry it."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return MaskCrop(mask[y : y + height, x : x + width], x, y, (mask.shape[0], mask.shape[1]))


def counts(mask: NDArray[np.bool_]) -> bool:
    """Return whether an object counts: large, and not cut off by the image's border."""
    border = mask[[0, -1]].any() or mask[:, [0, -1]].any()
    return not border and int(mask.sum()) >= LEAST_PIXELS


def error(box: OrientedBox, true: OrientedBox, centre: NDArray[np.float64]) -> list[float]:
    """Return the error of the centre and of the three sizes in millimetres."""
    offset = float(np.linalg.norm(box.centre - centre))
    return [1e3 * offset, *(1e3 * (box.size - true.size)).tolist()]


def found_masks(model: str) -> Masks:
    """Return what finds the masks by a model, edge and cloud in this process."""
    from msfc.model_file import load_model
    from msfc.pipeline.cloud import CloudPipeline
    from msfc.pipeline.torch_network import edge_pipeline

    loaded = load_model(model)
    edge, cloud = edge_pipeline(loaded), CloudPipeline(loaded)

    def find(frame: Frame) -> list[NDArray[np.bool_] | None]:
        packet = edge.encode(cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR), 1)
        masks = cloud.decode(packet).instances.above(0.5).masks.numpy()
        return [best_overlap(mask, masks) for mask in frame.masks]

    return find


def best_overlap(
    mask: NDArray[np.bool_], masks: NDArray[np.bool_]
) -> NDArray[np.bool_] | None:
    """Return the mask that overlaps another best, None if none does by half."""
    overlaps = [(m & mask).sum() / max((m | mask).sum(), 1) for m in masks]
    if not overlaps or max(overlaps) < 0.5:
        return None
    return np.asarray(masks[int(np.argmax(overlaps))])


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Film and compare.

    Raises:
        ValueError: if the model cannot be loaded.
    """
    find: Masks = found_masks(options.model) if options.model else lambda frame: [*frame.masks]
    errors, seconds, lost = Errors(), [], 0
    numbers = range(FIRST_SCENE, FIRST_SCENE + options.scenes)
    for scene in track(numbers, 'scenes', console=console):
        shot = Shot('clip', scene)
        boxes = object_boxes(shot.scene)
        rng = np.random.default_rng(scene)
        for number, frame in enumerate(shot.frames(options.frames, depth=True)):
            pose = optical_frame(shot.camera(number, options.frames))
            lost += compare(frame, find(frame), shot.fovy, pose, boxes, rng, errors, seconds)
    summary = errors.summary()
    table = Table(title=f'{len(errors.whole)} objects; errors in mm')
    for column in ('against', 'of', 'median', '90 % below'):
        table.add_column(column)
    for name, values in summary.items():
        for what, (median, high) in values.items():
            table.add_row(name, what, f'{median:+.1f}', f'{high:.1f}')
    console.print(table)
    milliseconds = 1e3 * float(np.median(seconds))
    console.print(f'{lost} not found or without depth; {milliseconds:.1f} ms an object')
    return {
        **harness.describe_machine(), 'model': options.model, 'scenes': options.scenes,
        'frames_per_scene': options.frames, 'objects': len(errors.whole), 'lost': lost,
        'ms_per_object': milliseconds, 'errors_mm': summary,
    }  # fmt: skip


def compare(
    frame: Frame, masks: list[NDArray[np.bool_] | None], fovy: float, pose: Any,
    boxes: list[OrientedBox], rng: np.random.Generator, errors: Errors, seconds: list[float],
) -> int:  # fmt: skip
    """Add the errors of a frame's objects; return how many have none, as they were not found."""
    assert frame.depth is not None
    height, width = frame.depth.shape
    focal = 0.5 * height / np.tan(np.deg2rad(fovy) / 2)
    rays = pinhole_rays((height, width), (focal, focal), ((width - 1) / 2, (height - 1) / 2))
    depth = depth_in_metres(DepthCamera().apply(frame.depth, focal, rng))
    up, lost = pose.rotation @ UP, 0
    for true_mask, mask, identity in zip(frame.masks, masks, frame.identities, strict=True):
        if not counts(true_mask):
            continue
        start = time.perf_counter()
        places = (
            []
            if mask is None
            else list(locate_objects(depth, rays, [crop_of(mask)], PointSettings(), up))
        )
        seconds.append(time.perf_counter() - start)
        if not places:
            lost += 1
            continue
        z = frame.depth[true_mask][:, None]
        seen = upright_box(np.concatenate([rays[true_mask] * z, z], axis=1), up, 0.0)
        box, true = places[0].box, boxes[identity - 1]
        errors.whole.append(error(box, true, pose.apply(true.centre)))
        errors.seen.append(error(box, seen, seen.centre))
    return lost


def main() -> int:
    """Run from the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument('--model', help='name or directory; without it the true masks')
    parser.add_argument('--scenes', type=int, default=16, help='how many (default 16)')
    parser.add_argument('--frames', type=int, default=2, help='of each scene (default 2)')
    options = parser.parse_args()
    if options.scenes < 1 or options.frames < 1:
        parser.error('scenes and frames are 1 or more')
    return 0 if harness.run_benchmark(options, run) else 1


if __name__ == '__main__':
    sys.exit(main())

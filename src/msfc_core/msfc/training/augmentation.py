"""Changes training images at random: cameras at fault, colours, zoom."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import Image, Mask

from msfc.data import Example
from msfc.simulation.camera_model import CameraModel
from msfc.types import Targets

FAULTS = ('covered', 'dark', 'over_exposed', 'noisy', 'blurred', 'no_signal')
"""What can be wrong with a camera. ``covered`` and ``no_signal`` show nothing of the scene."""

BLIND = ('covered', 'no_signal')

MIN_CONTRAST = 3.0
"""Standard deviation, in grey levels of 255, under which nothing is seen in a box."""

MIN_CONTRAST_TO_NOISE = 0.4
"""Share of the noise's standard deviation under which nothing is seen in a box."""

MIN_VISIBLE = 0.1
"""Share of an object's area that must stay in the picture."""

BORDER = (124, 116, 104)
"""Colour around a picture that is made smaller: ImageNet's mean, which detectors subtract."""


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed, besides being mirrored.

    Attributes:
        faults: share of the images whose camera has a fault of :data:`FAULTS`, 0 to 1.
        colour: most by which brightness, contrast and saturation are changed, 0 to 1.
        zoom: largest factor by which an image is made larger or smaller, 1 or more.

    Raises:
        ValueError: an impossible value; the message names the key.
    """

    faults: float = 0.0
    colour: float = 0.0
    zoom: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (('faults', self.faults), ('colour', self.colour)):
            if not 0 <= value <= 1:
                raise ValueError(f'{name} must be in [0, 1]')
        if not 1 <= self.zoom <= 4:
            raise ValueError('zoom must be in [1, 4]')

    def apply(self, example: Example, seed: int) -> Example:
        """Return a changed example; the same seed changes the same example in the same way.

        Objects that cannot be seen any more are left out of the targets.

        Args:
            example: what to change.
            seed: decides all random choices, 0 or more.
        """
        rng = np.random.default_rng(seed)
        with torch.random.fork_rng(devices=[]):
            # torchvision's transforms draw from the global generator.
            torch.manual_seed(seed)
            example = self._transformed(example)
        if rng.random() < self.faults:
            return with_fault(example, str(rng.choice(FAULTS)), rng)
        return example

    def _transformed(self, example: Example) -> Example:
        image, targets = example.image, example.targets
        if self.zoom > 1:
            scale = float(torch.empty(1).uniform_(-1, 1))
            move = v2.RandomAffine(
                degrees=0.0,
                scale=(self.zoom**scale, self.zoom**scale),
                translate=(0.1, 0.1),
                interpolation=v2.InterpolationMode.BILINEAR,
                fill={Image: BORDER, Mask: 0},
            )
            moved, masks = move(Image(image), Mask(targets.masks.to(torch.uint8)))
            image = moved.as_subclass(Tensor)
            areas = targets.masks.sum((1, 2)) * self.zoom ** (2 * scale)
            targets = _of_masks(targets, masks.as_subclass(Tensor).bool(), areas)
        if self.colour:
            jitter = v2.ColorJitter(self.colour, self.colour, self.colour)
            image = jitter(Image(image)).as_subclass(Tensor)
        return replace(example, image=image, targets=targets)


def _of_masks(targets: Targets, masks: Tensor, areas: Tensor) -> Targets:
    """Take boxes from moved masks; leave out what has left the picture.

    Args:
        targets: the objects before.
        masks: K x H x W bool, their masks now.
        areas: K, what their areas would be had nothing left the picture.
    """
    kept = [
        k for k in range(len(masks)) if int(masks[k].sum()) > max(1, MIN_VISIBLE * float(areas[k]))
    ]
    boxes = []
    for k in kept:
        rows, columns = masks[k].any(1).nonzero(), masks[k].any(0).nonzero()
        boxes.append([
            float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1
        ])
    return Targets(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=targets.labels[kept],
        masks=masks[kept],
    )


def with_fault(example: Example, fault: str, rng: np.random.Generator) -> Example:
    """Return an image as a camera with a fault takes it, with the objects that it still shows.

    Args:
        example: of a camera without fault.
        fault: one of :data:`FAULTS`.
        rng: decides how bad it is, and the noise.

    Raises:
        ValueError: an unknown fault.
    """
    if fault not in FAULTS:
        raise ValueError(f'unknown fault {fault!r}: choose from {", ".join(FAULTS)}')
    image = np.ascontiguousarray(example.image.permute(1, 2, 0).numpy())
    if fault in BLIND:
        image = _covered(image, rng) if fault == 'covered' else _no_signal(image, rng)
        seen = np.zeros(len(example.targets.labels), bool)
    else:
        camera = _faulty_camera(fault, rng)
        ideal = replace(camera, full_well=float('inf')).apply(image, rng)
        image = camera.apply(image, rng)
        seen = _visible(example.targets.boxes.numpy(), ideal, image)
    kept = torch.from_numpy(seen)
    targets = example.targets
    return replace(
        example,
        image=torch.from_numpy(image).permute(2, 0, 1),
        targets=Targets(targets.boxes[kept], targets.labels[kept], targets.masks[kept]),
    )


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _faulty_camera(fault: str, rng: np.random.Generator) -> CameraModel:
    """Draw a camera that is far outside of what :meth:`CameraModel.random` gives."""
    camera = CameraModel.random(rng)
    if fault == 'dark':
        return replace(camera, exposure=_log_uniform(rng, 1 / 500, 1 / 4))
    if fault == 'over_exposed':
        return replace(camera, exposure=_log_uniform(rng, 2, 200))
    if fault == 'noisy':
        well = _log_uniform(rng, 2, 200)
        return replace(camera, full_well=well, read_noise=well * rng.uniform(0.02, 0.4))
    return replace(camera, blur=_log_uniform(rng, 2, 10))


def _covered(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Show no light, or a glow of any colour, brighter to one side, with a camera's noise."""
    height, width = image.shape[:2]
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    slope = rng.uniform(-0.5, 0.5, 2)
    glow = (1 + slope[0] * y + slope[1] * x)[..., None] * rng.uniform(0.3, 1, 3)
    level = 0.0 if rng.random() < 0.4 else 255 * rng.beta(0.6, 1.0)
    even = np.clip(level * glow, 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        return even
    return replace(CameraModel.random(rng), exposure=1.0).apply(even, rng)


def _no_signal(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Show noise alone, grey or coloured, fine or in blocks."""
    height, width = image.shape[:2]
    block = int(rng.choice([1, 2, 8, 32]))
    channels = int(rng.choice([1, 3]))
    shape = (-(-height // block), -(-width // block), channels)
    noise = rng.normal(rng.uniform(0, 255), rng.uniform(10, 90), shape)
    noise = noise.repeat(block, 0).repeat(block, 1)[:height, :width]
    return np.broadcast_to(np.clip(noise, 0, 255), image.shape).astype(np.uint8)


def _visible(boxes: np.ndarray, ideal: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """Return which boxes (K x 4) show more than noise and flat colour.

    Args:
        boxes: x1 y1 x2 y2, in pixels.
        ideal: H x W x 3, the image without noise.
        noisy: H x W x 3, with it.
    """
    height, width = ideal.shape[:2]
    grey, noise = ideal.mean(2), noisy.mean(2) - ideal.mean(2)
    seen = np.zeros(len(boxes), bool)
    for k, (x1, y1, x2, y2) in enumerate(boxes):
        # With a margin: an even object is seen by its outline.
        margin = 0.1 * max(x2 - x1, y2 - y1) + 2
        rows = slice(max(0, int(y1 - margin)), min(height, int(y2 + margin)))
        columns = slice(max(0, int(x1 - margin)), min(width, int(x2 + margin)))
        contrast, grain = float(grey[rows, columns].std()), float(noise[rows, columns].std())
        seen[k] = contrast >= max(MIN_CONTRAST, MIN_CONTRAST_TO_NOISE * grain)
    return seen

"""What stands between a render and the image of a real camera.

Lens falloff, defocus, white balance, exposure, photon shot noise and sensor read noise, in that
order, in linear light. Clean renders would flatter image codecs: no robot's camera gives them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

GAMMA = 2.2


@dataclass(frozen=True)
class CameraModel:
    """One camera's imperfections.

    Attributes:
        blur: standard deviation of the defocus in pixels.
        falloff: loss of light in the corners, 0 to 1.
        exposure: gain on linear light.
        tint: white balance gains of R, G and B.
        full_well: electrons at full scale; shot noise has standard deviation sqrt(electrons).
        read_noise: standard deviation of the read noise in electrons.
    """

    blur: float = 0.6
    falloff: float = 0.25
    exposure: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    full_well: float = 4000.0
    read_noise: float = 8.0

    @classmethod
    def random(cls, rng: np.random.Generator) -> CameraModel:
        """Draw a plausible camera, from a good one in daylight to a small one indoors."""
        # Drawn in this order: it decides what a seed gives.
        blur, falloff = float(rng.uniform(0.3, 1.0)), float(rng.uniform(0.0, 0.4))
        exposure = float(np.exp(rng.normal(0.0, 0.2)))
        red, green, blue = rng.uniform(0.92, 1.08, 3).tolist()
        return cls(
            blur=blur,
            falloff=falloff,
            exposure=exposure,
            tint=(red, green, blue),
            full_well=float(np.exp(rng.uniform(np.log(800), np.log(8000)))),
            read_noise=float(rng.uniform(3.0, 15.0)),
        )

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the camera's image of a render; both H x W x 3 uint8 RGB."""
        height, width = image.shape[:2]
        table = (np.arange(256, dtype=np.float32) / 255) ** GAMMA
        light = table[image]
        light = cv2.GaussianBlur(light, (0, 0), self.blur)
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        shade = 1 - self.falloff * (x * x + y * y) / 2
        gains = np.asarray(self.tint, np.float32) * np.float32(self.exposure)
        light *= shade[..., None] * gains
        variance = light / self.full_well + (self.read_noise / self.full_well) ** 2
        light += rng.standard_normal(light.shape, dtype=np.float32) * np.sqrt(variance)
        encoded = np.clip(light, 0, 1) ** np.float32(1 / GAMMA)
        return (encoded * 255 + 0.5).astype(np.uint8)

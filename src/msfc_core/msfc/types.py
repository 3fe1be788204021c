"""What the two halves of a detector hand over: sizes, pyramids, images, targets, instances.

Importing this module does not import torch: a robot without PyTorch needs the sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Size: TypeAlias = tuple[int, int]
"""Height and width, in pixels or in feature cells."""

Pyramid: TypeAlias = 'dict[str, Tensor]'
"""Feature maps by level name (``p2`` .. ``p6``), each N x C x h x w."""

PyramidHook: TypeAlias = 'Callable[[Pyramid], Pyramid]'
"""Takes the extracted pyramid and returns the one that the heads see."""


def pyramid_sizes(strides: Mapping[str, int], padded: Size) -> dict[str, Size]:
    """Return the size in cells of each level, and of ``p6``, for a padded network input size.

    Args:
        strides: of each level in network input pixels, without ``p6``.
        padded: height and width of the network input.
    """
    sizes = {
        level: (-(-padded[0] // stride), -(-padded[1] // stride))
        for level, stride in strides.items()
    }
    coarsest = sizes[max(strides, key=lambda level: strides[level])]
    sizes['p6'] = (-(-coarsest[0] // 2), -(-coarsest[1] // 2))
    return sizes


@dataclass(frozen=True)
class ImageSizes:
    """The three sizes of each image of a batch; all that the heads need to know of the images.

    Attributes:
        source: height and width of each source image in pixels; results have this scale.
        valid: height and width of each image after resizing, before padding.
        padded: height and width of the network input, common to the batch.
    """

    source: tuple[Size, ...]
    valid: tuple[Size, ...]
    padded: Size

    def __post_init__(self) -> None:
        if len(self.source) != len(self.valid):
            raise ValueError(
                f'{len(self.source)} source sizes but {len(self.valid)} valid sizes: '
                'give one of each per image'
            )

    def select(self, indices: Sequence[int]) -> ImageSizes:
        """Return the sizes of some of the images."""
        return ImageSizes(
            tuple(self.source[index] for index in indices),
            tuple(self.valid[index] for index in indices),
            self.padded,
        )


@dataclass(frozen=True)
class ImageBatch:
    """Preprocessed images.

    Attributes:
        tensor: N x 3 x H x W float32, normalised and padded.
        sizes: the sizes of its images.
    """

    tensor: Tensor
    sizes: ImageSizes


@dataclass(frozen=True)
class Targets:
    """Ground truth of one image, in source pixels.

    Attributes:
        boxes: K x 4 float32, x1 y1 x2 y2.
        labels: K int64, contiguous class index from 0 (no background class).
        masks: K x H x W bool.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Instances:
    """Detected instances of one image, in source pixels, best score first.

    Attributes:
        boxes: K x 4 float32, x1 y1 x2 y2.
        scores: K float32 in [0, 1].
        labels: K int64, contiguous class index from 0 (no background class).
        masks: K x H x W bool.
        track_ids: K int64, the same for an object in all images of a camera, from 1; 0 where it
            is not known, None where nothing is tracked.
        keypoints: K x P x 3 float32, column and row of each of the detector's P keypoints and how
            sure it is, in the detector's own measure; None where it finds none.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor
    track_ids: Tensor | None = None
    keypoints: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float) -> Instances:
        """Return the instances whose score is at least ``threshold``."""
        return self.select(self.scores >= threshold)

    def select(self, keep: Tensor) -> Instances:
        """Return the instances of a mask, K bool, in the same order."""
        return Instances(
            self.boxes[keep],
            self.scores[keep],
            self.labels[keep],
            self.masks[keep],
            None if self.track_ids is None else self.track_ids[keep],
            None if self.keypoints is None else self.keypoints[keep],
        )

    def cpu(self) -> Instances:
        """Return the instances in the CPU's memory."""
        return Instances(
            self.boxes.cpu(),
            self.scores.cpu(),
            self.labels.cpu(),
            self.masks.cpu(),
            None if self.track_ids is None else self.track_ids.cpu(),
            None if self.keypoints is None else self.keypoints.cpu(),
        )

"""The seam between detectors and the codec: what a *split detector* can do.

A split detector is an instance segmentation model cut behind its feature pyramid (FPN). The
half in front of the cut (:meth:`SplitDetector.preprocess`, :meth:`SplitDetector.extract`) runs on
the robot, the half behind it (:meth:`SplitDetector.infer`) on the GPU machine.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from msfc.preprocessing import Preprocessing
from msfc.types import (
    ImageBatch,
    ImageSizes,
    Instances,
    Pyramid,
    PyramidHook,
    Size,
    Targets,
    pyramid_sizes,
)

if TYPE_CHECKING:
    from msfc.heads.base import PyramidHead


class SplitDetector(nn.Module, ABC):
    """An instance segmentation model that can be cut behind its feature pyramid.

    Attributes:
        class_names: names of the classes; a label is an index into them.
        feature_channels: channels C of every pyramid level.
        strides: stride of each level in network input pixels, finest first, without ``p6``.
        size_divisibility: the network input is padded to a multiple of this.
        class_layers: names of the modules whose weights belong to the classes.
        keypoint_names: names of the keypoints that its instances have, in their order; empty
            where it finds none.
    """

    class_names: tuple[str, ...]
    feature_channels: int
    strides: dict[str, int]
    size_divisibility: int
    class_layers: tuple[str, ...] = ()
    keypoint_names: tuple[str, ...] = ()

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return what :func:`msfc.detectors.build_detector` needs to build this architecture.

        The result is JSON-serialisable and has the key ``type``.
        """

    @abstractmethod
    def preprocess(self, images: Sequence[Tensor]) -> ImageBatch:
        """Resize, normalise and pad images.

        Args:
            images: N tensors 3 x H x W, uint8, RGB; sizes may differ.
        """

    def preprocessing(self) -> Preprocessing:
        """Return what does for one image what :meth:`preprocess` does, without PyTorch.

        The network input agrees to 1e-5.

        Raises:
            ValueError: there is no such description of this detector's.
        """
        raise ValueError(f'{type(self).__name__} does not say how to prepare images without torch')

    @abstractmethod
    def extract(self, batch: ImageBatch) -> Pyramid:
        """Compute the pyramid ``p2`` .. ``p6`` of a batch."""

    @abstractmethod
    def infer(
        self, pyramid: Pyramid, sizes: ImageSizes, max_instances: int | None = None
    ) -> list[Instances]:
        """Turn a pyramid into instances, one result per image, at source resolution.

        ``infer(extract(batch), batch.sizes)`` equals the unsplit model's own output exactly.

        Args:
            pyramid: ``p2`` .. ``p6``.
            sizes: the sizes of its images.
            max_instances: only so many of each image, those of the best scores, get a mask and
                are returned.
        """

    def heads(self) -> dict[str, PyramidHead]:
        """Return the detector's own heads beside that of the instances, by their ``output``."""
        return {}

    @abstractmethod
    def losses(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Targets],
        hook: PyramidHook | None = None,
    ) -> dict[str, Tensor]:
        """Compute the detector's own training losses.

        Args:
            images: N tensors 3 x H x W, uint8, RGB.
            targets: ground truth of each image.
            hook: if given, the heads see ``hook(pyramid)`` in place of the pyramid.

        Returns:
            Scalar losses by name; their sum is the objective.
        """

    def with_classes(self, class_names: Sequence[str]) -> SplitDetector:
        """Return a detector for other classes, which shares no weights with this one.

        Its :attr:`class_layers` have random weights, all others are copies of this one's.

        Args:
            class_names: names of the classes.

        Raises:
            ValueError: the detector cannot be made for other classes.
        """
        raise ValueError(f'{type(self).__name__} cannot be made for other classes')

    def _copy_to(self, other: SplitDetector) -> SplitDetector:
        """Give another detector this one's weights, but for the class layers, and its device."""
        state = other.state_dict()
        state |= {
            name: tensor
            for name, tensor in self.state_dict().items()
            if not any(name.startswith(f'{layer}.') for layer in self.class_layers)
        }
        other.load_state_dict(state)
        return other.to(self.device).train(self.training)

    def pyramid_sizes(self, padded: Size) -> dict[str, Size]:
        """Return the size of each level ``p2`` .. ``p6`` for a padded network input size."""
        return pyramid_sizes(self.strides, padded)

    @property
    def device(self) -> torch.device:
        """The device that the parameters are on."""
        return next(self.parameters()).device


class TeacherDetector(SplitDetector):
    """A split detector whose heads answer before boxes are chosen: a codec is trained by it.

    Gradients go through all but :meth:`proposals` to the pyramid.
    """

    @abstractmethod
    def rpn_outputs(self, pyramid: Pyramid) -> dict[str, tuple[Tensor, Tensor]]:
        """Compute what the RPN says of some levels, before boxes are chosen.

        Args:
            pyramid: the levels to look at, whole or cut out.

        Returns:
            For each level, objectness logits N x A x h x w and box offsets N x A x 4 x h x w of
            the A anchors of each cell.
        """

    @abstractmethod
    def proposals(self, pyramid: Pyramid, sizes: ImageSizes) -> list[Tensor]:
        """Compute the boxes that the RPN proposes, the likeliest first.

        Returns:
            For each image K x 4 float32, x1 y1 x2 y2 in network input pixels.
        """

    @abstractmethod
    def box_outputs(
        self, pyramid: Pyramid, boxes: Sequence[Tensor], sizes: ImageSizes
    ) -> tuple[Tensor, Tensor]:
        """Compute what the box head says of given boxes.

        Args:
            pyramid: ``p2`` .. ``p6``.
            boxes: for each image K x 4, x1 y1 x2 y2 in network input pixels; M in all.
            sizes: the sizes of the images.

        Returns:
            Class logits M x (classes + 1), background last, and box offsets M x classes x 4, or
            M x 1 x 4 of a head that has the same for all classes.
        """

    @abstractmethod
    def mask_outputs(
        self,
        pyramid: Pyramid,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        sizes: ImageSizes,
    ) -> Tensor:
        """Compute the mask head's logits for given boxes and classes, M x S x S float32.

        Of a detector without masks S is 0.

        Args:
            pyramid: ``p2`` .. ``p6``.
            boxes: for each image K x 4, x1 y1 x2 y2 in network input pixels; M in all.
            labels: for each image K class indices.
            sizes: the sizes of the images.
        """


def no_mask_outputs(boxes: Sequence[Tensor]) -> Tensor:
    """Return what :meth:`TeacherDetector.mask_outputs` is of a detector without a mask head."""
    return torch.zeros((sum(map(len, boxes)), 0, 0), device=boxes[0].device)


def detector_digest(detector: SplitDetector) -> str:
    """Return 16 hexadecimal digits that name a detector's settings and weights."""
    digest = hashlib.sha256(repr(sorted(detector.config().items())).encode())
    for name, tensor in sorted(detector.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]

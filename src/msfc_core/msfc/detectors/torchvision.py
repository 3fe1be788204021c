"""The embedded default: torchvision's Mask R-CNN over a ResNet-FPN, as a split detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import (
    expand_boxes,
    expand_masks,
    keypointrcnn_inference,
)
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.transform import (
    GeneralizedRCNNTransform,
    resize_boxes,
    resize_keypoints,
)
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from msfc.detectors.base import SplitDetector, TeacherDetector, no_mask_outputs
from msfc.preprocessing import Preprocessing
from msfc.settings import check_number, check_texts
from msfc.types import ImageBatch, ImageSizes, Instances, Pyramid, PyramidHook, Size, Targets

# torchvision's names of the levels and ours.
LEVELS = {'0': 'p2', '1': 'p3', '2': 'p4', '3': 'p5', 'pool': 'p6'}
DESIGNS = ('v1', 'v2')
KEYPOINT_LAYERS = (512,) * 8
"""Widths of the keypoint head's convolutions, as torchvision has them."""

NORMS = {'batch': nn.BatchNorm2d, 'frozen': FrozenBatchNorm2d}


@dataclass(frozen=True)
class TorchvisionConfig:
    """Architecture of a :class:`TorchvisionDetector`.

    The defaults are those of ``torchvision.models.detection.maskrcnn_resnet50_fpn``, whose
    weights fit a model of these defaults and 90 classes.

    Attributes:
        class_names: names of the classes, without background.
        backbone: a torchvision ResNet, such as ``resnet18`` or ``resnet50``.
        norm: ``batch``, or ``frozen`` for pretrained weights.
        design: ``v1``, or ``v2`` for the heads of ``maskrcnn_resnet50_fpn_v2`` (Li et al., 2021):
            batch norm in FPN and heads, two convolutions in the RPN, four in the box head.
        fpn_channels: channels of every pyramid level.
        box_head_channels: width of the box head's two fully connected layers.
        masks: whether there is a mask head; without one, masks are empty.
        mask_head_layers: number of 3 x 3 convolutions of the mask head.
        keypoint_names: names of the keypoints that a keypoint head finds; none without one. The
            head is that of ``keypointrcnn_resnet50_fpn``.
        sampling_ratio: RoIAlign samples per bin and axis.
        min_size: short edge of the network input in pixels.
        max_size: limit of its long edge in pixels.
        rpn_batch: anchors per image in the RPN's training loss.
        rpn_pre_nms: proposals per level before NMS, in training and inference.
        rpn_post_nms: proposals per image after NMS, in training and inference.
        box_batch: proposals per image in the heads' training loss.
        score_threshold: detections under this score are dropped.
        max_detections: detections per image at most.

    Raises:
        ValueError: a value of another type, or beyond its range; the message names it.
    """

    class_names: tuple[str, ...]
    backbone: str = 'resnet50'
    norm: str = 'batch'
    design: str = 'v1'
    fpn_channels: int = 256
    box_head_channels: int = 1024
    mask_head_layers: int = 4
    sampling_ratio: int = 2
    min_size: int = 800
    max_size: int = 1333
    rpn_batch: int = 256
    rpn_pre_nms: int = 1000
    rpn_post_nms: int = 1000
    box_batch: int = 512
    score_threshold: float = 0.05
    max_detections: int = 100
    masks: bool = True
    keypoint_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, 'class_names', check_texts(self.class_names, 'class_names'))
        object.__setattr__(self, 'keypoint_names', tuple(self.keypoint_names))
        if self.keypoint_names:
            names = check_texts(self.keypoint_names, 'keypoint_names')
            object.__setattr__(self, 'keypoint_names', names)
        if not isinstance(self.masks, bool):
            raise ValueError(f'masks is {self.masks!r}, not true or false')
        if not self.masks and not self.keypoint_names:
            raise ValueError('a detector without masks has to find keypoints: give keypoint_names')
        for name, (low, high) in RANGES.items():
            whole = name not in FRACTIONS
            value = check_number(getattr(self, name), name, low, high, whole)
            object.__setattr__(self, name, value)
        for name, known in (
            ('backbone', _backbones()), ('norm', sorted(NORMS)), ('design', list(DESIGNS))
        ):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f'unknown {name} {value!r}: choose from {", ".join(known)}')


RANGES: dict[str, tuple[float, float]] = {
    'fpn_channels': (1, 4096),
    'box_head_channels': (1, 65536),
    'mask_head_layers': (0, 64),
    'sampling_ratio': (-1, 64),
    'min_size': (1, 65536),
    'max_size': (1, 65536),
    'rpn_batch': (1, 2**20),
    'rpn_pre_nms': (1, 2**20),
    'rpn_post_nms': (1, 2**20),
    'box_batch': (1, 2**20),
    'score_threshold': (0, 1),
    'max_detections': (1, 2**20),
}
"""Least and largest value of each number of a :class:`TorchvisionConfig`."""

FRACTIONS = ('score_threshold',)
"""Those that need not be whole."""


def _backbones() -> list[str]:
    return list(models.list_models(models, include='resnet*'))


class TorchvisionDetector(TeacherDetector):
    """Mask R-CNN of torchvision, cut behind its FPN; with or in place of masks also keypoints.

    The losses are those of boxes and masks; a keypoint head is not trained.

    Raises:
        ValueError: an unknown backbone or norm.
    """

    size_divisibility = 32
    class_layers = (
        'model.roi_heads.box_predictor', 'model.roi_heads.mask_predictor.mask_fcn_logits'
    )

    def __init__(self, config: TorchvisionConfig) -> None:
        super().__init__()
        self._config = config
        self.class_names = config.class_names
        self.keypoint_names = config.keypoint_names
        self.feature_channels = config.fpn_channels
        self.strides = {'p2': 4, 'p3': 8, 'p4': 16, 'p5': 32}
        self.model = _build(config)
        # Not in the model's own heads, which would want the truth of it in training.
        self._keypoint_pool = _roi_pool(14, config)
        for head in (self.model.rpn.head, self.model.roi_heads.box_predictor):
            head.register_forward_hook(_in_single_precision)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TorchvisionDetector:
        """Build from the result of :meth:`config`, with random weights.

        Raises:
            ValueError: a key is unknown or missing, or a value impossible; the message names it.
        """
        given = {key: value for key, value in config.items() if key != 'type'}
        known = {entry.name for entry in fields(TorchvisionConfig)}
        unknown = sorted(set(given) - known)
        if unknown:
            raise ValueError(
                f'unknown torchvision detector options {unknown}: choose from {sorted(known)}'
            )
        if 'class_names' not in given:
            raise ValueError('a torchvision detector needs class_names')
        return cls(TorchvisionConfig(**given))

    def config(self) -> dict[str, Any]:
        """Return the architecture as JSON data."""
        config = asdict(self._config)
        config['class_names'] = list(self.class_names)
        if config['design'] == DESIGNS[0]:
            del config['design']  # the only one once: fingerprints from then stay valid
        config['keypoint_names'] = list(self.keypoint_names)
        for name, usual in (('masks', True), ('keypoint_names', [])):
            if config[name] == usual:
                del config[name]
        return {'type': 'torchvision', **config}

    def with_classes(self, class_names: Sequence[str]) -> SplitDetector:
        """Return a detector for other classes; see :meth:`SplitDetector.with_classes`."""
        names = tuple(class_names)
        return self._copy_to(TorchvisionDetector(replace(self._config, class_names=names)))

    def preprocess(self, images: Sequence[Tensor]) -> ImageBatch:
        """Resize, normalise and pad images; see :meth:`SplitDetector.preprocess`."""
        batch, _ = self.model.transform([image.to(self.device) for image in images])
        return _batch(batch, images)

    def preprocessing(self) -> Preprocessing:
        """Return :meth:`preprocess` without PyTorch; see :meth:`SplitDetector.preprocessing`."""
        transform = self.model.transform
        mean, std = (
            tuple((255 * torch.tensor(values)).tolist())
            for values in (transform.image_mean, transform.image_std)
        )
        return Preprocessing(
            'torchvision', self._config.min_size, self._config.max_size, 'rgb', mean, std,
            self.size_divisibility,
        )

    def extract(self, batch: ImageBatch) -> Pyramid:
        """Compute ``p2`` .. ``p6``."""
        features = self.model.backbone(batch.tensor)
        # Under autocast too: anchors and boxes take the pyramid's type, and need single precision.
        return {level: features[name].float() for name, level in LEVELS.items()}

    def infer(
        self, pyramid: Pyramid, sizes: ImageSizes, max_instances: int | None = None
    ) -> list[Instances]:
        """Turn a pyramid into instances; see :meth:`SplitDetector.infer`."""
        features = _torchvision_names(pyramid)
        images = _sizes_only(pyramid, sizes)
        proposals, _ = self.model.rpn(images, features)
        detections, _ = self.model.roi_heads(features, proposals, images.image_sizes)
        detections = [
            {name: values[:max_instances] for name, values in found.items()}
            for found in detections
        ]
        if self.keypoint_names:
            self._find_keypoints(features, detections, images.image_sizes)
        return [
            _finish(found, valid, source)
            for found, valid, source in zip(
                detections, images.image_sizes, sizes.source, strict=True
            )
        ]

    def _find_keypoints(
        self,
        features: dict[str, Tensor],
        detections: Sequence[dict[str, Tensor]],
        valid: list[Size],
    ) -> None:
        """Add the keypoints of each detection, as torchvision's own heads do it."""
        heads = self.model.roi_heads
        boxes = [found['boxes'] for found in detections]
        maps = heads.keypoint_predictor(
            heads.keypoint_head(self._keypoint_pool(features, boxes, valid))
        )
        for found, places, scores in zip(
            detections, *keypointrcnn_inference(maps, boxes), strict=True
        ):
            found['keypoints'] = torch.cat([places[..., :2], scores[..., None]], dim=2)

    def losses(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Targets],
        hook: PyramidHook | None = None,
    ) -> dict[str, Tensor]:
        """Compute Mask R-CNN's losses; the detector must be in training mode."""
        if not self.training:
            raise RuntimeError('losses need the detector in training mode: call train() first')
        truth = [
            {
                'boxes': target.boxes.to(self.device),
                'labels': target.labels.to(self.device) + 1,
                'masks': target.masks.to(self.device, torch.uint8),
            }
            for target in targets
        ]
        image_list, truth = self.model.transform(
            [image.to(self.device) for image in images], truth
        )
        pyramid = self.extract(_batch(image_list, images))
        features = _torchvision_names(hook(pyramid) if hook else pyramid)
        proposals, rpn_losses = self.model.rpn(image_list, features, truth)
        _, head_losses = self.model.roi_heads(
            features, proposals, image_list.image_sizes, truth
        )
        return {**rpn_losses, **head_losses}

    def rpn_outputs(self, pyramid: Pyramid) -> dict[str, tuple[Tensor, Tensor]]:
        """Compute the RPN's raw outputs; see :meth:`TeacherDetector.rpn_outputs`."""
        levels = list(pyramid)
        objectness, deltas = self.model.rpn.head([pyramid[level] for level in levels])
        return {
            level: (scores, offsets.unflatten(1, (-1, 4)))
            for level, scores, offsets in zip(levels, objectness, deltas, strict=True)
        }

    def proposals(self, pyramid: Pyramid, sizes: ImageSizes) -> list[Tensor]:
        """Compute the RPN's boxes; see :meth:`TeacherDetector.proposals`."""
        boxes, _ = self.model.rpn(_sizes_only(pyramid, sizes), _torchvision_names(pyramid))
        return list(boxes)

    def box_outputs(
        self, pyramid: Pyramid, boxes: Sequence[Tensor], sizes: ImageSizes
    ) -> tuple[Tensor, Tensor]:
        """Compute the box head's raw outputs; see :meth:`TeacherDetector.box_outputs`."""
        heads, valid = self.model.roi_heads, list(sizes.valid)
        pooled = heads.box_roi_pool(_torchvision_names(pyramid), list(boxes), valid)
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        # torchvision's background is class 0.
        return logits.roll(-1, dims=1), deltas.unflatten(1, (-1, 4))[:, 1:]

    def mask_outputs(
        self,
        pyramid: Pyramid,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        sizes: ImageSizes,
    ) -> Tensor:
        """Compute the mask head's raw outputs; see :meth:`TeacherDetector.mask_outputs`."""
        if not self._config.masks:
            return no_mask_outputs(boxes)
        heads, valid = self.model.roi_heads, list(sizes.valid)
        pooled = heads.mask_roi_pool(_torchvision_names(pyramid), list(boxes), valid)
        logits = heads.mask_predictor(heads.mask_head(pooled))
        chosen = torch.cat([label.to(logits.device) for label in labels]) + 1
        return logits[torch.arange(len(chosen), device=logits.device), chosen].float()


class ResizeFirst(GeneralizedRCNNTransform):
    """torchvision's transform of uint8 images, resized before they are normalised.

    torchvision normalises at full resolution, in float. Here only the pixels that the smaller
    image is made of are touched: both steps are linear, and the network input agrees with
    torchvision's to 1e-5. An edge is one pixel long at least.
    """

    def normalize(self, image: Tensor) -> Tensor:
        """Leave the image as it is: :meth:`resize` normalises."""
        if image.dtype != torch.uint8:
            raise TypeError(f'images are uint8, not {image.dtype}')
        return image

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Resize and normalise an image, and resize its ground truth.

        Args:
            image: 3 x H x W uint8 RGB.
            target: ``boxes`` K x 4 and ``masks`` K x H x W uint8, in its pixels.

        Returns:
            3 x h x w float32, and the target in its pixels.
        """
        source = (int(image.shape[-2]), int(image.shape[-1]))
        size = self.size_of(source)
        mean, std = (
            255 * torch.tensor(values, device=image.device)[:, None, None]
            for values in (self.image_mean, self.image_std)
        )
        resized = (_interpolate(image, size) - mean) / std
        if target is not None:
            target = {**target, 'boxes': resize_boxes(target['boxes'], source, size)}
            if 'masks' in target:
                masks = F.interpolate(target['masks'][:, None].float(), size)
                target['masks'] = masks[:, 0].byte()
        return resized, target

    def size_of(self, source: Size) -> Size:
        """Return the network input's size without padding, of an image of some size."""
        scale = min(self.min_size[-1] / min(source), self.max_size / max(source))
        # As F.interpolate rounds it.
        return (max(int(source[0] * scale), 1), max(int(source[1] * scale), 1))


def _interpolate(image: Tensor, size: Size) -> Tensor:
    """Resize an image bilinearly, as ``F.interpolate`` does, in memory of the result's order.

    Args:
        image: C x H x W uint8.
        size: h, w of the result.

    Returns:
        C x h x w float32, 0 to 255.
    """
    pixels = image.permute(1, 2, 0)
    if pixels.shape[:2] == size:
        return image.float()
    (top, bottom, down), (left, right, across) = (
        _neighbours(length, wanted, image.device)
        for length, wanted in zip(pixels.shape[:2], size, strict=True)
    )
    across = across[:, None]
    upper, lower = (
        torch.lerp(
            rows.index_select(1, left).float(), rows.index_select(1, right).float(), across
        )
        for rows in (pixels.index_select(0, top), pixels.index_select(0, bottom))
    )
    return torch.lerp(upper, lower, down[:, None, None]).permute(2, 0, 1)


def _neighbours(
    length: int, wanted: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pixels before and after each new one along an axis, and the latter's share."""
    places = (torch.arange(wanted, device=device, dtype=torch.float32) + 0.5) * (length / wanted)
    places = (places - 0.5).clamp(0, length - 1)
    before = places.long()
    return before, (before + 1).clamp(max=length - 1), places - before


def _build(config: TorchvisionConfig) -> MaskRCNN:
    resnet = getattr(models, config.backbone)(weights=None, norm_layer=NORMS[config.norm])
    layers = {'layer1': '0', 'layer2': '1', 'layer3': '2', 'layer4': '3'}
    widths = [resnet.inplanes // 2**k for k in (3, 2, 1, 0)]
    channels, classes = config.fpn_channels, len(config.class_names) + 1
    norm = nn.BatchNorm2d if config.design == 'v2' else None
    model = MaskRCNN(
        BackboneWithFPN(resnet, layers, widths, channels, norm_layer=norm),
        min_size=config.min_size,
        max_size=config.max_size,
        rpn_batch_size_per_image=config.rpn_batch,
        rpn_pre_nms_top_n_train=config.rpn_pre_nms,
        rpn_pre_nms_top_n_test=config.rpn_pre_nms,
        rpn_post_nms_top_n_train=config.rpn_post_nms,
        rpn_post_nms_top_n_test=config.rpn_post_nms,
        box_roi_pool=_roi_pool(7, config),
        box_head=_box_head(config),
        box_predictor=FastRCNNPredictor(config.box_head_channels, classes),
        box_batch_size_per_image=config.box_batch,
        box_score_thresh=config.score_threshold,
        box_detections_per_img=config.max_detections,
        mask_roi_pool=_roi_pool(14, config),
        mask_head=MaskRCNNHeads(
            channels, [channels] * config.mask_head_layers, 1, norm_layer=norm
        ),
        mask_predictor=MaskRCNNPredictor(channels, channels, classes),
    )
    _fit_heads(model.roi_heads, config)
    if config.design == 'v2':
        anchors = model.rpn.anchor_generator.num_anchors_per_location()[0]
        model.rpn.head = RPNHead(channels, anchors, conv_depth=2)
    theirs = model.transform
    model.transform = ResizeFirst(
        config.min_size, config.max_size, theirs.image_mean, theirs.image_std
    )
    return model


def _roi_pool(size: int, config: TorchvisionConfig) -> MultiScaleRoIAlign:
    return MultiScaleRoIAlign(list(LEVELS)[:4], size, config.sampling_ratio)


def _fit_heads(heads: Any, config: TorchvisionConfig) -> None:
    """Take away a mask head that is not wanted, and add a keypoint head that is."""
    if not config.masks:
        heads.mask_roi_pool = heads.mask_head = heads.mask_predictor = None
    if config.keypoint_names:
        heads.keypoint_head = KeypointRCNNHeads(config.fpn_channels, KEYPOINT_LAYERS)
        heads.keypoint_predictor = KeypointRCNNPredictor(
            KEYPOINT_LAYERS[-1], len(config.keypoint_names)
        )


def _box_head(config: TorchvisionConfig) -> nn.Module:
    channels = config.fpn_channels
    if config.design == 'v2':
        return FastRCNNConvFCHead(
            (channels, 7, 7), [channels] * 4, [config.box_head_channels],
            norm_layer=nn.BatchNorm2d,
        )
    return TwoMLPHead(channels * 7 * 7, config.box_head_channels)


def _in_single_precision(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    """Box offsets in half precision would move boxes by whole pixels under autocast."""
    if isinstance(outputs, Tensor):
        return outputs.float()
    return type(outputs)(_in_single_precision(module, inputs, output) for output in outputs)


def _paste(masks: Tensor, boxes: Tensor, size: Size) -> Tensor:
    """Put masks into their boxes: torchvision's ``paste_masks_in_image``, cut at a half.

    torchvision makes a float picture of each mask and stacks them, 61 MB for 50 masks of 640 x 480
    pixels, which the allocator gives back to the system each time. The bits are the same.

    Args:
        masks: K x 1 x M x M, probabilities.
        boxes: K x 4, x1 y1 x2 y2, inside the image.
        size: height and width of the image.

    Returns:
        K x height x width, bool.
    """
    height, width = size
    masks, scale = expand_masks(masks, 1)
    pasted = torch.zeros((len(masks), height, width), dtype=torch.bool, device=masks.device)
    corners = expand_boxes(boxes, scale).long().tolist()
    for picture, mask, (x1, y1, x2, y2) in zip(pasted, masks, corners, strict=True):
        grown = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
        mask = F.interpolate(mask[None], size=grown, mode='bilinear', align_corners=False)[0, 0]
        left, top = max(x1, 0), max(y1, 0)
        right, bottom = min(x2 + 1, width), min(y2 + 1, height)
        seen = mask[top - y1 : bottom - y1, left - x1 : right - x1]
        torch.gt(seen, 0.5, out=picture[top:bottom, left:right])
    return pasted


def _batch(images: ImageList, sources: Sequence[Tensor]) -> ImageBatch:
    sizes = ImageSizes(
        source=tuple((int(image.shape[-2]), int(image.shape[-1])) for image in sources),
        valid=tuple((int(height), int(width)) for height, width in images.image_sizes),
        padded=(int(images.tensors.shape[-2]), int(images.tensors.shape[-1])),
    )
    return ImageBatch(images.tensors, sizes)


def _finish(found: dict[str, Tensor], valid: Size, source: Size) -> Instances:
    """Bring the detections of one image, best score first, to source resolution."""
    boxes = resize_boxes(found['boxes'], valid, source)
    if 'masks' in found:
        masks = _paste(found['masks'], boxes, source)
    else:
        masks = torch.zeros((len(boxes), *source), dtype=torch.bool, device=boxes.device)
    keypoints = found.get('keypoints')
    if keypoints is not None:
        keypoints = resize_keypoints(keypoints, list(valid), list(source))
    return Instances(boxes, found['scores'], found['labels'] - 1, masks, keypoints=keypoints)


def _torchvision_names(pyramid: Pyramid) -> dict[str, Tensor]:
    return {name: pyramid[level].float() for name, level in LEVELS.items()}


def _sizes_only(pyramid: Pyramid, sizes: ImageSizes) -> ImageList:
    """Stand in for the images that the heads never look at: right shape, one stored value."""
    some = next(iter(pyramid.values()))
    blank = some.new_zeros(()).expand(len(sizes.source), 3, *sizes.padded)
    return ImageList(blank, list(sizes.valid))

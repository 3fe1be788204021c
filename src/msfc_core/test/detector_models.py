"""Small detectors with random weights for the tests, and their unsplit models to compare with."""

import numpy as np
import torch

from msfc.types import Instances, Targets

NUM_CLASSES = 5
CLASS_NAMES = ('ant', 'bee', 'cat', 'dog', 'emu')
SHORT_EDGE, LONG_EDGE = 128, 213
_DETECTRON2_OVERRIDES = {
    'INPUT.MIN_SIZE_TEST': SHORT_EDGE,
    'INPUT.MAX_SIZE_TEST': LONG_EDGE,
    'MODEL.RESNETS.DEPTH': 18,
    'MODEL.RESNETS.RES2_OUT_CHANNELS': 64,
    'MODEL.FPN.OUT_CHANNELS': 32,
    'MODEL.RPN.POST_NMS_TOPK_TEST': 50,
    'MODEL.ROI_HEADS.NUM_CLASSES': NUM_CLASSES,
    'MODEL.ROI_HEADS.SCORE_THRESH_TEST': 0.01,
    'MODEL.ROI_BOX_HEAD.FC_DIM': 64,
    'MODEL.ROI_MASK_HEAD.CONV_DIM': 16,
    'MODEL.ROI_MASK_HEAD.NUM_CONV': 1,
}


def make_images(sizes):
    """Return an image of smooth noise for each (height, width), 3 x H x W uint8."""
    generator = torch.Generator().manual_seed(1)
    return [
        torch.nn.functional.interpolate(
            torch.rand(1, 3, 9, 9, generator=generator), size, mode='bicubic'
        )[0].clamp(0, 1).mul(255).to(torch.uint8)
        for size in sizes
    ]


def make_targets(sizes, count=3):
    """Return ``count`` boxes filled with ellipses as ground truth of each image."""
    rng = np.random.default_rng(2)
    targets = []
    for height, width in sizes:
        boxes, masks = [], []
        for _ in range(count):
            h, w = rng.integers(height // 4, height // 2), rng.integers(width // 4, width // 2)
            y, x = rng.integers(0, height - h), rng.integers(0, width - w)
            rows, columns = np.ogrid[:height, :width]
            masks.append(
                ((rows - y - h / 2) / h) ** 2 + ((columns - x - w / 2) / w) ** 2 <= 0.25
            )
            boxes.append((x, y, x + w, y + h))
        targets.append(
            Targets(
                boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                labels=torch.tensor(rng.integers(0, NUM_CLASSES, count), dtype=torch.int64),
                masks=torch.tensor(np.array(masks, dtype=bool).reshape(count, height, width)),
            )
        )
    return targets


class TorchvisionKit:
    """A small Mask R-CNN of torchvision: ResNet-18, FPN of 32 channels."""

    def make(self):
        """Return a detector with random weights."""
        from msfc.detectors.torchvision import TorchvisionConfig, TorchvisionDetector

        return TorchvisionDetector(
            TorchvisionConfig(
                class_names=CLASS_NAMES,
                backbone='resnet18',
                fpn_channels=32,
                box_head_channels=64,
                mask_head_layers=1,
                min_size=SHORT_EDGE,
                max_size=LONG_EDGE,
                rpn_post_nms=50,
                score_threshold=0.01,
            )
        )

    def unsplit(self, detector, images):
        """Run torchvision's own model."""
        return [
            Instances(
                boxes=found['boxes'],
                scores=found['scores'],
                labels=found['labels'] - 1,
                masks=found['masks'].squeeze(1) > 0.5,
            )
            for found in detector.model(images)
        ]

    def unsplit_losses(self, detector, images, targets):
        """Return the losses of torchvision's own model."""
        return detector.model(
            images,
            [
                {
                    'boxes': target.boxes,
                    'labels': target.labels + 1,
                    'masks': target.masks.to(torch.uint8),
                }
                for target in targets
            ],
        )

    def prefer_class(self, detector, label):
        """Make the classifier sure of one class."""
        detector.model.roi_heads.box_predictor.cls_score.bias.data[label + 1] = 1e4

    def set_score_threshold(self, detector, threshold):
        """Set the score that instances must exceed."""
        detector.model.roi_heads.score_thresh = threshold


class Detectron2Kit:
    """A small Mask R-CNN of Detectron2: ResNet-18, FPN of 32 channels."""

    zoo_name = 'COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml'
    overrides = _DETECTRON2_OVERRIDES

    def make(self, **overrides):
        """Return a detector with random weights."""
        from msfc.detectors.detectron2 import Detectron2Detector

        return Detectron2Detector.from_file(
            self.zoo_name, class_names=CLASS_NAMES, overrides={**self.overrides, **overrides}
        )

    def unsplit(self, detector, images):
        """Run Detectron2's own model on images that its own transform resized."""
        results = detector.model([self._input(image) for image in images])
        return [
            Instances(
                boxes=found.pred_boxes.tensor,
                scores=found.scores,
                labels=found.pred_classes,
                masks=found.pred_masks,
            )
            for found in (result['instances'] for result in results)
        ]

    def unsplit_losses(self, detector, images, targets):
        """Return the losses of Detectron2's own model, its own transforms applied to both."""
        from detectron2.data import transforms
        from detectron2.structures import BitMasks, Boxes
        from detectron2.structures import Instances as Annotated
        from detectron2.utils.events import EventStorage

        inputs = []
        for image, target in zip(images, targets, strict=True):
            item = self._input(image)
            size = tuple(item['image'].shape[1:])
            resize = transforms.ResizeTransform(*image.shape[1:], *size)
            item['instances'] = Annotated(size)
            boxes = resize.apply_box(target.boxes.numpy())
            item['instances'].gt_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32))
            item['instances'].gt_classes = target.labels
            item['instances'].gt_masks = BitMasks(
                np.stack(
                    [resize.apply_segmentation(m.numpy().astype(np.uint8)) for m in target.masks]
                )
            )
            inputs.append(item)
        with EventStorage():
            return detector.model(inputs)

    def prefer_class(self, detector, label):
        """Make the classifier sure of one class."""
        detector.model.roi_heads.box_predictor.cls_score.bias.data[label] = 1e4

    def set_score_threshold(self, detector, threshold):
        """Set the score that instances must exceed."""
        detector.model.roi_heads.box_predictor.test_score_thresh = threshold

    def _input(self, image):
        from detectron2.data import transforms

        pixels = image.permute(1, 2, 0).numpy()[:, :, ::-1]
        resize = transforms.ResizeShortestEdge([SHORT_EDGE, SHORT_EDGE], LONG_EDGE)
        resized = resize.get_transform(pixels).apply_image(pixels)
        return {
            'image': torch.as_tensor(resized.astype('float32').transpose(2, 0, 1)),
            'height': image.shape[1],
            'width': image.shape[2],
        }


MODELS = {'torchvision': TorchvisionKit(), 'detectron2': Detectron2Kit()}
IMPLEMENTATIONS = tuple(MODELS)

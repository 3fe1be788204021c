"""A small model with every head that there is, for the tests of the library and of the nodes."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from detector_models import CLASS_NAMES, LONG_EDGE, SHORT_EDGE, Detectron2Kit
from msfc.codecs.msfc.codec import MSFC, MSFCConfig
from msfc.detectors.base import SplitDetector
from msfc.detectors.detectron2 import Detectron2Detector
from msfc.detectors.torchvision import TorchvisionConfig, TorchvisionDetector
from msfc.heads.fpn_semantic import FpnSemanticConfig, FpnSemanticHead
from msfc.heads.head_file import save_head
from msfc.model import SplitModel
from msfc.model_file import load_model, save_model

SURFACES = ('desk', 'ground', 'thing')
KEYPOINTS = ('top', 'left', 'right')
PANOPTIC = 'COCO-PanopticSegmentation/panoptic_fpn_R_50_3x.yaml'
KEYPOINT = 'COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x.yaml'
SMALL_HEADS = {
    **Detectron2Kit.overrides,
    'TEST.DETECTIONS_PER_IMAGE': 6,
    'MODEL.SEM_SEG_HEAD.CONVS_DIM': 32,
    'MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS': [16],
}
"""Makes panoptic FPNs and Keypoint R-CNNs of Detectron2's zoo small."""


def keypoint_detector(masks: bool = True) -> TorchvisionDetector:
    """Return a small detector with a keypoint head and random weights, in evaluation mode."""
    torch.manual_seed(5)
    config = TorchvisionConfig(
        class_names=CLASS_NAMES, backbone='resnet18', fpn_channels=32, box_head_channels=64,
        mask_head_layers=1, min_size=SHORT_EDGE, max_size=LONG_EDGE, rpn_post_nms=50,
        max_detections=6, score_threshold=0.01, masks=masks, keypoint_names=KEYPOINTS,
    )
    return TorchvisionDetector(config).eval()


def semantic_head(channels: int = 32, seed: int = 0) -> FpnSemanticHead:
    """Return a small semantic head with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    config = FpnSemanticConfig(SURFACES, feature_channels=channels, channels=8)
    return FpnSemanticHead(config).eval()


def small_detectron2(name: str, **overrides: Any) -> Detectron2Detector:
    """Return a small detector of a zoo configuration, random weights, in evaluation mode."""
    classes = 1 if name == KEYPOINT else len(CLASS_NAMES)
    torch.manual_seed(7)
    detector = Detectron2Detector.from_file(
        name, class_names=CLASS_NAMES if classes > 1 else None,
        overrides={**SMALL_HEADS, 'MODEL.ROI_HEADS.NUM_CLASSES': classes, **overrides},
    )
    calm_keypoints(detector)
    return detector.eval()


def calm_keypoints(detector: Detectron2Detector) -> None:
    """Make heat maps flatter: on such as random weights give, Detectron2's softmax overflows."""
    if detector.keypoint_names:
        detector.model.roi_heads.keypoint_head.score_lowres.weight.data *= 0.01


def write_small_configuration(path: Path, name: str, classes: int) -> None:
    """Write the YAML file of a small model over one of Detectron2's zoo."""
    from msfc.detectors.detectron2_config import zoo_directory

    tree: dict[str, Any] = {'_BASE_': str(zoo_directory() / name)}
    for key, value in {**SMALL_HEADS, 'MODEL.ROI_HEADS.NUM_CLASSES': classes}.items():
        node = tree
        *parents, leaf = key.split('.')
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    path.write_text(yaml.safe_dump(tree))


def write_zoo_weights(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Write weights in the form of Detectron2's zoo: a pickle of arrays by name."""
    arrays = {name: value.numpy() for name, value in state.items()}
    path.write_bytes(pickle.dumps({'model': arrays, '__author__': 'Detectron2 Model Zoo'}))


def write_model_with_heads(directory: Path) -> SplitModel:
    """Write a model with keypoints and a semantic head; return it as it is read."""
    model = _write(keypoint_detector(), directory)
    save_head(semantic_head(), directory / 'heads' / 'semantic', model.detector)
    return model


def write_detectron2_with_heads(directory: Path) -> SplitModel:
    """Write a panoptic FPN of Detectron2 with keypoints; return it as it is read."""
    return _write(small_detectron2(PANOPTIC, **{'MODEL.KEYPOINT_ON': True}), directory)


def _write(detector: SplitDetector, directory: Path) -> SplitModel:
    torch.manual_seed(5)
    codec = MSFC(MSFCConfig(channels=detector.feature_channels, code_channels=8))
    save_model(SplitModel(detector, codec, rate=4), directory)
    return load_model(directory)

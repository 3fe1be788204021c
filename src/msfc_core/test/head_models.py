"""A small model with every head that there is, for the tests of the library and of the nodes."""

from __future__ import annotations

from pathlib import Path

import torch

from detector_models import CLASS_NAMES, LONG_EDGE, SHORT_EDGE
from msfc.codecs.msfc.codec import MSFC, MSFCConfig
from msfc.detectors.torchvision import TorchvisionConfig, TorchvisionDetector
from msfc.heads.fpn_semantic import FpnSemanticConfig, FpnSemanticHead
from msfc.heads.head_file import save_head
from msfc.model import SplitModel
from msfc.model_file import load_model, save_model

SURFACES = ('desk', 'ground', 'thing')
KEYPOINTS = ('top', 'left', 'right')


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


def write_model_with_heads(directory: Path) -> SplitModel:
    """Write a model with keypoints and a semantic head; return it as it is read."""
    detector = keypoint_detector()
    codec = MSFC(MSFCConfig(channels=detector.feature_channels, code_channels=8))
    save_model(SplitModel(detector, codec, rate=4), directory)
    model = load_model(directory)
    save_head(semantic_head(), directory / 'heads' / 'semantic', model.detector)
    return model

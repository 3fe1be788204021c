"""A simulated camera's frames as messages."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from msfc_msgs.msg import InstanceArray
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from msfc.geometry.depth import MILLIMETRES
from msfc.types import Instances, Size
from msfc_ros.image_to_message import image_to_message
from msfc_ros.messages import instances_to_message

SCENE_IDS = 100
"""Track ids set apart for the objects of one scene, of which there are far fewer."""


def ground_truth_message(
    labels: Sequence[int],
    masks: Sequence[np.ndarray],
    header: Header,
    size: Size,
    class_names: Sequence[str],
    identities: Sequence[int],
) -> InstanceArray:
    """Make a message of the true instances; every score is 1.

    Args:
        labels: class of each of K objects.
        masks: H x W bool each, the visible part.
        header: the header of the camera image.
        size: height and width of the camera image in pixels.
        class_names: names of the classes, by label.
        identities: the track id of each object.
    """
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        box[:] = x, y, x + width, y + height
    instances = Instances(
        boxes=torch.from_numpy(boxes),
        scores=torch.ones(len(masks)),
        labels=torch.tensor(labels, dtype=torch.int64),
        masks=torch.from_numpy(np.stack(masks) if masks else np.zeros((0, *size), bool)),
        track_ids=torch.tensor(identities, dtype=torch.int64),
    )
    return instances_to_message(instances, header, size, class_names)


def camera_info_message(header: Header, size: Size, fovy: float) -> CameraInfo:
    """Make the calibration of an ideal pinhole camera.

    Args:
        header: the header of the camera image.
        size: height and width of the camera image in pixels.
        fovy: vertical field of view in degrees, as MuJoCo has it.

    Returns:
        Square pixels, no distortion, the principal point in the middle of the image; pixel
        centres have whole coordinates, as in sensor_msgs/CameraInfo.
    """
    height, width = size
    focal = focal_length(height, fovy)
    x, y = (width - 1) / 2, (height - 1) / 2
    return CameraInfo(
        header=header,
        height=height,
        width=width,
        distortion_model='plumb_bob',
        d=[0.0] * 5,
        k=[focal, 0.0, x, 0.0, focal, y, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[focal, 0.0, x, 0.0, 0.0, focal, y, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


def focal_length(height: int, fovy: float) -> float:
    """Return the focal length of an ideal camera in pixels.

    Args:
        height: of its image in pixels.
        fovy: its vertical field of view in degrees.
    """
    return float(0.5 * height / np.tan(np.deg2rad(fovy) / 2))


def depth_message(depth: np.ndarray, encoding: str) -> Image:
    """Make a depth image, whose header is yet to be filled in.

    Args:
        depth: H x W in metres, NaN where there is none.
        encoding: 32FC1 (metres, NaN) or 16UC1 (millimetres, 0), as REP 118 has them.
    """
    if encoding == '32FC1':
        return image_to_message(depth.astype(np.float32), Header(), encoding)
    millimetres = np.rint(np.nan_to_num(depth, nan=0.0) * MILLIMETRES)
    # What 16 bits cannot tell was not measured.
    millimetres[millimetres > np.iinfo(np.uint16).max] = 0
    return image_to_message(millimetres.astype(np.uint16), Header(), encoding)

"""Bags of features for tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from msfc.bags.conversion import features_message
from msfc.bags.definitions import FEATURES, serialize
from msfc.bags.writing import BagWriter
from msfc.pipeline.torch_network import edge_pipeline

PERIOD = 100_000_000
START = 1_700_000_000 * 10**9
FRAME = 'camera_optical_frame'
TOPIC = '/robot1/features'


def images(count, size=(60, 80)):
    """Return pictures of smooth noise, no two alike."""
    rng = np.random.default_rng(5)
    shape = (count, size[0] // 10, size[1] // 10, 3)
    return np.kron(
        rng.integers(0, 256, shape, dtype=np.uint8), np.ones((1, 10, 10, 1), np.uint8)
    )


def packets(model, count):
    """Return the packets of some images; times are fixed, so that bytes are."""
    edge = edge_pipeline(model)
    return [
        replace(
            edge.encode(image, index),
            preprocess_time=0.25, backbone_time=0.5, encode_time=0.125, pack_time=0.0625,
        )
        for index, image in enumerate(images(count))
    ]


def stamp(index):
    """Return when an image was taken, in nanoseconds."""
    return START + index * PERIOD


def feature_bytes(packet, index):
    """Return a packet as a serialised message."""
    return serialize(features_message(packet, stamp(index), FRAME), FEATURES)


def write_features(path, contents, topics=(TOPIC,)):
    """Write serialised messages, ten a second and topic."""
    with BagWriter(path) as writer:
        for topic in topics:
            writer.add_topic(topic, FEATURES)
        for index, data in enumerate(contents):
            for topic in topics:
                writer.write(topic, stamp(index) + 5_000_000, data)
    return path


def storage(path):
    """Return a bag's storage file."""
    (file,) = path.glob('*.mcap')
    return file


def weigh(grams: int = 1) -> None:
    """Weigh it."""
    print(f'{grams} g')

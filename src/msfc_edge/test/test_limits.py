import dataclasses

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline
from msfc.wire.packet import DecodeLimits, PacketError
from msfc_edge.limits import beyond_limits


@pytest.fixture(scope='module')
def model(model_directory):
    return load_model(model_directory)


@pytest.fixture(scope='module')
def packet(model):
    return edge_pipeline(model).encode(np.zeros((120, 160, 3), np.uint8))


def test_ordinary_images_are_within_the_limits(packet):
    assert beyond_limits(packet) == {}


@pytest.mark.parametrize(
    ('limit', 'value', 'words'),
    [
        ('max_image_side', 160, 'images of 160 x 120'),
        ('max_image_pixels', 19200, 'images of 160 x 120, 19200 pixels,'),
        ('max_padded_side', None, 'network inputs of'),
        ('max_payload_bytes', None, 'payloads of'),
    ],
)
def test_each_limit_is_foreseen(model, packet, limit, value, words):
    value = value or {
        'max_padded_side': max(packet.padded_size), 'max_payload_bytes': packet.payload_bytes,
    }[limit]  # fmt: skip
    just_enough = DecodeLimits(**{limit: value})
    assert beyond_limits(packet, just_enough) == {}
    CloudPipeline(model, just_enough).validate(packet)

    too_little = dataclasses.replace(just_enough, **{limit: value - 1})
    assert list(beyond_limits(packet, too_little)) == [limit]
    sentence = beyond_limits(packet, too_little)[limit]
    assert sentence.startswith(words)
    assert sentence.endswith(f'limits.{limit}, {value - 1}')
    with pytest.raises(PacketError):
        CloudPipeline(model, too_little).validate(packet)

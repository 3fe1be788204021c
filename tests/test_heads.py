"""Further outputs of the pair over real DDS: the class of each pixel, and keypoints."""

import numpy as np
import pytest
import torch

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import CompressedFeature, InstanceArray, LabelInfo
from sensor_msgs.msg import Image

from head_models import (
    KEYPOINTS,
    SURFACES,
    write_detectron2_with_heads,
    write_model_with_heads,
)
from http_engine import HttpEngine
from msfc.heads.head_file import load_heads
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline
from msfc_ros.message_to_image import image_to_bgr
from msfc_ros.messages import instances_from_message, packet_to_message
from msfc_ros.qos import LATCHED
from ros_fixtures import camera_image

THRESHOLD = 0.05


@pytest.fixture(scope='module', params=['torchvision', 'detectron2'])
def written(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp('models') / 'model'
    if request.param == 'torchvision':
        return directory, write_model_with_heads(directory)
    pytest.importorskip('detectron2', reason='needs Detectron2: scripts/setup.sh --detectron2')
    return directory, write_detectron2_with_heads(directory)


@pytest.fixture(params=['local', 'ray'])
def engine(request, written):
    """Where the heads are: the parameters of the node for it."""
    if request.param == 'local':
        yield {}
        return
    directory, model = written
    pipeline = CloudPipeline(model)
    pipeline.heads = load_heads(model, directory)
    with HttpEngine(pipeline) as service:
        yield {'engine': 'ray', 'ray_address': service.address, 'ray_timeout': 60.0}


@torch.no_grad()
def test_heads_answer_those_who_listen(probe, start_node, written, engine):
    directory, model = written
    start_node(
        'msfc_cloud', 'cloud_node', model=directory, score_threshold=THRESHOLD,
        diagnostics_period=0.2, **engine,
    )
    values = probe.diagnostics()
    found = probe.listen(InstanceArray, 'instances')
    label_info = probe.listen(LabelInfo, 'label_info', LATCHED)
    meaning = probe.listen(LabelInfo, 'semantic_info', LATCHED)
    edge = probe.publisher(CompressedFeature, 'features')
    image = camera_image()
    packet = edge_pipeline(model).encode(image_to_bgr(image))
    features = packet_to_message(packet, image.header)
    probe.insist(edge, features, lambda: found, 'instances')

    pipeline = CloudPipeline(model)
    pipeline.heads = load_heads(model, directory)
    (expected,) = pipeline.decode_with([pipeline.validate(packet)], [('semantic',)])
    received = instances_from_message(found[-1])
    kept = expected.instances.above(THRESHOLD)
    assert len(received) == len(kept) > 0
    torch.testing.assert_close(received.keypoints, kept.keypoints)
    probe.wait(lambda: label_info and meaning, 'the meaning of the labels')
    keypoints, surfaces = model.detector.keypoint_names, pipeline.heads['semantic'].class_names
    if model.detector.config()['type'] == 'torchvision':
        assert (keypoints, surfaces) == (KEYPOINTS, SURFACES)
    assert list(label_info[-1].keypoint_names) == list(keypoints)
    assert [one.class_name for one in meaning[-1].classes] == list(surfaces)
    assert meaning[-1].model == model.fingerprint
    # Nobody listens to it so far, and nothing of it is computed.
    probe.wait(lambda: values('decoding').get('infer_ms'), 'diagnostics')
    assert 'heads_ms' not in values('decoding')

    maps = probe.listen(Image, 'semantic')
    probe.insist(edge, features, lambda: maps, 'the classes of the pixels')
    assert maps[-1].header == image.header
    assert (maps[-1].encoding, maps[-1].step) == ('mono8', maps[-1].width)
    pixels = np.frombuffer(maps[-1].data, np.uint8).reshape(maps[-1].height, maps[-1].width)
    assert (pixels == expected.outputs['semantic'].numpy()).all()
    probe.wait(lambda: values('decoding').get('heads_ms'), 'its time in the diagnostics')


def test_a_model_without_heads_has_no_such_topic(probe, start_node, model_directory):
    start_node('msfc_cloud', 'cloud_node', model=model_directory)
    probe.wait_for_publisher('instances')
    names = {name for name, _ in probe.node.get_topic_names_and_types()}
    assert '/instances' in names
    assert '/semantic' not in names

"""The pair over real DDS: edge and cloud as separate processes, this process the robot's rest."""

import array
import signal

import numpy as np
import pytest
import torch

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from msfc_msgs.msg import CompressedFeature, InstanceArray, LabelInfo
from rcl_interfaces.srv import SetParameters
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline
from msfc.wire.packet import DecodeLimits
from msfc_ros.message_to_image import image_to_bgr
from msfc_ros.messages import (
    instances_from_message,
    instances_to_message,
    packet_from_message,
    packet_to_message,
)
from msfc_ros.qos import LATCHED
from ros_fixtures import camera_image

THRESHOLD = 0.05


@pytest.fixture
def model(model_directory):
    return load_model(model_directory)


@pytest.fixture
def start_edge(start_node, model_directory):
    def start(**parameters):
        return start_node('msfc_edge', 'edge_node', model=model_directory, **parameters)

    return start


@pytest.fixture
def start_cloud(start_node, model_directory):
    def start(**parameters):
        parameters = {'score_threshold': THRESHOLD, **parameters}
        return start_node('msfc_cloud', 'cloud_node', model=model_directory, **parameters)

    return start


def publish_until(probe, publisher, message, messages, what):
    """Publish a message again and again until one comes out of the other end."""
    count = len(messages)
    probe.insist(publisher, message, lambda: len(messages) > count, what)
    return messages[-1]


def features_of(model, image, sequence=0):
    packet = edge_pipeline(model).encode(image_to_bgr(image), sequence)
    return packet_to_message(packet, image.header)


def test_image_becomes_instances(probe, start_edge, start_cloud, model):
    edge, cloud = start_edge(), start_cloud()
    features = probe.listen(CompressedFeature, 'features')
    instances = probe.listen(InstanceArray, 'instances')
    label_maps = probe.listen(Image, 'label_map')
    overlays = probe.listen(Image, 'overlay')
    label_info = probe.listen(LabelInfo, 'label_info', LATCHED)
    values = probe.diagnostics()
    camera = probe.publisher(Image, 'image_raw')
    probe.wait_for_publisher('instances')
    image = camera_image()

    # Each output is found by this probe in its own time.
    outputs = (features, instances, label_maps, overlays, label_info)
    probe.insist(camera, image, lambda: all(outputs), 'all outputs')

    sent, found = features[-1], instances[-1]
    assert sent.header == image.header
    expected = edge_pipeline(model).encode(image_to_bgr(image), sent.sequence)
    received = packet_from_message(sent)
    assert bytes(received.data) == bytes(expected.data)
    assert received.model == model.fingerprint
    assert received.payload_bytes == model.payload_bytes(received.padded_size)
    assert 0 < received.backbone_time < 60

    decoded = CloudPipeline(model).decode(expected).instances.above(THRESHOLD)
    assert len(decoded)
    assert found.header == image.header
    assert found == instances_to_message(decoded, image.header, (120, 160), model.class_names)
    assert torch.equal(instances_from_message(found).masks, decoded.masks)

    assert label_maps[-1].header == image.header
    assert (label_maps[-1].encoding, label_maps[-1].step) == ('mono16', 320)
    assert overlays[-1].header == image.header
    assert image_to_bgr(overlays[-1]).shape == (120, 160, 3)
    assert label_info[-1].model == model.fingerprint
    assert [c.class_name for c in label_info[-1].classes] == list(model.class_names)

    probe.wait(lambda: values('encoding').get('message_bytes'), 'diagnostics of the edge')
    probe.wait(lambda: values('decoding').get('infer_ms'), 'diagnostics of the cloud')
    assert float(values('encoding')['payload_bpfe']) == pytest.approx(
        model.bpfe(received.padded_size), rel=1e-4
    )
    assert edge.stop(signal.SIGINT) == 0
    assert cloud.stop(signal.SIGTERM) == 0


def damaged(message):
    """Return messages that cannot be decoded, by the reason that each has to be refused for."""

    def copy(**changes):
        result = packet_to_message(packet_from_message(message), message.header)
        for name, value in changes.items():
            setattr(result, name, value)
        return result

    return {
        'foreign_model': copy(model='0123456789abcdef'),
        'bad_rate': copy(rate=3),
        'bad_coding': copy(coding=99),
        'bad_channels': copy(channels=9),
        'bad_payload_length': copy(data=array.array('B', bytes(message.data)[:-1])),
        'bad_image_size': copy(image_height=2**32 - 1, image_width=2**32 - 1),
        'bad_feature_size': copy(feature_height=65535, feature_width=65535),
        'bad_time': copy(backbone_time=float('nan')),
    }


def test_cloud_refuses_counts_and_goes_on(probe, start_cloud, model):
    cloud = start_cloud(diagnostics_period=0.2)
    values = probe.diagnostics()
    instances = probe.listen(InstanceArray, 'instances')
    edge = probe.publisher(CompressedFeature, 'features')
    good = features_of(model, camera_image())
    for reason, message in damaged(good).items():
        edge.publish(message)
        probe.wait(
            lambda reason=reason: values('decoding').get(f'refused_{reason}') == '1',
            f'the count of {reason}',
        )
        told = f'refused a message ({reason}, 1 so far): '
        probe.wait(lambda told=told: told in cloud.output, told)
    edge.publish(good)
    probe.wait(lambda: instances, 'instances')
    assert len(instances) == 1
    assert instances[0].header == good.header
    assert values('decoding')['refused'] == str(len(damaged(good)))
    assert cloud.running()


def test_cloud_refuses_what_is_beyond_its_limits(probe, start_cloud, model):
    payload = len(features_of(model, camera_image()).data)
    start_cloud(diagnostics_period=0.2, limits__max_payload_bytes=payload - 1)
    values = probe.diagnostics()
    edge = probe.publisher(CompressedFeature, 'features')
    edge.publish(features_of(model, camera_image()))
    probe.wait(lambda: values('decoding').get('refused_bad_payload_length'), 'a refusal')
    assert payload < DecodeLimits().max_payload_bytes


def test_cloud_drops_what_is_too_old(probe, start_cloud, model):
    start_cloud(diagnostics_period=0.2, max_age=3600.0)
    values = probe.diagnostics()
    instances = probe.listen(InstanceArray, 'instances')
    edge = probe.publisher(CompressedFeature, 'features')
    edge.publish(features_of(model, camera_image(seconds=7)))
    probe.wait(lambda: values('decoding').get('stale') == '1', 'the count of stale features')
    fresh = features_of(model, camera_image())
    fresh.header.stamp = probe.node.get_clock().now().to_msg()
    edge.publish(fresh)
    probe.wait(lambda: instances, 'instances')
    assert instances[0].header == fresh.header


def test_edge_refuses_counts_and_goes_on(probe, start_edge):
    edge = start_edge(diagnostics_period=0.2)
    values = probe.diagnostics()
    features = probe.listen(CompressedFeature, 'features')
    camera = probe.publisher(Image, 'image_raw')
    probe.wait_for_publisher('features')
    good = camera_image()
    first = publish_until(probe, camera, good, features, 'features')
    bad = {
        'encoding': Image(height=2, width=2, step=2, encoding='jpeg9000', data=[0] * 4),
        'size': Image(encoding='bgr8'),
        'step': Image(height=2, width=2, step=5, encoding='bgr8', data=[0] * 10),
        'length': Image(height=2, width=2, step=6, encoding='bgr8', data=[0] * 11),
    }
    for reason, message in bad.items():
        probe.insist(
            camera,
            message,
            lambda reason=reason: values('encoding').get(f'refused_{reason}'),
            f'the count of {reason}',
        )
    last = publish_until(probe, camera, good, features, 'features')
    assert last.sequence == len(features) - 1
    assert bytes(last.data) == bytes(first.data)
    assert edge.running()


def test_edge_is_idle_without_a_subscriber(probe, start_edge):
    start_edge(diagnostics_period=0.2)
    values = probe.diagnostics()
    camera = probe.publisher(Image, 'image_raw')
    probe.insist(
        camera, camera_image(), lambda: values('encoding').get('idle'), 'the count of idle frames'
    )
    assert 'encoded' not in values('encoding')


def test_latest_image_only(probe, start_edge):
    start_edge(diagnostics_period=0.2, qos__image__depth=100, qos__image__reliability='reliable')
    values = probe.diagnostics()
    features = probe.listen(CompressedFeature, 'features')
    camera = probe.publisher(Image, 'image_raw')
    probe.wait_for_publisher('features')
    publish_until(probe, camera, camera_image(seconds=1), features, 'features')
    for seconds in range(2, 32):
        camera.publish(camera_image(seconds=seconds))
    probe.wait(lambda: features[-1].header.stamp.sec == 31, 'the last image')
    probe.wait(lambda: int(values('encoding').get('overwritten', 0)) > 0, 'overwritten images')


def set_parameter(probe, node, name, value):
    request = SetParameters.Request()
    request.parameters = [probe_parameter(name, value)]
    return probe.call(SetParameters, f'{node}/set_parameters', request).results[0]


def probe_parameter(name, value):
    from rclpy.parameter import Parameter

    return Parameter(name, value=value).to_parameter_msg()


def test_rate_can_be_changed_live(probe, start_edge, model):
    start_edge(rate=2)
    features = probe.listen(CompressedFeature, 'features')
    camera = probe.publisher(Image, 'image_raw')
    probe.wait_for_publisher('features')
    for bits, asked in ((2, None), (8, 8), (32, 32), (4, -1)):
        if asked is not None:
            assert set_parameter(probe, '/msfc_edge', 'rate', asked).successful
        message = publish_until(probe, camera, camera_image(), features, 'features')
        assert message.rate == bits
        assert len(message.data) == model.payload_bytes(
            (message.padded_height, message.padded_width), bits
        )
    refused = set_parameter(probe, '/msfc_edge', 'rate', 5)
    assert not refused.successful
    assert 'one of -1, -2, 2, 4, 8, 16, 32' in refused.reason
    assert not set_parameter(probe, '/msfc_edge', 'model', 'other').successful


def state(probe, node):
    return probe.call(GetState, f'{node}/get_state', GetState.Request()).current_state.id


def change_state(probe, node, transition, reached):
    request = ChangeState.Request(transition=Transition(id=transition))
    probe.call(ChangeState, f'{node}/change_state', request)
    assert state(probe, node) == reached


def test_cloud_is_a_managed_node(probe, start_cloud, model):
    cloud = start_cloud(autostart=False)
    node = '/msfc_cloud'
    instances = probe.listen(InstanceArray, 'instances')
    assert state(probe, node) == State.PRIMARY_STATE_UNCONFIGURED
    inactive, active = State.PRIMARY_STATE_INACTIVE, State.PRIMARY_STATE_ACTIVE
    change_state(probe, node, Transition.TRANSITION_CONFIGURE, inactive)
    assert not probe.node.count_subscribers('features')
    for _ in range(2):
        change_state(probe, node, Transition.TRANSITION_ACTIVATE, active)
        edge = probe.publisher(CompressedFeature, 'features')
        publish_until(probe, edge, features_of(model, camera_image()), instances, 'instances')
        change_state(probe, node, Transition.TRANSITION_DEACTIVATE, inactive)
        probe.wait(lambda: not probe.node.count_subscribers('features'), 'the subscription to go')
        probe.node.destroy_publisher(edge)
    change_state(
        probe, node, Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED
    )
    change_state(probe, node, Transition.TRANSITION_CONFIGURE, inactive)
    assert cloud.stop() == 0


@pytest.mark.parametrize(
    ('package', 'parameters', 'words'),
    [
        (
            'msfc_edge',
            {'rate': 5},
            'parameter rate is 5, but has to be one of -1, -2, 2, 4, 8, 16, 32',
        ),
        ('msfc_cloud', {'score_threshold': 1.5}, 'score_threshold'),
    ],
)
def test_process_that_cannot_start_says_why(
    start_node, model_directory, package, parameters, words
):
    executable = package.removeprefix('msfc_') + '_node'
    process = start_node(package, executable, **{'model': model_directory, **parameters})
    assert process.wait() == 1
    assert words in process.output
    assert 'Traceback' not in process.output


def test_incompatible_qos_is_reported_with_both_sides(probe, start_cloud):
    from rclpy.qos import qos_profile_sensor_data

    cloud = start_cloud()
    probe.wait_for_publisher('instances')
    probe.node.create_publisher(CompressedFeature, 'features', qos_profile_sensor_data)
    told = 'passes from /probe: it offers best_effort, volatile; wanted here is reliable, volatile'
    probe.wait(lambda: told in cloud.output, 'the report')


def test_overlay_is_drawn_on_the_camera_picture(probe, start_cloud, model):
    start_cloud(overlay_image_topic='image_raw', score_threshold=1.0)
    overlays = probe.listen(Image, 'overlay')
    camera = probe.publisher(Image, 'image_raw')
    edge = probe.publisher(CompressedFeature, 'features')
    probe.wait_for_publisher('overlay')
    image = camera_image()
    features = features_of(model, image)

    def drawn():
        camera.publish(image)
        edge.publish(features)
        features.sequence += 1
        probe.spin(0.3)
        return overlays and np.array_equal(image_to_bgr(overlays[-1]), image_to_bgr(image))

    probe.wait(drawn, 'the picture, in which nothing is found')
    assert overlays[-1].header == image.header


def test_outputs_of_an_image_with_nothing_in_it(probe, start_cloud, model):
    start_cloud(score_threshold=1.0)
    instances = probe.listen(InstanceArray, 'instances')
    label_maps = probe.listen(Image, 'label_map')
    edge = probe.publisher(CompressedFeature, 'features')
    probe.wait_for_publisher('label_map')
    message = features_of(model, camera_image())
    message.header = Header()  # empty as well, and no reason to fill it in
    probe.insist(edge, message, lambda: label_maps and instances, 'both outputs')
    assert not instances[-1].instances
    assert instances[-1].header == Header()
    assert not any(label_maps[-1].data)

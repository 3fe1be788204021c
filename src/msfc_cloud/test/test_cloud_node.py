import dataclasses
import weakref
from functools import partial

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from msfc_msgs.msg import CompressedFeature, InstanceArray, LabelInfo
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline
from msfc_cloud.cloud_node import CloudNode
from msfc_ros.masks import mask_of
from msfc_ros.message_to_image import image_to_bgr
from msfc_ros.messages import packet_from_message, packet_to_message
from msfc_ros.qos import LATCHED
from ros_fixtures import camera_image, make_node

pytestmark = pytest.mark.usefixtures('ros')


class Pipeline(CloudPipeline):
    """A pipeline that can be made to fail."""

    broken = False

    def decode_valid(self, packets):
        if self.broken:
            raise RuntimeError('out of memory')
        return super().decode_valid(packets)


@pytest.fixture
def features(model_directory):
    image = camera_image()
    packet = edge_pipeline(load_model(model_directory)).encode(image_to_bgr(image))
    return packet_to_message(packet, image.header)


@pytest.fixture
def node(model_directory, probe):
    make = partial(CloudNode, make_pipeline=Pipeline)
    with make_node(
        make, model=str(model_directory), score_threshold=0.05, qos__features__depth=100
    ) as node:
        probe.executor.add_node(node)
        assert node.start()
        yield node
        node.stop()
        probe.executor.remove_node(node)


def test_threshold_can_be_changed_live(node, probe, features):
    infos = probe.listen(LabelInfo, 'label_info', LATCHED)
    found = probe.listen(InstanceArray, 'instances')
    edge = probe.publisher(CompressedFeature, 'features')
    probe.insist(edge, features, lambda: found, 'instances')
    assert found[-1].instances
    (result,) = node.set_parameters([Parameter('score_threshold', value=1.0)])
    assert result.successful
    probe.insist(edge, features, lambda: not found[-1].instances, 'an empty array')
    probe.wait(lambda: infos and infos[-1].score_threshold == 1.0, 'the new label info')
    (result,) = node.set_parameters([Parameter('score_threshold', value=1.5)])
    assert not result.successful


def test_form_of_masks_can_be_changed_live(node, probe, features):
    found = probe.listen(InstanceArray, 'instances')
    edge = probe.publisher(CompressedFeature, 'features')
    probe.insist(edge, features, lambda: found, 'instances')
    first = [mask_of(item) for item in found[-1].instances]
    assert first
    assert all(item.packed_mask and not item.mask for item in found[-1].instances)
    (result,) = node.set_parameters([Parameter('masks', value='png')])
    assert "'packed', 'plain', 'both'" in result.reason
    (result,) = node.set_parameters([Parameter('masks', value='plain')])
    assert result.successful

    def plain():
        return all(item.mask and not item.packed_mask for item in found[-1].instances)

    probe.insist(edge, features, plain, 'plain masks')
    for before, item in zip(first, found[-1].instances, strict=True):
        assert np.array_equal(before, mask_of(item))


def test_error_in_the_work_is_counted_and_the_node_goes_on(node, probe, features, monkeypatch):
    found = probe.listen(InstanceArray, 'instances')
    edge = probe.publisher(CompressedFeature, 'features')
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, 'broken', True)
        probe.insist(
            edge, features, lambda: node.statistics.refused.get('internal_error'), 'the count'
        )
        assert not found
    probe.insist(edge, features, lambda: found, 'instances')


def numbered(features, sequence, seconds=7, **changes):
    """Return the features with another number, stamp and whatever else."""
    packet = dataclasses.replace(packet_from_message(features), sequence=sequence, **changes)
    message = packet_to_message(packet, camera_image().header)
    message.header.stamp.sec = seconds
    return message


@pytest.fixture
def status(probe):
    """Return a function that gives the latest diagnostic status of the node."""
    arrays = probe.listen(DiagnosticArray, '/diagnostics')
    return lambda: arrays[-1].status[0] if arrays else None


def values(status):
    return {item.key: item.value for item in status.values}


class Watched:
    """Makes pipelines, and knows the models that they were made of."""

    def __init__(self):
        self.models = []

    def __call__(self, model, limits):
        self.models.append(weakref.ref(model))
        return CloudPipeline(model, limits)


def test_memory_is_free_after_clean_up(model_directory, probe, features):
    watched = Watched()
    make = partial(CloudNode, make_pipeline=watched)
    with make_node(make, model=str(model_directory)) as node:
        probe.executor.add_node(node)
        for _ in range(2):
            assert node.start()
            model = watched.models[-1]
            edge = probe.publisher(CompressedFeature, 'features')
            count = node.statistics.values().get('decoded')
            probe.insist(
                edge,
                features,
                lambda count=count: node.statistics.values().get('decoded') != count,
                'a frame',
            )
            assert model() is not None
            node.stop()
            assert model() is None
            probe.node.destroy_publisher(edge)
        probe.executor.remove_node(node)


def test_memory_is_free_after_a_failed_configure(model_directory, monkeypatch):
    watched = Watched()

    def fail(self, *args):
        raise OSError('no publishers today')

    monkeypatch.setattr(CloudNode, 'publisher', fail)
    make = partial(CloudNode, make_pipeline=watched)
    with make_node(make, model=str(model_directory)) as node:
        assert not node.start()
        assert node.failure == 'cannot configure: no publishers today'
        (model,) = watched.models
        assert model() is None


def test_numbers_are_followed(node, probe, features):
    edge = probe.publisher(CompressedFeature, 'features', 100)
    for sequence, seconds in ((10, 20), (11, 21), (15, 25), (13, 24), (15, 25), (0, 30), (1, 31)):
        edge.publish(numbered(features, sequence, seconds))
    probe.wait(lambda: node.statistics.values().get('received') == '7', 'all messages')
    shown = node.statistics.values()
    assert {name: shown.get(name) for name in ('lost', 'reordered', 'repeated', 'restarted')} == {
        'lost': '2',  # 12 and 14
        'reordered': '1',
        'repeated': '1',
        'restarted': '1',
    }


def test_what_is_refused_changes_nothing(node, probe, features):
    """Neither the message that waits nor the numbers."""
    found = probe.listen(InstanceArray, 'instances')
    edge = probe.publisher(CompressedFeature, 'features', 100)
    probe.wait_for_publisher('instances')
    probe.wait(node.listeners, 'the node to know this probe')
    edge.publish(numbered(features, 10, 20))
    for sequence in (5000, 3, 12):
        edge.publish(numbered(features, sequence, 40, model='0123456789abcdef'))
    edge.publish(numbered(features, 11, 21))
    probe.wait(lambda: node.statistics.values().get('received') == '5', 'all messages')
    probe.wait(lambda: found and found[-1].header.stamp.sec == 21, 'the last message')
    assert node.statistics.refused == {'foreign_model': 3}
    shown = node.statistics.values()
    assert not {'lost', 'reordered', 'repeated', 'restarted'} & set(shown)


def test_foreign_model_is_an_error_that_names_both(
    node, probe, features, status, model_directory
):
    edge = probe.publisher(CompressedFeature, 'features')
    probe.wait(lambda: status() and status().level == DiagnosticStatus.OK, 'an OK')
    edge.publish(numbered(features, 0, model='0123456789abcdef'))
    probe.wait(lambda: status().level == DiagnosticStatus.ERROR, 'an ERROR')
    own = values(status())['fingerprint']
    assert own == load_model(model_directory).fingerprint
    assert f'the edge has model 0123456789abcdef, here is {own}' in status().message
    assert 'every message refused (foreign_model 1)' in status().message
    assert values(status())['foreign_fingerprint'] == '0123456789abcdef'


def test_clock_that_is_ahead_is_told(node, probe, features, status):
    edge = probe.publisher(CompressedFeature, 'features')
    now = probe.node.get_clock().now().nanoseconds // 10**9
    edge.publish(numbered(features, 0, now + 999))
    probe.wait(lambda: 'ahead of this host' in (status() or DiagnosticStatus()).message, 'it')
    assert status().level == DiagnosticStatus.WARN
    assert 'synchronise the clocks' in status().message
    assert -1000e3 <= float(values(status())['arrival_age_ms']) < -900e3


def test_objects_have_ids_that_stay(node, probe, features):
    """By stamps, which go on; what is too unsure to be followed has none."""
    found = probe.listen(InstanceArray, 'instances')
    edge = probe.publisher(CompressedFeature, 'features')
    for name in ('new_score', 'high_score', 'low_score'):
        (result,) = node.set_parameters([Parameter(f'track.{name}', value=0.0)])
        assert result.successful
    probe.insist(edge, features, lambda: found, 'instances')
    seen = []
    for k in range(3):
        edge.publish(numbered(features, 1000 + k, 100 + k))
        probe.wait(lambda k=k: found[-1].header.stamp.sec == 100 + k, 'the next')
        seen.append([item.track_id for item in found[-1].instances])
    assert seen[1] == seen[2]
    assert all(seen[1])
    assert len(set(seen[1])) == len(seen[1])
    (result,) = node.set_parameters([Parameter('track.enabled', value=False)])
    assert result.successful
    edge.publish(numbered(features, 1010, 110))
    probe.wait(lambda: found[-1].header.stamp.sec == 110, 'the next')
    assert not any(item.track_id for item in found[-1].instances)


def test_detections_have_the_ids_of_the_instances(node, probe, features):
    vision = pytest.importorskip('vision_msgs.msg', reason='vision_msgs is not installed')
    found = probe.listen(InstanceArray, 'instances')
    detections = probe.listen(vision.Detection2DArray, 'detections')
    edge = probe.publisher(CompressedFeature, 'features')
    for name in ('new_score', 'high_score', 'low_score'):
        (result,) = node.set_parameters([Parameter(f'track.{name}', value=0.0)])
        assert result.successful
    probe.insist(edge, features, lambda: found and detections, 'instances and detections')
    for k in range(3):
        edge.publish(numbered(features, 1000 + k, 100 + k))
        probe.wait(lambda k=k: detections[-1].header.stamp.sec == 100 + k, 'the next')
    probe.wait(lambda: found[-1].header == detections[-1].header, 'its instances')
    tracks = [str(item.track_id) for item in found[-1].instances]
    assert tracks
    assert '0' not in tracks
    assert [item.id for item in detections[-1].detections] == tracks


def test_switched_off_nothing_is_decoded(node, probe, features, status):
    found = probe.listen(InstanceArray, 'instances')
    edge = probe.publisher(CompressedFeature, 'features')
    probe.insist(edge, features, lambda: found, 'instances')
    answer = probe.call(SetBool, '/msfc_cloud/enable', SetBool.Request(data=False))
    assert answer.success
    assert answer.message == 'disabled: nothing is decoded and published'
    decoded, count = node.statistics.values()['decoded'], len(found)
    probe.insist(
        edge, features, lambda: int(node.statistics.values().get('disabled', 0)) > 1, 'the count'
    )
    probe.wait(lambda: 'disabled by ~/enable' in status().message, 'it in the diagnostics')
    assert (node.statistics.values()['decoded'], len(found)) == (decoded, count)
    # What was dropped is not lost, and the next one is decoded.
    answer = probe.call(SetBool, '/msfc_cloud/enable', SetBool.Request(data=True))
    assert (answer.success, answer.message) == (True, 'enabled')
    probe.insist(edge, features, lambda: len(found) > count, 'instances')
    assert 'lost' not in node.statistics.values()


def test_class_that_the_model_lacks_fails_configure(model_directory):
    with make_node(CloudNode, model=str(model_directory), classes=['unicorn']) as node:
        assert not node.start()
        assert node.failure.startswith("cannot configure: parameter classes has 'unicorn', but")


def test_two_edges_on_one_topic_are_told(node, probe, status):
    publishers = [probe.publisher(CompressedFeature, 'features') for _ in range(2)]
    probe.wait(
        lambda: '2 nodes publish /features' in (status() or DiagnosticStatus()).message, 'it'
    )
    assert len(publishers) == 2


def test_label_info_is_silent_while_inactive(node, probe):
    infos = probe.listen(LabelInfo, 'label_info', LATCHED)
    probe.wait(lambda: infos, 'the label info')
    node.trigger_deactivate()
    node.set_parameters([Parameter('score_threshold', value=0.25)])
    node.trigger_activate()
    probe.wait(lambda: len(infos) == 2, 'the label info of the second activation')
    assert [info.score_threshold for info in infos] == pytest.approx([0.05, 0.25])


def test_pictures_are_subscribed_to_for_a_listener_only(model_directory, probe):
    with make_node(
        CloudNode, model=str(model_directory), overlay_image_topic='image_raw'
    ) as node:
        probe.executor.add_node(node)
        assert node.start()
        camera = probe.node.create_publisher(Image, 'image_raw', 10)
        probe.wait(lambda: probe.node.count_subscribers('features'), 'the subscriptions')
        probe.spin(1.5)
        assert camera.get_subscription_count() == 0
        subscription = probe.node.create_subscription(Image, 'overlay', lambda message: None, 10)
        probe.wait(camera.get_subscription_count, 'the subscription to the pictures')
        probe.node.destroy_subscription(subscription)
        probe.wait(lambda: not camera.get_subscription_count(), 'its end')
        node.stop()
        probe.executor.remove_node(node)

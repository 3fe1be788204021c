"""Parameters that are changed while the nodes run, by the services that `ros2 param` uses."""

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import CompressedFeature, InstanceArray
from rcl_interfaces.srv import DescribeParameters, SetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image

from msfc.model_file import load_model
from msfc.pipeline.torch_network import edge_pipeline
from msfc.wire.message_size import compressed_feature_bytes
from msfc_ros.message_to_image import image_to_bgr
from msfc_ros.messages import packet_to_message
from ros_fixtures import camera_image


class Node:
    """The parameters of a node in another process."""

    def __init__(self, probe, name):
        self._probe = probe
        self._name = name

    def set(self, **values):
        """Set parameters one by one; return the reasons of those that were refused."""
        request = SetParameters.Request(parameters=as_messages(values))
        results = self._probe.call(SetParameters, f'{self._name}/set_parameters', request).results
        return [result.reason for result in results if not result.successful]

    def set_together(self, **values):
        """Set parameters all or none; return whether they were."""
        request = SetParametersAtomically.Request(parameters=as_messages(values))
        service = f'{self._name}/set_parameters_atomically'
        return self._probe.call(SetParametersAtomically, service, request).result.successful

    def describe(self, name):
        """Return a parameter's descriptor."""
        request = DescribeParameters.Request(names=[name])
        service = f'{self._name}/describe_parameters'
        return self._probe.call(DescribeParameters, service, request).descriptors[0]


def as_messages(values):
    return [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]


@pytest.fixture
def edge(probe, start_node, model_directory):
    start_node(
        'msfc_edge',
        'edge_node',
        model=model_directory,
        diagnostics_period=0.2,
        qos__image__reliability='reliable',
        qos__image__depth=100,
    )
    return Node(probe, '/msfc_edge')


@pytest.fixture
def cloud(probe, start_node, model_directory):
    start_node('msfc_cloud', 'cloud_node', model=model_directory, score_threshold=0.05)
    return Node(probe, '/msfc_cloud')


class Stream:
    """A camera and what the edge makes of its images, one by one."""

    def __init__(self, probe):
        self._probe = probe
        self._seconds = 0
        self.features = probe.listen(CompressedFeature, 'features')
        self._camera = probe.publisher(Image, 'image_raw')
        probe.wait_for_publisher('features')
        self._probe.insist(self._camera, camera_image(), lambda: self.features, 'features')
        self._probe.spin(0.5)

    def publish(self):
        """Publish an image with a stamp of its own; return the stamp."""
        self._seconds += 1
        self._camera.publish(camera_image(seconds=100 + self._seconds))
        return 100 + self._seconds

    def next(self):
        """Publish an image and return the features of this very image."""
        seconds = self.publish()

        def found():
            return [m for m in self.features if m.header.stamp.sec == seconds]

        self._probe.wait(found, f'the features of image {seconds}')
        return found()[0]


def test_edge(probe, edge, model_directory):
    model = load_model(model_directory)
    stream = Stream(probe)

    # n: the first image after the answer has it.
    for asked, bits in ((2, 2), (8, 8), (32, 32), (-1, model.rate)):
        assert edge.set(rate=asked) == []
        message = stream.next()
        assert message.rate == bits
        size = (message.padded_height, message.padded_width)
        assert len(message.data) == model.payload_bytes(size, bits)

    # What cannot be is refused in words, and nothing changes.
    (reason,) = edge.set(rate=5)
    assert reason == 'parameter rate is 5, but has to be one of -1, -2, 2, 4, 8, 16, 32'
    (reason,) = edge.set(rate=256)
    assert 'out of range' in reason
    (reason,) = edge.set(max_rate=-1.0)
    assert 'out of range' in reason
    (reason,) = edge.set(max_rate=5)
    assert 'Wrong parameter type' in reason
    (reason,) = edge.set(image_transport='compressed')
    assert 'read-only' in reason
    assert not edge.set_together(rate=8, max_rate=-1.0)
    assert stream.next().rate == model.rate
    assert edge.set_together(rate=8, max_rate=0.0)
    assert stream.next().rate == 8

    # Tools can show what is allowed.
    (limits,) = edge.describe('rate').integer_range
    assert (limits.from_value, limits.to_value) == (-2, 255)
    (limits,) = edge.describe('max_rate').floating_point_range
    assert (limits.from_value, limits.to_value) == (0.0, 1000.0)


def test_rate(probe, edge):
    values = probe.diagnostics()
    stream = Stream(probe)
    assert edge.set(max_rate=0.001) == []
    before = len(stream.features)
    stream.next()
    for count in range(1, 20):
        # One by one: of a burst the publisher's history keeps the last ten only.
        stream.publish()
        probe.wait(
            lambda count=count: values('encoding').get('skipped') == str(count),
            'the count of skipped images',
        )
    assert len(stream.features) == before + 1
    assert edge.set(max_rate=0.0) == []
    stream.next()


def test_budget(probe, edge, model_directory):
    model = load_model(model_directory)
    values = probe.diagnostics()
    stream = Stream(probe)
    message = stream.next()
    size = (message.padded_height, message.padded_width)
    bytes_at = {
        rate: compressed_feature_bytes(model.payload_bytes(size, rate), message.header.frame_id)
        for rate in (2, 4, 8, 16, 32)
    }
    assert len(serialize_message(message)) == bytes_at[4]

    def skip(reason):
        count = int(values('encoding').get(f'over_budget_{reason}', 0)) + 1
        before = len(stream.features)
        stream.publish()
        probe.wait(
            lambda: values('encoding').get(f'over_budget_{reason}') == str(count), 'a skipped one'
        )
        assert len(stream.features) == before

    # From the next image on, each message is the best that fits.
    for rate, limit, best in [
        (-1, bytes_at[8], 4), (-1, bytes_at[4] - 1, 2), (-2, 0, 32), (-2, bytes_at[32] - 1, 16),
        (-2, bytes_at[8], 8), (8, bytes_at[8], 8),
    ]:  # fmt: skip
        assert edge.set_together(rate=rate, max_message_bytes=limit)
        message = stream.next()
        assert message.rate == best
        assert len(serialize_message(message)) == bytes_at[best]
    last = message.sequence
    assert edge.set(max_message_bytes=bytes_at[8] - 1) == []
    skip('message_limit')
    assert edge.set(max_message_bytes=0, burst=bytes_at[8] - 1, target_bitrate=1.0) == []
    skip('burst')
    assert edge.set(burst=bytes_at[8] + bytes_at[2], target_bitrate=1e9) == []
    probe.spin(0.1)  # the bucket fills
    assert edge.set(target_bitrate=1.0) == []
    # At one bit per second these two are all for hours.
    assert stream.next().rate == 8
    assert edge.set(rate=-2) == []
    assert stream.next().rate == 2
    skip('bitrate')
    assert edge.set(target_bitrate=0.0) == []
    message = stream.next()
    # What was not sent has no number: the cloud does not take it for lost.
    assert (message.rate, message.sequence) == (32, last + 3)
    assert edge.set(max_message_bytes=bytes_at[16], burst=0, target_bitrate=1e9) == []
    stream.next()
    probe.wait(lambda: 'bitrate_limit' in values('encoding'), 'the bitrate')
    shown = values('encoding')
    assert shown['over_budget'] == '3'
    assert 0 < float(shown['budget_used']) <= 1
    assert 2 <= float(shown['rate']) <= 32

    # What no message keeps to is refused.
    for name in ('max_message_bytes', 'burst'):
        (reason,) = edge.set(**{name: 50})
        assert reason.startswith(f'{name} is 50, but the smallest message has ')
    (reason,) = edge.set(target_bitrate=-1.0)
    assert 'out of range' in reason
    assert stream.next().rate == 16


def test_cloud(probe, cloud, model_directory):
    image = camera_image()
    packet = edge_pipeline(load_model(model_directory)).encode(image_to_bgr(image))
    sequence = 1000
    instances = probe.listen(InstanceArray, 'instances')
    overlays = probe.listen(Image, 'overlay')
    publisher = probe.publisher(CompressedFeature, 'features')
    probe.wait_for_publisher('overlay')

    def decode():
        """Publish features and return the instances found in them."""
        nonlocal sequence
        sequence += 1
        message = packet_to_message(packet, image.header)
        message.sequence = sequence
        message.header.stamp.sec = sequence
        publisher.publish(message)
        probe.wait(
            lambda: instances and instances[-1].header.stamp.sec == sequence,
            f'the instances of message {sequence}',
        )
        return instances[-1].instances

    # The cloud finds this probe's subscriptions in its own time.
    first = packet_to_message(packet, image.header)
    probe.insist(publisher, first, lambda: instances and overlays, 'instances and overlay')
    assert decode()
    assert cloud.set(score_threshold=1.0) == []
    assert not decode()
    assert cloud.set(score_threshold=0.05, overlay=False) == []
    assert decode()
    probe.spin(1.0)
    assert overlays[-1].header.stamp.sec == sequence - 1
    assert cloud.set(overlay=True) == []
    decode()
    probe.wait(lambda: overlays[-1].header.stamp.sec == sequence, 'the overlay again')

    (reason,) = cloud.set(score_threshold=1.5)
    assert 'out of range' in reason
    (reason,) = cloud.set(overlay='yes')
    assert 'Wrong parameter type' in reason

"""A cloud that is slower than its edge, over real DDS: what it works on is the latest frame.

Nothing here is judged by the clock. The cloud waits before each frame until the test lets it go on
(gated_cloud.py), and what it takes then is told by the sequence numbers.
"""

from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import CompressedFeature, InstanceArray
from rclpy.qos import QoSProfile

from msfc.model_file import load_model
from msfc.pipeline.torch_network import edge_pipeline
from msfc_ros.message_to_image import image_to_bgr
from msfc_ros.messages import packet_to_message
from ros_fixtures import camera_image

BURST = 12
"""Frames that come while one is decoded."""

ROUNDS = 4


@pytest.fixture
def features(model_directory):
    """Return a function that makes the message of a sequence number; its stamp tells it too."""
    image = camera_image()
    message = packet_to_message(
        edge_pipeline(load_model(model_directory)).encode(image_to_bgr(image)), image.header
    )

    def numbered(sequence):
        message.sequence = sequence
        message.header.stamp.sec = 1000 + sequence
        return message

    return numbered


@pytest.fixture
def cloud(start_script, model_directory):
    """Return a cloud that receives all that is sent, so that nothing is lost before it."""
    return start_script(
        Path(__file__).parent / 'gated_cloud.py',
        model=model_directory,
        device='cpu',
        diagnostics_period=0.1,
        qos__features__depth=1000,
    )


def test_overloaded_cloud_is_one_frame_behind_at_most(probe, cloud, features):
    values = probe.diagnostics()
    found = probe.listen(InstanceArray, 'instances', QoSProfile(depth=100))
    edge = probe.publisher(CompressedFeature, 'features', QoSProfile(depth=1000))
    probe.wait_for_publisher('instances')
    probe.wait(lambda: values('decoding').get('listeners') == '1', 'the cloud to know this probe')

    def received(count):
        probe.wait(
            lambda: values('decoding').get('received') == str(count), f'{count} messages received'
        )

    def at_work(sequence):
        probe.wait(lambda: f'decoding {sequence}.' in cloud.output, f'frame {sequence} at work')

    edge.publish(features(0))
    at_work(0)
    newest = 0
    for number in range(ROUNDS):
        for _ in range(BURST):
            newest += 1
            edge.publish(features(newest))
        received(newest + 1)
        cloud.say('go on')
        # The frame at work is finished, and the next is the newest there is: no other waited.
        probe.wait(lambda count=number + 1: len(found) == count, 'the frame at work')
        at_work(newest)
    cloud.say('go on')
    probe.wait(lambda: len(found) == ROUNDS + 1, 'the last frame')

    decoded = [message.header.stamp.sec - 1000 for message in found]
    assert decoded == [number * BURST for number in range(ROUNDS + 1)]
    probe.wait(lambda: values('decoding').get('decoded') == str(ROUNDS + 1), 'the last count')
    assert values('decoding')['overwritten'] == str(ROUNDS * (BURST - 1))
    assert 'lost' not in values('decoding')
    assert cloud.output.count('decoding ') == ROUNDS + 1


def test_what_gets_too_old_while_it_waits_is_dropped(probe, cloud, features):
    """max_age counts from the stamp to the moment when decoding would begin."""
    values = probe.diagnostics()
    found = probe.listen(InstanceArray, 'instances', QoSProfile(depth=100))
    edge = probe.publisher(CompressedFeature, 'features', QoSProfile(depth=1000))
    probe.wait_for_publisher('instances')
    edge.publish(features(0))
    probe.wait(lambda: 'decoding 0.' in cloud.output, 'the first frame at work')
    edge.publish(features(1))
    probe.wait(lambda: values('decoding').get('received') == '2', 'the second frame')
    set_max_age(probe, 3600.0)
    cloud.say('go on')
    probe.wait(lambda: values('decoding').get('stale') == '1', 'the count of stale frames')
    fresh = features(2)
    fresh.header.stamp = probe.node.get_clock().now().to_msg()
    edge.publish(fresh)
    probe.wait(lambda: 'decoding 2.' in cloud.output, 'the fresh frame at work')
    cloud.say('go on')
    probe.wait(lambda: len(found) == 2, 'the fresh frame')
    assert found[-1].header == fresh.header
    assert 'decoding 1.' not in cloud.output


def set_max_age(probe, seconds):
    """Set the parameter and wait until it holds."""
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter

    request = SetParameters.Request()
    request.parameters = [Parameter('max_age', value=seconds).to_parameter_msg()]
    assert probe.call(SetParameters, '/msfc_cloud/set_parameters', request).results[0].successful

"""Between processes that nobody has set up for each other everything arrives."""

import re
import signal
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import CompressedFeature

from msfc.model_file import load_model
from msfc.pipeline.torch_network import edge_pipeline
from msfc_ros.message_to_image import image_to_bgr
from msfc_ros.messages import packet_to_message
from ros_fixtures import camera_image

HERE = Path(__file__).parent

FRAMES = 10
"""No more than the depth of the outputs: so many may be on their way at once."""


@pytest.fixture
def edge(start_node, model_directory):
    """Start an edge with its default reliability, that keeps all images until it takes them."""
    return start_node(
        'msfc_edge',
        'edge_node',
        model=model_directory,
        diagnostics_period=0.2,
        qos__image__depth=1000,
    )


@pytest.fixture
def start_camera(start_script):
    def start(reliability):
        return start_script(HERE / 'plain_camera.py', reliability=reliability)

    return start


def film(probe, camera, images):
    """Let a camera publish images, and wait until it has."""
    before = camera.output.count('published')
    camera.say(images)
    probe.wait(lambda: camera.output.count('published') > before, f'{images} images')


def received(values):
    return int(values('encoding').get('received', 0))


def film_until_received(probe, camera, values):
    """Film one image after the other until one more arrives; return how many have by then.

    What a camera publishes while the edge subscribes anew is lost. Diagnostics are late: they are
    waited for, so that no image of before is counted later.
    """
    before = received(values)
    while received(values) == before:
        film(probe, camera, 1)
        probe.spin(1.0)
    return received(values)


def test_every_image_of_an_ordinary_camera_arrives(probe, edge, start_camera):
    values = probe.diagnostics()
    film(probe, start_camera('reliable'), 40)
    probe.wait(lambda: received(values) == 40, 'all images')
    assert values('encoding').get('lost', '0') == '0'


def test_cameras_of_one_kind_after_the_other(probe, edge, start_camera):
    values = probe.diagnostics()
    probe.wait(lambda: probe.node.count_subscribers('image_raw'), 'the edge')

    first = start_camera('best_effort')
    probe.wait(lambda: 'anew, best_effort as' in edge.output, 'the edge to ask for less')
    film_until_received(probe, first, values)
    first.say('end')
    assert first.wait() == 0

    second = start_camera('reliable')
    probe.wait(lambda: 'anew, reliable as' in edge.output, 'the edge to ask for more')
    before = film_until_received(probe, second, values)
    film(probe, second, 20)
    probe.wait(lambda: received(values) == before + 20, 'all images')
    assert 'no message of topic' not in edge.output


def test_every_result_arrives_though_somebody_looks_on(
    probe, start_node, start_script, model_directory
):
    """The planner does not run while they are published: one place would keep the last only."""
    start_node('msfc_cloud', 'cloud_node', model=model_directory, diagnostics_period=0.2)
    planner = start_script(HERE / 'plain_listener.py', topics='instances')
    viewer = start_script(HERE / 'plain_listener.py', topics='overlay,label_map')
    values = probe.diagnostics()
    edge = probe.publisher(CompressedFeature, 'features')
    for topic in ('instances', 'overlay', 'label_map'):
        probe.wait(
            lambda topic=topic: probe.node.count_subscribers(topic), f'who listens to {topic}'
        )
    probe.wait(lambda: values('decoding').get('listeners') == '1', 'the cloud to know the planner')

    image = camera_image(480, 640)
    packet = edge_pipeline(load_model(model_directory)).encode(image_to_bgr(image))
    message = packet_to_message(packet, image.header)
    edge.publish(message)
    for process, topic in ((planner, 'instances'), (viewer, 'overlay'), (viewer, 'label_map')):
        probe.wait(lambda p=process, t=topic: t in p.output, f'the first {topic}')

    planner.send(signal.SIGSTOP)
    for number in range(1, FRAMES + 1):
        message.sequence = number
        edge.publish(message)
        probe.wait(
            lambda number=number: values('decoding').get('decoded') == str(number + 1), 'a frame'
        )
    planner.send(signal.SIGCONT)
    for process, topic in ((planner, 'instances'), (viewer, 'overlay'), (viewer, 'label_map')):
        probe.wait(
            lambda p=process, t=topic: len(re.findall(t, p.output)) == FRAMES + 1, f'all {topic}'
        )

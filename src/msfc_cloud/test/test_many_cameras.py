"""One cloud node that serves several cameras, in this process."""

import threading
from functools import partial

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from msfc_msgs.msg import CompressedFeature, InstanceArray, LabelInfo
from rclpy.parameter import Parameter

from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline
from msfc_cloud.cloud_node import CloudNode
from msfc_ros.message_to_image import image_to_bgr
from msfc_ros.messages import packet_to_message
from msfc_ros.qos import LATCHED
from ros_fixtures import TIMEOUT, camera_image, make_node

CAMERAS = ('front', 'rear', 'left')

pytestmark = pytest.mark.usefixtures('ros')


class Batches(CloudPipeline):
    """A pipeline that notes the batches, and can hold and fail them."""

    def __init__(self, model, limits):
        super().__init__(model, limits)
        self.seen = []
        self.bad = ()
        self.gate, self.reached = threading.Event(), threading.Event()
        self.gate.set()

    def decode_valid(self, packets):
        numbers = [valid.packet.sequence for valid in packets]
        self.seen.append(numbers)
        self.reached.set()
        assert self.gate.wait(TIMEOUT)
        if set(self.bad) & set(numbers):
            raise RuntimeError('out of memory')
        return super().decode_valid(packets)


class Rig:
    """A node that serves three cameras, their edges, and all that comes out."""

    def __init__(self, node, probe, packet, batches):
        self.node, self.probe, self.packet, self.batches = node, probe, packet, batches
        self.edges = {
            name: probe.publisher(CompressedFeature, f'{name}/features', 100) for name in CAMERAS
        }
        self.found = {name: probe.listen(InstanceArray, f'{name}/instances') for name in CAMERAS}
        probe.wait(lambda: node.listeners() == len(CAMERAS), 'the listeners')

    def send(self, name, sequence):
        """Send a frame whose number and stamp are the same."""
        message = packet_to_message(self.packet, camera_image().header)
        message.sequence = message.header.stamp.sec = sequence
        message.header.frame_id = name
        self.edges[name].publish(message)

    def hold(self, name, sequence):
        """Send a frame and let the node be at work on it until the gate opens."""
        self.batches.gate.clear()
        self.batches.reached.clear()
        self.send(name, sequence)
        self.probe.wait(self.batches.reached.is_set, 'the work to begin')

    def received(self, number):
        """Wait until the node has had so many messages."""
        self.probe.wait(
            lambda: self.node.statistics.values().get('received') == str(number), 'the messages'
        )

    def stamps(self, name):
        """Return the stamps of what came out for a camera."""
        return [message.header.stamp.sec for message in self.found[name]]


@pytest.fixture(params=[1, 8], ids=['one by one', 'at once'])
def rig(request, model_directory, probe):
    image = camera_image()
    packet = edge_pipeline(load_model(model_directory)).encode(image_to_bgr(image))
    made = []

    def make_pipeline(model, limits):
        made.append(Batches(model, limits))
        return made[-1]

    with make_node(
        partial(CloudNode, make_pipeline=make_pipeline),
        model=str(model_directory),
        score_threshold=0.05,
        qos__features__depth=100,
        cameras=list(CAMERAS),
        max_batch=request.param,
    ) as node:
        probe.executor.add_node(node)
        assert node.start()
        rig = Rig(node, probe, packet, made[0])
        rig.most = request.param
        yield rig
        rig.batches.gate.set()
        node.stop()
        probe.executor.remove_node(node)


def test_each_camera_keeps_its_headers_and_order(rig):
    for sequence in range(1, 6):
        for name in CAMERAS:
            rig.send(name, 10 * sequence + CAMERAS.index(name))
        rig.probe.wait(
            lambda number=sequence: all(len(rig.found[name]) == number for name in CAMERAS),
            'the instances',
        )
    for index, name in enumerate(CAMERAS):
        assert rig.stamps(name) == [10 * sequence + index for sequence in range(1, 6)]
        assert {message.header.frame_id for message in rig.found[name]} == {name}
        assert rig.found[name][0].instances


def test_one_that_floods_does_not_starve_the_others(rig):
    """While the node is at work each camera has one place, and the turns go round."""
    rig.hold('front', 1)
    for sequence in range(2, 30):
        rig.send('front', sequence)
    rig.send('rear', 101)
    rig.send('left', 201)
    rig.send('rear', 102)
    rig.received(32)
    rig.batches.gate.set()
    rig.probe.wait(lambda: all(rig.found[name] for name in CAMERAS), 'instances of all')
    rig.probe.wait(lambda: len(rig.found['front']) == 2, 'the latest')
    if rig.most == 1:
        assert rig.batches.seen == [[1], [29], [102], [201]]
    else:
        assert rig.batches.seen == [[1], [29, 102, 201]]
    assert rig.stamps('front') == [1, 29]
    assert rig.stamps('rear') == [102]
    parts = rig.node.parts()
    overwritten = {
        name: parts[f'/{name}/features'][1].get('overwritten', '0') for name in CAMERAS
    }
    assert overwritten == {'front': '27', 'rear': '1', 'left': '0'}
    assert rig.node.statistics.values()['overwritten'] == '28'


def test_one_that_fails_does_not_take_the_others_along(rig):
    rig.batches.bad = (101,)
    rig.hold('front', 1)
    rig.send('rear', 101)
    rig.send('left', 201)
    rig.received(3)
    rig.batches.gate.set()
    rig.probe.wait(lambda: rig.found['front'] and rig.found['left'], 'the others')
    assert not rig.found['rear']
    assert rig.node.statistics.refused == {'internal_error': 1}
    rig.send('rear', 102)
    rig.probe.wait(lambda: rig.found['rear'], 'the next one')


def test_numbers_and_refusals_are_of_one_camera(rig):
    arrays = rig.probe.listen(DiagnosticArray, '/diagnostics')
    for name, sequence in (('front', 1), ('rear', 1), ('front', 5), ('rear', 2)):
        rig.send(name, sequence)
    foreign = packet_to_message(rig.packet, camera_image().header)
    foreign.model = '0123456789abcdef'
    rig.edges['left'].publish(foreign)
    rig.received(5)

    def told():
        statuses = {status.name: status for status in arrays[-1].status} if arrays else {}
        left = statuses.get('msfc_cloud: decoding /left/features')
        return statuses if left and left.level == DiagnosticStatus.ERROR else None

    statuses = rig.probe.wait(told, 'the diagnostics')
    assert set(statuses) == {
        'msfc_cloud: decoding',
        *(f'msfc_cloud: decoding /{name}/features' for name in CAMERAS),
    }
    values = {
        name: {item.key: item.value for item in statuses[status].values}
        for name in CAMERAS
        for status in (f'msfc_cloud: decoding /{name}/features',)
    }
    assert values['front']['lost'] == '3'
    assert 'lost' not in values['rear']
    assert values['left']['refused_foreign_model'] == '1'
    assert values['left']['foreign_fingerprint'] == '0123456789abcdef'
    assert 'the edge has model' in statuses['msfc_cloud: decoding /left/features'].message
    assert values['rear']['refused'] == '0'


def test_labels_are_told_to_each(rig):
    for name in CAMERAS:
        infos = rig.probe.listen(LabelInfo, f'{name}/label_info', LATCHED)
        rig.probe.wait(lambda infos=infos: infos, f'the label info of {name}')
        assert infos[0].classes


@pytest.mark.parametrize(
    ('cameras', 'words'),
    [
        (['front', 'front'], 'names one twice'),
        (['front', '/front'], 'two names for one namespace'),
    ],
)
def test_impossible_cameras_are_refused_at_once(cameras, words):
    with pytest.raises(ValueError, match=words):
        CloudNode(parameter_overrides=[Parameter('cameras', value=cameras)])

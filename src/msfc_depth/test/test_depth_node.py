import sys
from contextlib import ExitStack
from types import ModuleType, SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

import numpy as np
from msfc_msgs.msg import Instance, InstanceArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import SetBool
from visualization_msgs.msg import MarkerArray

from msfc_depth import target_frame
from msfc_depth.depth_node import DepthNode
from msfc_depth.output_messages import POINT
from msfc_ros.image_to_message import image_to_message
from ros_fixtures import make_node

SIZE = (48, 64)
FOCAL = 60.0


@pytest.fixture
def start(ros, probe):
    with ExitStack() as nodes:

        def start(**parameters):
            node = nodes.enter_context(make_node(DepthNode, **parameters))
            assert node.start()
            probe.executor.add_node(node)
            nodes.callback(node.stop)
            nodes.callback(probe.executor.remove_node, node)
            return node

        yield start


def header_of(milliseconds=7250, frame_id='camera_optical_frame'):
    header = Header(frame_id=frame_id)
    header.stamp.sec, rest = divmod(milliseconds, 1000)
    header.stamp.nanosec = rest * 10**6
    return header


def depth_of(metres=0.5, encoding='16UC1', **header):
    """A plate of 20 x 20 pixels before a wall."""
    depth = np.full(SIZE, 2.0, np.float32)
    depth[10:30, 20:40] = metres
    if encoding == '16UC1':
        depth = (depth * 1000).astype(np.uint16)
    return image_to_message(depth, header_of(**header), encoding)


def info_of(**header):
    k = [FOCAL, 0.0, 31.5, 0.0, FOCAL, 23.5, 0.0, 0.0, 1.0]
    return CameraInfo(header=header_of(**header), height=48, width=64, k=k)


def instances_of(size=SIZE, **header):
    """The plate, seen by a camera of a size."""
    height, width = size
    scale = height // 48
    side = 20 * scale
    plate = Instance(
        id=1, track_id=12, class_id=3, class_name='mug', score=0.9, x=20 * scale, y=10 * scale,
        width=side, height=side, mask=[255] * (side * side),
    )  # fmt: skip
    return InstanceArray(
        header=header_of(**header), image_height=height, image_width=width, instances=[plate]
    )


class Robot:
    """Publishes what the node takes, listens to what it gives."""

    def __init__(self, probe):
        self.probe = probe
        self.points = probe.listen(PointCloud2, 'object_points')
        self.markers = probe.listen(MarkerArray, 'object_markers')
        self.depth = probe.publisher(Image, 'depth/image')
        self.info = probe.publisher(CameraInfo, 'depth/camera_info')
        self.instances = probe.publisher(InstanceArray, 'instances')

    def send(self, depth, instances, info=None):
        self.info.publish(info or info_of())
        self.depth.publish(depth)
        self.probe.spin(0.3)
        self.instances.publish(instances)

    def located(self, depth, instances, info=None):
        """Return the cloud that comes of what is sent."""
        count = len(self.points)
        self.send(depth, instances, info)
        self.probe.wait(lambda: len(self.points) > count, 'points')
        return self.points[-1]

    def told(self, node, reason):
        """Wait until messages are refused for a reason."""
        node._since = float('-inf')
        self.probe.wait(lambda: node.statistics.refused.get(reason), f'refusals: {reason}')


@pytest.mark.parametrize('encoding', ['16UC1', '32FC1'])
def test_a_plate(probe, start, encoding):
    start()
    robot = Robot(probe)
    cloud = robot.located(depth_of(encoding=encoding), instances_of())
    assert cloud.header == header_of()
    points = np.frombuffer(cloud.data, POINT)
    assert len(points) == 16 * 16
    assert set(points['track_id'].tolist()) == {12}
    np.testing.assert_allclose(points['z'], 0.5, rtol=1e-6)
    np.testing.assert_allclose(points['x'].min(), (22 - 31.5) / FOCAL * 0.5, rtol=1e-5)
    probe.wait(lambda: robot.markers, 'markers')
    _, box, name = robot.markers[-1].markers
    assert name.text == '#12 mug 0.90'
    centre = box.pose.position
    assert (centre.x, centre.y, centre.z) == pytest.approx(
        ((29.5 - 31.5) / FOCAL / 2, (19.5 - 23.5) / FOCAL / 2, 0.5), abs=1e-3
    )


def test_a_plate_for_who_takes_vision_msgs(probe, start):
    vision = pytest.importorskip('vision_msgs.msg', reason='vision_msgs is not installed')
    start()
    found = probe.listen(vision.Detection3DArray, 'detections_3d')
    Robot(probe).located(depth_of(), instances_of())
    probe.wait(lambda: found, 'detections')
    assert found[-1].header == header_of()
    (plate,) = found[-1].detections
    assert (plate.id, plate.results[0].hypothesis.class_id) == ('12', 'mug')
    assert plate.bbox.center.position.z == pytest.approx(0.5, abs=1e-3)


def test_a_depth_image_of_another_size_than_the_camera_image(probe, start):
    start()
    cloud = Robot(probe).located(depth_of(), instances_of(size=(480, 640)))
    assert cloud.width == 16 * 16


def test_results_come_later_than_images(probe, start):
    """Each finds the depth image of its own camera image, in whatever order."""
    start(max_stamp_difference=0.02)
    robot = Robot(probe)
    robot.info.publish(info_of())
    for number in range(5):
        robot.depth.publish(depth_of(0.5 + 0.1 * number, milliseconds=7000 + 100 * number))
    probe.spin(0.5)
    for number in (3, 0, 4):
        count = len(robot.points)
        # Nearly the depth image's stamp.
        robot.instances.publish(instances_of(milliseconds=7010 + 100 * number))
        probe.wait(lambda: len(robot.points) > count, 'points')  # noqa: B023
        points = np.frombuffer(robot.points[-1].data, POINT)
        assert points['z'][0] == pytest.approx(0.5 + 0.1 * number)
        assert robot.points[-1].header == header_of(7010 + 100 * number)


def test_no_depth_image_is_near(probe, start, capfd):
    node = start(history=3)
    robot = Robot(probe)
    for number in range(5):
        robot.depth.publish(depth_of(milliseconds=7000 + 100 * number))
    probe.spin(0.3)
    robot.send(depth_of(milliseconds=7500), instances_of(milliseconds=7000))
    robot.told(node, 'no_depth')
    assert 'set history to more than 3' in capfd.readouterr().err
    node._logged.clear()
    robot.instances.publish(instances_of(milliseconds=9000))
    probe.wait(lambda: node.statistics.refused['no_depth'] > 1, 'a refusal')
    words = 'the nearest depth image is 1.5 s before the camera image'
    assert words in capfd.readouterr().err
    assert not robot.points


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'depth': Image(encoding='bgr8', height=48, width=64)}, 'encoding'),
        ({'info': CameraInfo(height=48, width=64)}, 'camera_info'),
        ({'instances': instances_of(size=(96, 96))}, 'not_registered'),
        ({'instances': InstanceArray()}, 'unstamped'),
    ],
)
def test_what_cannot_be_used_is_refused(probe, start, change, reason):
    node = start()
    robot = Robot(probe)
    parts = {'depth': depth_of(), 'instances': instances_of(), 'info': info_of(), **change}
    parts['depth'].header = header_of()
    robot.send(parts['depth'], parts['instances'], parts['info'])
    robot.told(node, reason)
    # And the next one is used.
    later = {'milliseconds': 7400}
    assert robot.located(depth_of(**later), instances_of(**later)).width


def test_nothing_is_found(probe, start):
    start()
    empty = instances_of()
    empty.instances = []
    assert Robot(probe).located(depth_of(), empty).width == 0


def test_another_frame_of_the_depth_images_is_told(probe, start, capfd):
    start()
    cloud = Robot(probe).located(depth_of(frame_id='depth_frame'), instances_of())
    assert cloud.header.frame_id == 'depth_frame'
    assert 'depth has to be registered' in capfd.readouterr().err


def test_nothing_is_subscribed_while_nobody_listens(probe, start):
    start()
    probe.spin(0.6)
    topics = ('instances', 'depth/image', 'depth/camera_info')
    assert not any(map(probe.node.count_subscribers, topics))
    listener = probe.node.create_subscription(MarkerArray, 'object_markers', lambda m: None, 10)
    probe.wait(lambda: all(map(probe.node.count_subscribers, topics)), 'subscriptions')
    probe.call(SetBool, '/msfc_depth/enable', SetBool.Request(data=False))
    probe.wait(lambda: not any(map(probe.node.count_subscribers, topics)), 'their end')
    probe.call(SetBool, '/msfc_depth/enable', SetBool.Request(data=True))
    probe.wait(lambda: all(map(probe.node.count_subscribers, topics)), 'subscriptions')
    probe.node.destroy_subscription(listener)
    probe.wait(lambda: not any(map(probe.node.count_subscribers, topics)), 'their end')


def test_live_parameters(probe, start):
    from rclpy.parameter import Parameter

    node = start()
    robot = Robot(probe)

    def change(**values):
        (*results,) = node.set_parameters([Parameter(n, value=v) for n, v in values.items()])
        return results[0]

    assert change(erode=0, max_points=50).successful
    # Its outermost pixels lie beside the wall's, but those are not in the mask.
    assert robot.located(depth_of(), instances_of()).width == 50
    assert change(min_score=0.95).successful
    assert robot.located(depth_of(), instances_of()).width == 0
    assert change(min_score=0.0).successful
    refused = change(min_depth=20.0)
    assert not refused.successful
    assert 'below max_depth' in refused.reason
    assert not change(vertical=[1.0, 2.0]).successful
    assert change(vertical=[0.0, 0.0, -1.0], max_depth=0.4).successful
    assert robot.located(depth_of(), instances_of()).width == 0


# -- another frame --


def test_without_tf2_a_target_frame_is_told(ros, monkeypatch, capfd):
    monkeypatch.setattr(target_frame, 'tf2_ros', None)
    with make_node(DepthNode, target_frame='base_link') as node:
        assert not node.start()
        words = capfd.readouterr().err
        assert 'the Python module tf2_ros is not installed' in words
        assert 'ros-jazzy-tf2-ros-py' in words


def test_in_a_target_frame(probe, start, monkeypatch):
    """With a stand-in for tf2_ros that has the parts that are used."""
    asked = []

    class TransformError(Exception):
        pass

    class Buffer:
        def lookup_transform(self, target, source, time, timeout):
            asked.append((target, source, time.nanoseconds))
            if len(asked) == 1:
                raise TransformError('not yet')
            # The camera looks along the robot's x, a metre above the ground.
            rotation = SimpleNamespace(x=-0.5, y=0.5, z=-0.5, w=0.5)
            translation = SimpleNamespace(x=0.0, y=0.0, z=1.0)
            return SimpleNamespace(
                transform=SimpleNamespace(rotation=rotation, translation=translation)
            )

    class Listener:
        def __init__(self, buffer, node):
            pass

        def unregister(self):
            pass

    fake = ModuleType('tf2_ros')
    fake.Buffer, fake.TransformListener = Buffer, Listener
    fake.TransformException = TransformError
    monkeypatch.setattr(target_frame, 'tf2_ros', fake)
    assert 'tf2_ros' not in sys.modules or sys.modules['tf2_ros'] is not fake
    node = start(target_frame='base_link')
    robot = Robot(probe)
    robot.send(depth_of(), instances_of())
    robot.told(node, 'no_transform')
    cloud = robot.located(depth_of(), instances_of())
    assert asked[-1] == ('base_link', 'camera_optical_frame', 7_250_000_000)
    assert cloud.header == header_of(frame_id='base_link')
    points = np.frombuffer(cloud.data, POINT)
    np.testing.assert_allclose(points['x'], 0.5, rtol=1e-5)
    assert points['z'].mean() == pytest.approx(1 - (19.5 - 23.5) / FOCAL / 2, abs=1e-3)
    probe.wait(lambda: robot.markers, 'markers')
    box = robot.markers[-1].markers[1]
    # Upright in the robot's frame.
    assert box.scale.z == pytest.approx(15 / FOCAL / 2, abs=2e-3)

"""What every managed node does by itself: ages by a clock that may jump, findings in the log."""

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from msfc_ros.diagnostics import ERROR, OK, WARN, Finding
from msfc_ros.node import ManagedNode
from ros_fixtures import make_node

pytestmark = pytest.mark.usefixtures('ros')


class Watcher(ManagedNode):
    """A node that takes images and finds what the test wants it to find."""

    def __init__(self, **kwargs):
        super().__init__('watcher', 'watching', **kwargs)
        self.found = []

    def activate(self):
        self.start_worker(lambda messages: None)
        self.work_on_latest(Image, 'image_raw', QoSProfile(depth=100))

    def findings(self):
        return self.found

    def advice(self, kind):
        return 'Look closer' if kind == 'lost' else ''


@pytest.fixture
def simulated(probe):
    """Return a node with simulated time, and a function that sets it."""
    clock = probe.node.create_publisher(Clock, '/clock', 10)
    with make_node(Watcher, use_sim_time=True) as node:
        probe.executor.add_node(node)
        assert node.start()

        def set_time(seconds):
            message = Clock(clock=stamped(seconds).header.stamp)
            now = node.get_clock().now
            probe.insist(
                clock, message, lambda: now().nanoseconds == round(seconds * 1e9), 'the time'
            )

        yield node, set_time
        node.stop()
        probe.executor.remove_node(node)


def stamped(seconds):
    message = Image(header=Header())
    message.header.stamp.sec, rest = divmod(round(seconds * 10), 10)
    message.header.stamp.nanosec = rest * 10**8
    return message


def test_ages_by_a_clock_that_jumps(simulated, probe):
    node, set_time = simulated
    camera = probe.publisher(Image, 'image_raw', 100)

    def ages_after(*stamps):
        before = node.statistics.recent('received')
        for seconds in stamps:
            camera.publish(stamped(seconds))
        probe.wait(
            lambda: node.statistics.recent('received') == before + len(stamps), 'the images'
        )
        return node.statistics.recent_values('arrival_age_ms')

    assert ages_after(99.9) == []  # the time has not begun
    set_time(100)
    assert ages_after(99.9) == pytest.approx([100])
    set_time(5)
    assert node.statistics.recent_values('arrival_age_ms') == []
    assert ages_after(99.9, 4.9) == pytest.approx([100])
    set_time(500)
    assert ages_after(5.0, 499.9) == pytest.approx([100])
    # Not every step of a simulation is a jump.
    node.statistics.forget('arrival_age_ms')
    set_time(500.8)
    assert ages_after(499.9) == pytest.approx([900])


def test_findings_are_logged_as_they_begin(probe, capfd):
    with make_node(Watcher) as node:
        assert node.start()
        lost = Finding(WARN, '9 of 10 messages lost on the way', 'lost')
        hung = Finding(ERROR, 'at work on one message for 31 s', 'hangs')
        for found in ([lost], [lost, hung], [Finding(OK, 'idle')], [lost], []):
            node.found = found
            node.publish_diagnostics()
        node.stop()
    lines = capfd.readouterr().err.splitlines()
    told = [line for line in lines if 'lost on' in line or 'at work' in line or 'idle' in line]
    assert len(told) == 2  # that it came again within the minute is not told again
    assert '[WARN]' in told[0]
    assert told[0].endswith('9 of 10 messages lost on the way. Look closer')
    assert '[ERROR]' in told[1]

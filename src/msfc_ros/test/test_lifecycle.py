import threading

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from msfc_ros import node as node_module
from msfc_ros.node import ManagedNode
from ros_fixtures import TIMEOUT

pytestmark = pytest.mark.usefixtures('ros')

UNCONFIGURED = State.PRIMARY_STATE_UNCONFIGURED
INACTIVE = State.PRIMARY_STATE_INACTIVE
ACTIVE = State.PRIMARY_STATE_ACTIVE
FINALIZED = State.PRIMARY_STATE_FINALIZED
CONFIGURING = State.TRANSITION_STATE_CONFIGURING


class Patient(ManagedNode):
    """A node whose steps fail or wait as the test wants it."""

    def __init__(self):
        super().__init__('patient', 'waiting')
        self.problems = {}
        self.done = []
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()
        self.worked = []

    def configure(self):
        self.reached.set()
        assert self.gate.wait(TIMEOUT)
        self._step('configure')

    def activate(self):
        self.start_worker(self._work)
        self.work_on_latest(Image, 'image_raw', QoSProfile(depth=100))
        self._step('activate')

    def deactivate(self):
        self._step('deactivate')
        super().deactivate()

    def clean_up(self):
        self._step('clean_up')

    def _work(self, messages):
        (message,) = messages
        self.reached.set()
        assert self.gate.wait(TIMEOUT)
        self.worked.append(message.header.stamp.sec)

    def _step(self, name):
        self.done.append(name)
        if error := self.problems.pop(name, None):
            raise error


@pytest.fixture
def node(probe):
    node = Patient()
    probe.executor.add_node(node)
    yield node
    node.gate.set()
    node.stop()
    probe.executor.remove_node(node)
    node.destroy_node()


@pytest.fixture
def state(probe):
    return lambda: probe.call(
        GetState, '/patient/get_state', GetState.Request()
    ).current_state.id


@pytest.fixture
def statuses(probe):
    """Return a function that gives the node's latest diagnostic status."""
    from diagnostic_msgs.msg import DiagnosticArray

    arrays = probe.listen(DiagnosticArray, '/diagnostics')
    return lambda: next(
        (s for a in reversed(arrays) for s in a.status if s.name == 'patient: waiting'), None
    )


def change(probe, transition):
    request = ChangeState.Request(transition=Transition(id=transition))
    return probe.call(ChangeState, '/patient/change_state', request).success


def ask(probe, transition):
    """Ask for a transition without waiting for the answer."""
    client = probe.node.create_client(ChangeState, '/patient/change_state')
    probe.wait(client.service_is_ready, 'the service')
    return client.call_async(ChangeState.Request(transition=Transition(id=transition)))


def image(seconds):
    header = Header()
    header.stamp.sec = seconds
    return Image(header=header)


def test_all_transitions_by_service(node, probe, state):
    assert state() == UNCONFIGURED
    for _ in range(2):
        for transition, reached in (
            (Transition.TRANSITION_CONFIGURE, INACTIVE),
            (Transition.TRANSITION_ACTIVATE, ACTIVE),
            (Transition.TRANSITION_DEACTIVATE, INACTIVE),
            (Transition.TRANSITION_CLEANUP, UNCONFIGURED),
        ):
            assert change(probe, transition)
            assert state() == reached
    assert node.done == 2 * ['configure', 'activate', 'deactivate', 'clean_up']
    assert change(probe, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert state() == FINALIZED


def test_node_answers_while_it_configures(node, probe, state, statuses):
    node.gate.clear()
    answer = ask(probe, Transition.TRANSITION_CONFIGURE)
    probe.wait(node.reached.is_set, 'configure')
    assert state() == CONFIGURING
    values = probe.call(
        GetParameters, '/patient/get_parameters', GetParameters.Request(names=['autostart'])
    ).values
    assert values[0].bool_value
    probe.wait(lambda: statuses() and statuses().message == 'configuring', 'diagnostics')
    assert not answer.done()
    # One transition at a time.
    assert not change(probe, Transition.TRANSITION_CONFIGURE)
    node.gate.set()
    probe.wait(answer.done, 'the end of configure')
    assert answer.result().success
    assert state() == INACTIVE
    assert node.done == ['configure']


def test_transition_that_there_is_not(node, probe, state, capfd):
    assert not change(probe, Transition.TRANSITION_ACTIVATE)
    assert 'there is no transition 3 from the state unconfigured' in capfd.readouterr().err
    assert state() == UNCONFIGURED
    assert change(probe, Transition.TRANSITION_CONFIGURE)
    assert not change(probe, Transition.TRANSITION_CONFIGURE)
    assert state() == INACTIVE


def test_failed_configure_is_cleaned_up_and_told(node, probe, state, statuses, capfd):
    node.problems['configure'] = ValueError('there is no such model')
    assert not change(probe, Transition.TRANSITION_CONFIGURE)
    assert state() == UNCONFIGURED
    assert node.done == ['configure', 'clean_up']
    assert 'cannot configure: there is no such model' in capfd.readouterr().err
    probe.wait(lambda: statuses() and statuses().level == DiagnosticStatus.ERROR, 'an ERROR')
    assert statuses().message == 'unconfigured: cannot configure: there is no such model'
    assert change(probe, Transition.TRANSITION_CONFIGURE)
    probe.wait(lambda: statuses().level == DiagnosticStatus.OK, 'an OK')


def test_unexpected_error_has_a_traceback_in_the_log(node, capfd):
    node.problems['configure'] = KeyError('weights')
    assert not node.start()
    assert 'in configure' in capfd.readouterr().err
    assert node.failure == "cannot configure: an error in the node: KeyError: 'weights'"
    assert node.start()
    assert node.failure == ''


def test_failed_activate_leaves_nothing_behind(node, probe, state):
    assert change(probe, Transition.TRANSITION_CONFIGURE)
    node.problems['activate'] = OSError('no room')
    assert not change(probe, Transition.TRANSITION_ACTIVATE)
    assert state() == INACTIVE
    assert node.failure == 'cannot activate: no room'
    assert probe.node.count_subscribers('image_raw') == 0
    assert change(probe, Transition.TRANSITION_ACTIVATE)
    assert state() == ACTIVE


@pytest.mark.parametrize('step', ['deactivate', 'clean_up'])
def test_failure_on_the_way_down_ends_unconfigured(node, probe, state, step):
    assert node.start()
    node.problems[step] = RuntimeError('stuck')
    if change(probe, Transition.TRANSITION_DEACTIVATE):
        assert not change(probe, Transition.TRANSITION_CLEANUP)
    assert state() == UNCONFIGURED
    assert node.failure.endswith('RuntimeError: stuck')
    assert node.start()


def test_message_that_never_ends_is_left_behind(node, probe, state, monkeypatch):
    monkeypatch.setattr(node_module, 'STOP_PATIENCE', 0.1)
    assert node.start()
    node.gate.clear()
    node.reached.clear()
    camera = probe.publisher(Image, 'image_raw')
    probe.insist(camera, image(1), node.reached.is_set, 'work')
    assert not change(probe, Transition.TRANSITION_DEACTIVATE)
    assert state() == UNCONFIGURED
    assert 'does not end within 0.1 s' in node.failure


def test_latest_message_only(node, probe):
    """While one message is at work, however many come, one waits: the last."""
    assert node.start()
    node.gate.clear()
    node.reached.clear()
    camera = probe.publisher(Image, 'image_raw', QoSProfile(depth=100))
    camera.publish(image(1))
    probe.wait(node.reached.is_set, 'work')
    for seconds in range(2, 32):
        camera.publish(image(seconds))
    probe.wait(lambda: node.statistics.values().get('received') == '31', 'all messages')
    node.gate.set()
    probe.wait(lambda: len(node.worked) == 2, 'the last message')
    assert node.worked == [1, 31]
    assert node.statistics.values()['overwritten'] == '29'


def test_error_in_a_callback_is_counted(node, probe, monkeypatch):
    assert node.start()

    def fail(*args):
        raise RuntimeError('no age')

    camera = probe.publisher(Image, 'image_raw')
    with monkeypatch.context() as patch:
        patch.setattr(node, 'age_ms', fail)
        probe.insist(
            camera, image(1), lambda: node.statistics.refused.get('internal_error'), 'the count'
        )
    assert not node.worked
    probe.insist(camera, image(1), lambda: node.worked, 'work')


def test_process_goes_on_after_an_error_in_a_callback(ros, capfd):
    node = Patient()
    stop = threading.Event()
    calls = []

    def tick():
        calls.append(node.state)
        if len(calls) == 1:
            raise RuntimeError('odd')
        if node.state == 'active':
            stop.set()

    node.create_timer(0.05, tick)
    try:
        assert node_module.spin(node, stop) == 0
    finally:
        node.destroy_node()
    assert node.state == 'unconfigured'
    assert node.done == ['configure', 'activate', 'deactivate', 'clean_up']
    assert 'RuntimeError: odd' in capfd.readouterr().err


def test_process_that_cannot_start_ends(ros):
    node = Patient()
    node.problems['activate'] = ValueError('no')
    try:
        assert node_module.spin(node, threading.Event()) == 1
    finally:
        node.destroy_node()
    assert node.done == ['configure', 'activate', 'deactivate', 'clean_up']


def test_ages_are_noted(node, probe):
    assert node.start()
    camera = probe.publisher(Image, 'image_raw')
    message = image(0)
    message.header.stamp = (probe.node.get_clock().now()).to_msg()
    probe.insist(camera, message, lambda: node.worked, 'work')
    (age,) = node.statistics.recent_values('arrival_age_ms')[:1]
    (transit,) = node.statistics.recent_values('transit_ms')[:1]
    assert 0 < transit <= age < TIMEOUT * 1e3
    probe.insist(camera, image(0), lambda: node.statistics.recent('unstamped'), 'the count')

"""The life cycle of the nodes as processes, driven by the services that `ros2 lifecycle` uses."""

import shutil
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from msfc_msgs.msg import CompressedFeature
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from ros_fixtures import camera_image


class Managed:
    """A node under management: its state, transitions and diagnostic status."""

    def __init__(self, probe, name):
        self._probe, self._name = probe, name
        self._arrays = probe.listen(DiagnosticArray, '/diagnostics')

    def state(self):
        """Return its state by name."""
        response = self._probe.call(GetState, f'/{self._name}/get_state', GetState.Request())
        return response.current_state.label

    def change(self, label):
        """Ask for a transition by name; return whether it succeeded."""
        request = ChangeState.Request(transition=Transition(label=label))
        return self._probe.call(ChangeState, f'/{self._name}/change_state', request).success

    def set(self, name, value):
        """Set a parameter; return whether it was taken."""
        parameter = Parameter(name, value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        response = self._probe.call(SetParameters, f'/{self._name}/set_parameters', request)
        return response.results[0].successful

    def tells(self, text, level):
        """Wait until its diagnostics have a message with a text and a level."""

        def told():
            return any(
                text in status.message and status.level == level
                for array in self._arrays
                for status in array.status
                if status.name.startswith(f'{self._name}: ')
            )

        self._probe.wait(told, f'the diagnostics to tell "{text}"')
        self._arrays.clear()


def test_edge_without_autostart(probe, start_node, model_directory, tmp_path):
    """All transitions, the first in vain: the model is not there yet."""
    directory = tmp_path / 'later'
    edge = start_node(
        'msfc_edge', 'edge_node', model=directory, autostart=False, diagnostics_period=0.2
    )
    node = Managed(probe, 'msfc_edge')
    node.tells('unconfigured', DiagnosticStatus.OK)
    assert node.state() == 'unconfigured'
    assert not node.change('configure')
    assert node.state() == 'unconfigured'
    node.tells('unconfigured: cannot configure: ', DiagnosticStatus.ERROR)
    assert f"'{directory}' is no directory" in edge.output
    assert not node.change('activate')
    assert node.state() == 'unconfigured'

    shutil.copytree(model_directory, directory)
    assert node.change('configure')
    node.tells('inactive', DiagnosticStatus.OK)
    probe.wait(lambda: probe.node.count_publishers('features') == 1, 'its publisher')
    assert probe.node.count_subscribers('image_raw') == 0
    assert node.change('activate')
    features = probe.listen(CompressedFeature, 'features')
    camera = probe.publisher(Image, 'image_raw')
    probe.insist(camera, camera_image(), lambda: features, 'features')
    node.tells('active', DiagnosticStatus.WARN)  # the image's stamp is of 1970
    assert node.change('deactivate')
    assert node.change('cleanup')
    probe.wait(lambda: not probe.node.count_publishers('features'), 'the publisher to go')
    assert node.change('shutdown')
    node.tells('finalized', DiagnosticStatus.OK)
    assert node.state() == 'finalized'
    assert edge.running()
    assert edge.stop(signal.SIGTERM) == 0
    assert 'Traceback' not in edge.output


@pytest.fixture
def loading(probe, start_script, model_directory):
    """Return a cloud that is about to load its model, with autostart."""
    cloud = start_script(
        Path(__file__).parent / 'gated_load.py', model=model_directory, diagnostics_period=0.2
    )
    probe.wait(lambda: 'loading.' in cloud.output, 'the cloud to load its model')
    return cloud


def test_cloud_answers_while_it_loads(probe, loading):
    node = Managed(probe, 'msfc_cloud')
    assert node.state() == 'configuring'
    assert node.set('score_threshold', 0.25)
    node.tells('configuring', DiagnosticStatus.OK)
    assert not node.change('configure')
    assert node.state() == 'configuring'
    loading.say('go on')
    node.tells('active', DiagnosticStatus.OK)
    assert node.state() == 'active'
    assert loading.stop() == 0


def test_process_that_is_ended_while_it_loads(probe, loading):
    """The load cannot be broken off; after it everything is freed and the process ends."""
    # Twice, as where the whole group of processes is signalled and its leader passes it on.
    for _ in range(2):
        loading.send(signal.SIGTERM)
        time.sleep(0.1)
    assert loading.running()
    loading.say('go on')
    assert loading.wait() == 0
    assert loading.output.rstrip().endswith('unconfigured')
    assert 'Traceback' not in loading.output

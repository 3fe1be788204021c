"""The launch files, where ROS 2's launch is installed (its wheels have none)."""

import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parent.parent / 'launch'
FILES = ('bringup.launch.py', 'edge.launch.py', 'cloud.launch.py')
NAV2_ARGUMENTS = {
    'namespace', 'params_file', 'use_sim_time', 'autostart', 'use_respawn', 'log_level',
}  # fmt: skip

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')
pytest.importorskip('launch_ros', reason="ROS 2's launch is not installed: it is not on PyPI")

from ament_index_python.packages import get_package_prefix
from launch import LaunchContext
from launch.launch_description_sources import PythonLaunchDescriptionSource
from msfc_msgs.msg import CompressedFeature, InstanceArray
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray

from msfc_launch.programs import enclave_arguments
from ros_fixtures import camera_image

RUN = """
import sys
from launch import LaunchService, LaunchDescription
from launch.actions import IncludeLaunchDescription
file, *arguments = sys.argv[1:]
service = LaunchService(argv=arguments)
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    file, launch_arguments=[argument.split(':=', 1) for argument in arguments])]))
sys.exit(service.run())
"""
"""What ``ros2 launch FILE NAME:=VALUE ...`` does."""


class Launch:
    """A launch file that runs in a process of its own."""

    def __init__(self, file, arguments, folder, **environment):
        self._log = folder / 'launch.log'
        words = [f'{name}:={value}' for name, value in arguments.items()]
        with self._log.open('w') as log:
            self.process = subprocess.Popen(
                [sys.executable, '-c', RUN, str(LAUNCH / file), *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, 'ROS_LOG_DIR': str(folder), **environment},
            )

    @property
    def log(self):
        """What it has printed so far."""
        return self._log.read_text()

    def started(self):
        """Return the process numbers of what it has started so far."""
        return [int(pid) for pid in re.findall(r'process started with pid \[(\d+)\]', self.log)]

    def wait_for(self, condition, what, timeout=60.0):
        """Wait until a condition holds."""
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f'waited in vain for {what}:\n{self.log}'
            time.sleep(0.05)

    def interrupt(self, timeout=30.0):
        """Send it what Ctrl-C sends; return the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout)


@pytest.fixture
def launch(ros_environment, tmp_path):
    """Return a function that runs a launch file; it is interrupted with the test."""
    launches = []

    def start(file, environment=None, **arguments):
        launches.append(Launch(file, arguments, tmp_path, **(environment or {})))
        return launches[-1]

    yield start
    for item in launches:
        if item.process.poll() is None:
            item.process.send_signal(signal.SIGINT)
            try:
                item.process.wait(20)
            except subprocess.TimeoutExpired:
                item.process.kill()
        for pid in item.started():
            if runs(pid):
                os.kill(pid, signal.SIGKILL)


def runs(pid):
    """Return whether a process is there and no zombie."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def declared(file):
    """Return the arguments that ``ros2 launch --show-args`` shows, with their descriptions."""
    source = PythonLaunchDescriptionSource(str(LAUNCH / file))
    arguments = source.get_launch_description(LaunchContext()).get_launch_arguments()
    return {argument.name: argument.description for argument in arguments}


def test_arguments():
    bringup, edge, cloud = map(declared, FILES)
    for arguments in (bringup, edge, cloud):
        assert NAV2_ARGUMENTS | {'enclaves', 'model', 'device'} <= set(arguments)
        assert all(arguments.values())
    assert {'image_topic', 'image_transport'} <= set(edge)
    assert {'use_depth', 'depth_topic', 'camera_info_topic', 'target_frame'} <= set(edge)
    assert {'cameras', 'overlay_image_topic'} <= set(cloud)
    assert {'camera', 'use_rviz', 'viewer', 'record', *edge, *cloud} == set(bringup)


@pytest.mark.parametrize(
    ('parent', 'arguments'),
    [
        ('', []),
        ('/', ['--enclave', '/msfc_edge']),
        ('/robot1', ['--enclave', '/robot1/msfc_edge']),
    ],
)
def test_enclave(parent, arguments):
    assert enclave_arguments(parent, 'msfc_edge') == arguments


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'params_file': '/no/such.yaml'}, 'params_file /no/such.yaml cannot be read'),
        ({'log_level': 'loud'}, 'log_level:=loud is not known'),
        ({'use_sim_time': 'maybe'}, 'use_sim_time:=maybe is neither true nor false'),
        ({'namespace': 'a b'}, 'namespace:=a b is not possible'),
        ({'image_transport': 'theora'}, 'image_transport:=theora is not known: choose raw or'),
        ({'camera': 'film'}, 'camera:=film is not known: choose none or clip or live'),
        (
            {'camera': 'clip', 'image_transport': 'compressed'},
            'camera:=clip gives raw images only',
        ),
        (
            {'camera': 'clip', 'use_depth': 'true'},
            'camera:=clip gives no depth images: choose camera:=live',
        ),
        ({'viewer': 'xterm'}, 'viewer:=xterm is not known: choose none or rerun'),
        ({'record': 'run.rrd'}, 'record is for the viewer: give viewer:=rerun'),
        ({'max_message_bytes': 'few'}, 'max_message_bytes:=few is not a whole number'),
    ],
)
def test_what_cannot_be_is_told_before_anything_starts(launch, arguments, words):
    failed = launch('bringup.launch.py', **arguments)
    assert failed.process.wait(60) == 1
    assert words in failed.log
    assert not failed.started()


def without(package):
    """Return the environment variable without a package's folder."""
    prefix = get_package_prefix(package)
    folders = [f for f in os.environ['AMENT_PREFIX_PATH'].split(os.pathsep) if f != prefix]
    return {'AMENT_PREFIX_PATH': os.pathsep.join(folders)}


def test_a_package_that_is_missing_is_told_before_anything_starts(launch):
    failed = launch('bringup.launch.py', without('msfc_cloud'), camera='clip')
    assert failed.process.wait(60) == 1
    assert 'package msfc_cloud is not here: build it with  colcon build' in failed.log
    assert not failed.started()


@pytest.mark.skipif(
    any(
        (Path(folder) / 'share' / 'rviz2').is_dir()
        for folder in os.environ['AMENT_PREFIX_PATH'].split(os.pathsep)
    ),
    reason='rviz2 is here',
)
def test_rviz_that_is_missing_is_told_before_anything_starts(launch):
    failed = launch('bringup.launch.py', camera='clip', use_rviz='True')
    assert failed.process.wait(60) == 1
    assert 'package rviz2 is not here: install it' in failed.log
    assert 'leave out use_rviz' in failed.log
    assert not failed.started()


AROUND = """
from launch import LaunchDescription
from launch.actions import ExecuteProcess, GroupAction, IncludeLaunchDescription
from launch_ros.actions import PushRosNamespace, SetParameter


def generate_launch_description():
    return LaunchDescription([{actions}])
"""


def test_what_others_have_started_ends_with_a_launch_that_fails(launch, tmp_path):
    file = tmp_path / 'around.launch.py'
    other = "ExecuteProcess(cmd=['sleep', '1000'])"
    ours = (
        f'IncludeLaunchDescription({str(LAUNCH / "edge.launch.py")!r}, '
        "launch_arguments=[('params_file', '/no/such.yaml')])"
    )
    file.write_text(AROUND.format(actions=', '.join([other, ours, other])))
    failed = launch(file)
    assert failed.process.wait(60) == 1
    assert 'params_file /no/such.yaml cannot be read' in failed.log
    assert len(failed.started()) == 2
    assert not any(map(runs, failed.started()))


def test_arguments_and_files_that_are_ignored_are_told(launch, tmp_path):
    params = tmp_path / 'mine.yaml'
    params.write_text('/robot2/msfc_edge:\n  ros__parameters:\n    max_rate: 1.0\n')
    running = launch(
        'edge.launch.py',
        namespace='robot1',
        params_file=str(params),
        imge_topic='a',
        max_rate='2.0',
        model='/no/such/model',
    )
    assert running.process.wait(60) == 0
    assert 'there is no argument imge_topic, so it is ignored: is image_topic' in running.log
    assert 'max_rate is a parameter and no launch argument' in running.log
    assert 'has parameters of /robot2/msfc_edge and none of /robot1/msfc_edge' in running.log


def test_who_sets_a_parameter(launch, probe, model_directory, tmp_path):
    """The argument, the user's file, the including launch file, our file; after a restart too."""
    params = tmp_path / 'mine.yaml'
    params.write_text(
        '/robot1/msfc_edge:\n  ros__parameters:\n'
        '    model: not_this\n    max_rate: 5.0\n    features_topic: from_file\n'
    )
    file = tmp_path / 'around.launch.py'
    ours = (
        f'IncludeLaunchDescription({str(LAUNCH / "edge.launch.py")!r}, launch_arguments=['
        f"('model', {str(model_directory)!r}), ('params_file', {str(params)!r}), "
        "('use_respawn', 'True'), ('image_topic', 'from_argument'), "
        "('target_bitrate', '48000'), ('max_message_bytes', '0')])"
    )
    outside = (
        "PushRosNamespace('robot1'), SetParameter('use_sim_time', True), "
        "SetParameter('max_rate', 7.0), SetParameter('threads', 1), "
    )
    file.write_text(AROUND.format(actions=f'GroupAction([{outside}{ours}])'))
    running = launch(file)

    def check():
        expected = {
            'model': str(model_directory),
            'image_topic': 'from_argument',
            'max_rate': 5.0,
            'features_topic': 'from_file',
            'target_bitrate': 48000.0,
            'max_message_bytes': 0,
            'use_sim_time': True,
            'threads': 1,
            'image_transport': 'raw',
        }
        request = GetParameters.Request(names=list(expected))
        answer = probe.call(GetParameters, '/robot1/msfc_edge/get_parameters', request)
        values = map(parameter_value_to_python, answer.values)
        assert dict(zip(expected, values, strict=True)) == expected

    check()
    (first,) = running.started()
    os.kill(first, signal.SIGKILL)
    running.wait_for(lambda: len(running.started()) == 2, 'a restart')
    assert 'next start' not in running.log
    check()
    assert running.interrupt() == 0
    assert not any(map(runs, running.started()))


def test_a_node_that_cannot_run_is_started_ever_more_rarely(launch):
    running = launch('edge.launch.py', use_respawn='true', model='/no/such/model')
    running.wait_for(lambda: '3 times in a row: next start in 4 s' in running.log, 'a pause')
    assert len(running.started()) == 3
    # It ends at once, though a start is due.
    begun = time.monotonic()
    assert running.interrupt() == 0
    assert time.monotonic() - begun < 3.0
    assert len(running.started()) == 3


def test_bringup(launch, probe, model_directory, tmp_path):
    params = tmp_path / 'mine.yaml'
    params.write_text('/**:\n  ros__parameters:\n    score_threshold: 0.05\n    rate: 8\n')
    running = launch(
        'bringup.launch.py',
        namespace='robot1',
        enclaves='/robot1',
        model=str(model_directory),
        device='cpu',
        params_file=str(params),
        image_topic='camera/image',
        # As nav2 writes them.
        use_sim_time='False',
        autostart='True',
        log_level='msfc_edge:=debug',
    )
    features = probe.listen(CompressedFeature, '/robot1/features')
    instances = probe.listen(InstanceArray, '/robot1/instances')
    camera = probe.publisher(Image, '/robot1/camera/image')
    probe.wait_for_publisher('/robot1/instances')
    image = camera_image()
    probe.insist(camera, image, lambda: instances, 'instances')
    assert features[-1].rate == 8
    assert instances[-1].header == image.header
    assert instances[-1].instances
    assert {
        ('msfc_edge', '/robot1', '/robot1/msfc_edge'),
        ('msfc_cloud', '/robot1', '/robot1/msfc_cloud'),
    } <= set(probe.node.get_node_names_and_namespaces_with_enclaves())

    assert running.interrupt() == 0
    assert running.log.count('process has finished cleanly') == 2


@pytest.mark.skipif(
    find_spec('rerun') is None,
    reason='rerun-sdk is not installed: python -m pip install rerun-sdk',
)
def test_bringup_of_everything(launch, probe, tmp_path):
    """A live camera with depth, both halves with the shipped model, objects in metres, viewer."""
    params, record = tmp_path / 'mine.yaml', tmp_path / 'run.rrd'
    params.write_text('/**:\n  ros__parameters:\n    show: none\n    threads: 1\n')
    running = launch(
        'bringup.launch.py',
        camera='live',
        use_depth='true',
        viewer='rerun',
        record=str(record),
        params_file=str(params),
    )
    pixels = probe.listen(Image, 'semantic')
    markers = probe.listen(MarkerArray, 'object_markers')
    probe.wait(lambda: pixels and markers, 'classes of pixels and objects in metres', 240)
    assert pixels[-1].encoding == 'mono8'
    assert running.interrupt(60.0) == 0
    assert running.log.count('process has finished cleanly') == 5
    command = [sys.executable, '-m', 'rerun', 'rrd', 'verify', str(record)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr

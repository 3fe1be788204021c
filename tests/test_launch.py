"""The launch files, where ROS 2's launch is installed (its wheels have none)."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parent.parent / 'launch'
FILES = ('bringup.launch.py', 'edge.launch.py', 'cloud.launch.py')
NAV2_ARGUMENTS = {
    'namespace', 'params_file', 'use_sim_time', 'autostart', 'use_respawn', 'log_level',
}  # fmt: skip

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')
pytest.importorskip('launch', reason="ROS 2's launch is not installed: it is not on PyPI")
pytest.importorskip('launch_ros', reason="ROS 2's launch_ros is not installed: it is not on PyPI")

from launch import LaunchContext
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.utilities import evaluate_parameters, normalize_parameters
from msfc_msgs.msg import CompressedFeature, InstanceArray
from sensor_msgs.msg import Image

from msfc_ros import launching
from ros_fixtures import camera_image


@pytest.mark.parametrize('file', FILES)
def test_arguments(file):
    description = PythonLaunchDescriptionSource(str(LAUNCH / file)).get_launch_description(
        LaunchContext()
    )
    arguments = {argument.name: argument for argument in description.get_launch_arguments()}
    assert NAV2_ARGUMENTS | {'enclaves', 'model', 'device'} <= set(arguments)
    assert all(argument.description for argument in arguments.values())


def test_model_is_a_text_even_if_it_looks_like_a_number(monkeypatch):
    monkeypatch.setattr(launching, 'Node', lambda **settings: settings['parameters'])
    context = LaunchContext()
    arguments = {argument.name: '' for argument in launching.common_arguments()}
    context.launch_configurations.update({**arguments, 'model': '2024', 'device': ''})
    action = launching.node('msfc_edge', 'edge_node', 'edge.yaml', overrides=('model', 'device'))
    (parameters,) = action.execute(context)
    *_, last = evaluate_parameters(context, normalize_parameters(parameters))
    assert last['model'] == '2024'
    assert 'device' not in last


def test_lists_have_commas_between(monkeypatch):
    monkeypatch.setattr(launching, 'Node', lambda **settings: settings['parameters'])
    context = LaunchContext()
    arguments = {argument.name: '' for argument in launching.common_arguments()}
    action = launching.node('msfc_cloud', 'cloud_node', 'cloud.yaml', lists=('cameras',))
    for given, expected in (('', None), ('front', ['front']), ('front, 12,', ['front', '12'])):
        context.launch_configurations.update({**arguments, 'cameras': given})
        (parameters,) = action.execute(context)
        *_, last = evaluate_parameters(context, normalize_parameters(parameters))
        assert (list(last['cameras']) if 'cameras' in last else None) == expected


@pytest.mark.parametrize(
    ('parent', 'arguments'),
    [
        ('', []),
        ('/', ['--enclave', '/msfc_edge']),
        ('/robot1', ['--enclave', '/robot1/msfc_edge']),
    ],
)
def test_enclave(parent, arguments):
    assert launching.enclave_arguments(parent, 'msfc_edge') == arguments


@pytest.fixture
def launch(ros_environment, tmp_path):
    """Return a function that runs a launch file; it is interrupted with the test."""
    processes = []

    def start(file, **arguments):
        script = (
            'import json, sys\n'
            'from launch import LaunchService, LaunchDescription\n'
            'from launch.actions import IncludeLaunchDescription\n'
            'file, arguments = sys.argv[1], json.loads(sys.argv[2])\n'
            'service = LaunchService()\n'
            'service.include_launch_description(LaunchDescription([\n'
            '    IncludeLaunchDescription(file, launch_arguments=arguments.items())]))\n'
            'sys.exit(service.run())\n'
        )
        command = [sys.executable, '-c', script, str(LAUNCH / file), json.dumps(arguments)]
        with (tmp_path / 'launch.log').open('w') as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, 'ROS_LOG_DIR': str(tmp_path)},
            )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)


def test_bringup(launch, probe, model_directory, tmp_path):
    params = tmp_path / 'mine.yaml'
    params.write_text('/**:\n  ros__parameters:\n    score_threshold: 0.05\n    bit_depth: 8\n')
    process = launch(
        'bringup.launch.py',
        namespace='robot1',
        enclaves='/robot1',
        model=str(model_directory),
        device='cpu',
        params_file=str(params),
    )
    features = probe.listen(CompressedFeature, '/robot1/features')
    instances = probe.listen(InstanceArray, '/robot1/instances')
    camera = probe.publisher(Image, '/robot1/image_raw')
    probe.wait_for_publisher('/robot1/instances')
    image = camera_image()
    probe.insist(camera, image, lambda: instances, 'instances')
    assert features[-1].bit_depth == 8
    assert instances[-1].header == image.header
    assert instances[-1].instances
    assert {
        ('msfc_edge', '/robot1', '/robot1/msfc_edge'),
        ('msfc_cloud', '/robot1', '/robot1/msfc_cloud'),
    } <= set(probe.node.get_node_names_and_namespaces_with_enclaves())

    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    log = (tmp_path / 'launch.log').read_text()
    assert log.count('process has finished cleanly') == 2

"""What the nodes say in their logs instead of waiting, or working, without a word."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from ament_index_python.packages import get_package_prefix
from msfc_msgs.msg import CompressedFeature, InstanceArray
from sensor_msgs.msg import CompressedImage, Image

from ros_fixtures import camera_image

DEBUG = ('--ros-args', '--log-level', 'msfc_edge:=debug', '--log-level', 'msfc_cloud:=debug')


@pytest.fixture
def start_edge(start_node, model_directory):
    def start(*arguments, **parameters):
        return start_node(
            'msfc_edge', 'edge_node', *arguments, model=model_directory, **parameters
        )

    return start


def wait_for(probe, process, *words):
    for text in words:
        probe.wait(lambda text=text: text in process.output, f'{text!r}')


@pytest.mark.parametrize(
    ('package', 'executable'), [('msfc_edge', 'edge_node'), ('msfc_cloud', 'cloud_node')]
)
def test_a_node_that_is_not_to_start_says_how_it_is_started(
    probe, start_node, package, executable
):
    node = start_node(package, executable, autostart=False)
    wait_for(
        probe,
        node,
        'autostart is false: unconfigured. Nothing is done until it is configured and activated: '
        f'ros2 lifecycle set /{package} configure',
    )


def test_a_node_in_an_executor_of_ones_own_says_so_too(start_script, probe, tmp_path):
    script = tmp_path / 'own.py'
    script.write_text(
        'import rclpy\n'
        'from msfc_edge.edge_node import EdgeNode\n'
        'rclpy.init()\n'
        'rclpy.spin(EdgeNode())\n'
    )
    wait_for(probe, start_script(script), 'ros2 lifecycle set /msfc_edge configure, then activate')


def test_another_type_is_named_with_what_to_do(probe, start_edge):
    edge = start_edge()
    probe.node.create_publisher(CompressedImage, 'image_raw', 10)
    wait_for(
        probe,
        edge,
        "/probe publishes '/image_raw' as sensor_msgs/msg/CompressedImage, but this node takes "
        "sensor_msgs/msg/Image: none of it arrives. Set image_transport to compressed",
    )


def test_doubled_suffix(probe, start_edge):
    edge = start_edge(image_transport='compressed', image_topic='camera/image/compressed')
    wait_for(
        probe,
        edge,
        "subscribed to '/camera/image/compressed/compressed'",
        "set image_topic to '/camera/image'",
        "nobody publishes '/camera/image/compressed/compressed'",
    )


def test_simulated_time_without_a_simulation(probe, start_edge):
    edge = start_edge(use_sim_time=True, diagnostics_period=0.2)
    wait_for(probe, edge, 'use_sim_time is true, but nobody has published /clock')


def test_a_line_for_each_frame_at_level_debug(probe, start_node, start_edge, model_directory):
    edge = start_edge(*DEBUG)
    cloud = start_node('msfc_cloud', 'cloud_node', *DEBUG, model=model_directory)
    camera = probe.publisher(Image, 'image_raw')
    instances = probe.listen(InstanceArray, 'instances')
    image = camera_image()
    probe.insist(camera, image, lambda: instances, 'instances')
    wait_for(probe, edge, 'image 7.250000000 sent as number 0, ', ' bytes; ms: convert ')
    wait_for(probe, cloud, '/features number 0 decoded: ', ' instances; ms: ')


def test_no_line_for_a_frame_otherwise(probe, start_edge):
    edge = start_edge()
    camera = probe.publisher(Image, 'image_raw')
    features = probe.listen(CompressedFeature, 'features')
    probe.insist(camera, camera_image(), lambda: features, 'features')
    assert edge.stop() == 0
    assert '7.250000000' not in edge.output


# -- signals --


EXECUTABLES = [
    ('msfc_edge', 'edge_node'),
    ('msfc_cloud', 'cloud_node'),
    ('msfc_depth', 'depth_node'),
    ('msfc_sim', 'camera_node'),
    ('msfc_sim', 'clip_player'),
    ('msfc_sim', 'record_clip'),
    ('msfc_viewer', 'viewer_node'),
    ('msfc_demo', 'demo'),
]


@pytest.fixture
def slow_imports(tmp_path, monkeypatch):
    """Let the imports of every program take for ever."""
    folder = tmp_path / 'slow'
    folder.mkdir()
    for name in ('cv2', 'rclpy', 'torch', 'torchvision'):
        (folder / f'{name}.py').write_text(
            'import time\nprint("importing", flush=True)\ntime.sleep(600)\n'
        )
    monkeypatch.setenv('PYTHONPATH', f'{folder}{os.pathsep}{os.environ.get("PYTHONPATH", "")}')


@pytest.mark.parametrize(('package', 'executable'), EXECUTABLES)
def test_interrupt_during_imports_prints_nothing(
    slow_imports, probe, start_node, package, executable
):
    program = start_node(package, executable)
    wait_for(probe, program, 'importing')
    assert program.stop(signal.SIGINT) == -signal.SIGINT
    assert program.output.split() == ['importing']


@pytest.mark.parametrize('command', ['record', 'play'])
def test_interrupt_of_the_bag_commands_during_imports(slow_imports, tmp_path, command):
    program = Path(get_package_prefix('msfc_core')) / 'bin' / 'msfc'
    process = subprocess.Popen(
        [program, 'bag', command, tmp_path / 'bag'],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout.readline() == 'importing\n'
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0
    assert 'Traceback' not in rest

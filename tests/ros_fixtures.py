"""What the tests with ROS 2 share: a graph of their own, a probe node, nodes as processes."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

TIMEOUT = 120.0


def pytest_collection_modifyitems(items):
    """Mark what joins this run's domain, so that ``-m dds`` selects it."""
    for item in items:
        if 'ros_domain' in item.fixturenames:
            item.add_marker(pytest.mark.dds)


@pytest.fixture(scope='session')
def ros_domain():
    """Keep a ROS 2 domain to this run."""
    from msfc_ros.domains import held_domain

    with held_domain() as domain:
        yield domain


@pytest.fixture(scope='session')
def ros_environment(ros_domain):
    """Keep this run's graph to this machine and apart from that of others.

    Here as in the nodes torch takes one thread: the last bits of its results depend on how many.
    """
    values = {
        'ROS_DOMAIN_ID': str(ros_domain),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'OMP_NUM_THREADS': '1',
    }
    saved = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    threads = torch.get_num_threads()
    torch.set_num_threads(int(values['OMP_NUM_THREADS']))
    yield values
    torch.set_num_threads(threads)
    for name, value in saved.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(scope='session')
def ros(ros_environment):
    """Start rclpy in this process."""
    import rclpy

    from msfc_ros.fast_dds import use_profile
    from msfc_ros.fast_dds_queues import queues_released

    # Messages for killed nodes stay in the sender's shared memory, here and there: in the default
    # 512 KB no image fits between them.
    use_profile(sends_images=True)
    rclpy.init()
    # Nor shall this process hang on a node that was killed.
    with queues_released(int(ros_environment['ROS_DOMAIN_ID'])):
        yield rclpy
    rclpy.try_shutdown()


@pytest.fixture
def probe(ros):
    """Return a node that talks with the nodes under test."""
    probe = Probe()
    yield probe
    probe.close()


@pytest.fixture
def start_node(ros_environment, tmp_path):
    """Return a function that starts a node as a process; all end with the test."""
    processes = []

    def start(package, executable, *arguments, **parameters):
        process = NodeProcess(package, executable, arguments, parameters, tmp_path)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()


@pytest.fixture
def start_script(ros_environment, tmp_path):
    """Return a function that runs a Python file of ours as a node, with a pipe to its input."""
    processes = []

    def start(path, **parameters):
        process = ScriptProcess(path, parameters, tmp_path)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()


@pytest.fixture(scope='session')
def model_directory(tmp_path_factory):
    """Write a small model with random weights; return its directory."""
    from detector_models import MODELS
    from msfc.codecs.msfc.codec import MSFC, MSFCConfig
    from msfc.model import SplitModel
    from msfc.model_file import save_model

    torch.manual_seed(0)
    detector = MODELS['torchvision'].make().eval()
    codec = MSFC(MSFCConfig(channels=detector.feature_channels, code_channels=8))
    directory = tmp_path_factory.mktemp('model')
    save_model(SplitModel(detector, codec, rate=4), directory)
    return directory


@pytest.fixture(scope='session')
def referring_model_directory(tmp_path_factory):
    """Write a small model whose coding has references; return its directory."""
    from detector_models import MODELS
    from hostile import small_learned_codec
    from msfc.model import SplitModel
    from msfc.model_file import save_model

    torch.manual_seed(0)
    detector = MODELS['torchvision'].make().eval()
    codec = small_learned_codec(detector.feature_channels)
    directory = tmp_path_factory.mktemp('referring_model')
    save_model(SplitModel(detector, codec, rate=2), directory)
    return directory


def camera_image(height=120, width=160, seconds=7):
    """Return an image message of smooth noise with a header of its own."""
    from std_msgs.msg import Header

    from msfc_ros.image_to_message import image_to_message

    rng = np.random.default_rng(seconds)
    pixels = np.kron(rng.integers(0, 256, (height // 8, width // 8, 3)), np.ones((8, 8, 1)))
    header = Header(frame_id='camera_optical_frame')
    header.stamp.sec, header.stamp.nanosec = seconds, 250_000_000
    return image_to_message(pixels.astype(np.uint8), header, 'bgr8')


@contextmanager
def make_node(node_type, **parameters):
    """Create a node in this process; in the names of its parameters __ stands for a dot."""
    from rclpy.parameter import Parameter

    node = node_type(
        parameter_overrides=[
            Parameter(name.replace('__', '.'), value=value) for name, value in parameters.items()
        ]
    )
    try:
        yield node
    finally:
        node.destroy_node()


class ManualClock:
    """A clock that goes on when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Probe:
    """Publishes, subscribes, calls; waits for conditions while it spins."""

    def __init__(self):
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.node = rclpy.create_node('probe')
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)

    def close(self):
        """Leave the graph."""
        self.executor.shutdown()
        self.node.destroy_node()

    def wait(self, condition, what, timeout=TIMEOUT):
        """Spin until a condition holds and return its value."""
        end = time.monotonic() + timeout
        while not (value := condition()):
            assert time.monotonic() < end, f'waited {timeout:.0f} s in vain for {what}'
            self.executor.spin_once(timeout_sec=0.05)
        return value

    def insist(self, publisher, message, condition, what):
        """Publish a message again and again until a condition holds; return its value.

        For best effort, with which a message on its own may be lost. If it has a sequence number,
        it gets the next one each time.
        """
        end = time.monotonic() + TIMEOUT
        while not (value := condition()):
            assert time.monotonic() < end, f'published for {TIMEOUT:.0f} s in vain for {what}'
            publisher.publish(message)
            if hasattr(message, 'sequence'):
                message.sequence += 1
            self.spin(0.5)
        return value

    def spin(self, seconds):
        """Spin for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.05)

    def listen(self, message_type, topic, qos=10):
        """Subscribe; return the list that messages are added to."""
        messages = []
        self.node.create_subscription(message_type, topic, messages.append, qos)
        return messages

    def publisher(self, message_type, topic, qos=10):
        """Create a publisher and wait for its first subscriber."""
        publisher = self.node.create_publisher(message_type, topic, qos)
        self.wait(publisher.get_subscription_count, f'a subscriber of {topic}')
        return publisher

    def wait_for_publisher(self, topic):
        """Wait until somebody publishes a topic."""
        self.wait(lambda: self.node.count_publishers(topic), f'a publisher of {topic}')

    def call(self, service_type, name, request):
        """Call a service that may safely be called again; return its response."""
        client = self.node.create_client(service_type, name)
        self.wait(client.service_is_ready, f'service {name}')
        # A server that has not yet discovered this client loses the answer without a word.
        for _ in range(10):
            future = client.call_async(request)
            end = time.monotonic() + 6
            while not future.done() and time.monotonic() < end:
                self.executor.spin_once(timeout_sec=0.05)
            if future.done():
                break
        else:
            raise AssertionError(f'service {name} does not answer')
        self.node.destroy_client(client)
        return future.result()

    def diagnostics(self):
        """Listen to the diagnostics; return a function that gives a task's latest values."""
        from diagnostic_msgs.msg import DiagnosticArray

        arrays = self.listen(DiagnosticArray, '/diagnostics')

        def values(task):
            for array in reversed(arrays):
                for status in array.status:
                    if status.name.endswith(f': {task}'):
                        return {item.key: item.value for item in status.values}
            return {}

        return values


class NodeProcess:
    """A node in a process of its own, started as `ros2 run` would, behind a prefix if need be."""

    def __init__(self, package, executable, arguments, parameters, folder, prefix=()):
        from ament_index_python.packages import get_package_prefix

        executable_path = Path(get_package_prefix(package)) / 'lib' / package / executable
        self._start([*prefix, str(executable_path), *arguments], parameters, folder)

    def _start(self, command, parameters, folder, stdin=None):
        command = [*command, '--ros-args']
        for name, value in parameters.items():
            command += ['-p', f'{name.replace("__", ".")}:={value}']
        self._log = folder / f'process_{len(list(folder.iterdir()))}.log'
        with self._log.open('w') as log:
            self._process = subprocess.Popen(
                command, stdin=stdin, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def output(self):
        """What it has printed so far."""
        return self._log.read_text()

    def running(self):
        """Return whether it still runs."""
        return self._process.poll() is None

    def wait(self, timeout=TIMEOUT):
        """Wait for its end; return the exit status."""
        return self._process.wait(timeout)

    def send(self, number):
        """Send it a signal."""
        self._process.send_signal(number)

    def stop(self, number=signal.SIGINT, timeout=20.0):
        """Ask it to end; return the exit status."""
        self.send(number)
        return self._process.wait(timeout)

    def kill(self):
        """End it in any case."""
        if self.running():
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class ScriptProcess(NodeProcess):
    """A Python file that runs a node, in a process of its own, with a pipe to its input."""

    def __init__(self, path, parameters, folder):
        self._start([sys.executable, str(path)], parameters, folder, subprocess.PIPE)

    def say(self, line):
        """Write a line to its standard input."""
        self._process.stdin.write(f'{line}\n'.encode())
        self._process.stdin.flush()

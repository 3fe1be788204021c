"""The service on a real Ray cluster, asked by a real cloud node: results as without Ray, faults.

The cluster is started here, on this machine, or is the one whose address ``MSFC_RAY`` has. More
options of its second node are in ``MSFC_RAY_NODE``, and the port of a Serve that runs there
already is in ``MSFC_RAY_PORT``.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ray = pytest.importorskip('ray', reason="needs Ray: pip install 'ray[serve]'")
pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import CompressedFeature, InstanceArray

from msfc.model_file import load_model, save_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline
from msfc.serving.settings import ServeSettings
from msfc_ros.message_to_image import image_to_bgr
from msfc_ros.messages import instances_to_message, packet_to_message
from ros_fixtures import NodeProcess, Probe, camera_image

PATIENCE = 1800.0
"""Seconds for what Ray has to start; on a quiet machine it takes ten."""

PERIOD = 0.5
"""Seconds between two frames of a camera."""

CAMERAS = {'front': (96, 128), 'rear': (64, 96)}
THRESHOLD = 0.05
CORES = 2
"""Of each Ray node, and of each replica: so there is one replica on each node."""

OWN_PORTS = (
    'metrics-export', 'dashboard-agent-grpc', 'dashboard-agent-listen', 'runtime-env-agent'
)
"""Of a Ray node's parts, as ``ray start`` has them."""

PATIENT_RAY = {
    'RAY_AUTH_MODE': 'disabled',
    'RAY_USAGE_STATS_ENABLED': '0',
    'RAY_enable_metrics_collection': '0',
    'RAY_enable_worker_prestart': '0',
    'RAY_agent_register_timeout_ms': '600000',
    'RAY_health_check_timeout_ms': '60000',
    'RAY_worker_register_timeout_seconds': '600',
    'RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S': '300',
    'RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S': '300',
}
"""Environment of Ray's processes: its time limits are for machines that are not busy."""

pytestmark = pytest.mark.timeout(7200)


class RayNode:
    """A node of a Ray cluster as a process, with which it goes at once.

    Args:
        options: of ``ray start``.
    """

    def __init__(self, *options):
        end = time.monotonic() + PATIENCE
        # Ray gives its own parts seconds to start, which a busy machine exceeds.
        while 'Ray runtime started' not in (said := self._start(options)):
            self.kill()
            assert time.monotonic() < end, f'Ray does not start: {said}'
        # Or it waits for somebody to read what else it says.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def _start(self, options):
        """Start it; return what it said until it runs, or ends."""
        # Its parts would wait for each other's ports, and not for long.
        ports = [f'--{name}-port={free_port()}' for name in OWN_PORTS]
        self.process = subprocess.Popen(
            [
                str(Path(sys.executable).with_name('ray')), 'start', '--block',
                f'--num-cpus={CORES}', '--object-store-memory=100000000',
                '--include-log-monitor=false', *ports, *options,
            ],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        said = ''
        try:
            for line in self.process.stdout:
                said += line
                if 'Ray runtime started' in line:
                    break
        except BaseException:
            self.kill()
            raise
        return said

    def kill(self):
        """End it at once, with all that it started."""
        self.process.kill()
        self.process.wait()


def free_port():
    """Return a port that nobody has."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


@pytest.fixture(scope='module')
def address():
    """Return the address of a cluster of one node."""
    for name, value in PATIENT_RAY.items():
        os.environ.setdefault(name, value)
    if given := os.environ.get('MSFC_RAY'):
        yield given
        return
    port = free_port()
    head = RayNode(
        '--head', f'--port={port}', '--node-ip-address=127.0.0.1', '--include-dashboard=false'
    )
    yield f'127.0.0.1:{port}'
    head.kill()


@pytest.fixture(scope='module')
def second_node(address):
    """Start a second node."""
    node = RayNode(f'--address={address}', *os.environ.get('MSFC_RAY_NODE', '').split())
    yield node
    node.kill()


class Service:
    """The service under test, in this process as ``msfc serve`` has it in its own."""

    def __init__(self, address, model):
        port = int(os.environ.get('MSFC_RAY_PORT', free_port()))
        self._settings = ServeSettings(
            model=str(model), device='cpu', cpus=CORES, threads=1, replicas=2, port=port,
            patience=60.0, ray_address=address,
        )
        self.url = f'http://127.0.0.1:{port}'
        self._deployed = None

    def start(self, **changes):
        """Deploy the service, or replace it."""
        from msfc.serving import application

        application.ANSWER = PATIENCE
        self._settings = replace(self._settings, **changes)
        self._deployed = application.start(self._settings)

    def stop(self):
        """End it."""
        from msfc.serving.application import stop

        if self._deployed is not None:
            stop(self._deployed)
        self._deployed = None

    def replicas(self, number, other_than=()):
        """Wait for so many replicas to answer; return their processes."""
        found, end = set(), time.monotonic() + PATIENCE
        while len(found) < number:
            assert time.monotonic() < end, f'{found} of {number} replicas answer'
            with suppress(OSError), urllib.request.urlopen(self.url, timeout=5) as answer:
                found.add(json.load(answer)['process'])
            found -= set(other_than)
            time.sleep(0.1)
        return found


class Fleet:
    """Cameras whose features a cloud node gets, and what it makes of them.

    Args:
        probe: the node that sends and listens.
        model: with which the features are made.
        images: an image for each camera.
    """

    def __init__(self, probe, model, images):
        self.sent = dict.fromkeys(images, 0)
        self.found = defaultdict(list)
        self.probe, self._next = probe, 0.0
        edge, pipeline = edge_pipeline(model), CloudPipeline(model)
        self._messages, self._publishers, self._expected = {}, {}, {}
        for name, image in images.items():
            packet = edge.encode(image_to_bgr(image), 1)
            self._messages[name] = packet_to_message(packet, image.header)
            found = pipeline.decode(packet).instances.above(THRESHOLD)
            self._expected[name] = instances_to_message(
                found, image.header, packet.image_size, model.class_names
            ).instances
            publisher = probe.node.create_publisher(CompressedFeature, f'{name}/features', 10)
            probe.wait(publisher.get_subscription_count, f'a subscriber of {name}', PATIENCE)
            self._publishers[name] = publisher
            self.found[name] = probe.listen(InstanceArray, f'{name}/instances', 100)

    def run(self, condition, what):
        """Let all cameras send until a condition holds; return its value."""
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert time.monotonic() < end, f'sent for {PATIENCE:.0f} s in vain for {what}'
            if time.monotonic() >= self._next:
                self._send()
                self._next = time.monotonic() + PERIOD
            self.probe.executor.spin_once(timeout_sec=0.02)
        return value

    def more(self, number, what):
        """Let all cameras send until each has so many more results; return how many it had."""
        before = {name: len(found) for name, found in self.found.items()}
        self.run(
            lambda: all(len(found) >= before[name] + number for name, found in self.found.items()),
            what,
        )
        return before

    def check(self):
        """Compare all results with those of a local pipeline; each camera's are in its order."""
        for name, found in self.found.items():
            stamps = [message.header.stamp.sec for message in found]
            assert stamps == sorted(set(stamps))
            assert all(message.header.frame_id == name for message in found)
            assert all(message.instances == self._expected[name] for message in found)

    def _send(self):
        for name, message in self._messages.items():
            self.sent[name] += 1
            message.sequence = message.header.stamp.sec = self.sent[name]
            message.header.frame_id = name
            self._publishers[name].publish(message)


@pytest.fixture(scope='module')
def node(service, ros_environment, model_directory, tmp_path_factory):
    """Start a cloud node as the gateway of the service, which need not be there yet."""
    parameters = {
        'model': model_directory, 'engine': 'ray', 'ray_timeout': 30.0, 'threads': 1,
        'ray_address': service.url, 'score_threshold': THRESHOLD,
        'cameras': f'[{", ".join(CAMERAS)}]',
    }
    folder = tmp_path_factory.mktemp('node')
    node = NodeProcess('msfc_cloud', 'cloud_node', (), parameters, folder)
    yield node
    node.kill()


@pytest.fixture(scope='module')
def service(address, second_node, model_directory):
    """Return the service, not yet deployed."""
    service = Service(address, model_directory)
    yield service
    service.stop()


@pytest.fixture(scope='module')
def fleet(ros, node, service, model_directory):
    """Return cameras that a cloud node serves by Ray, with a replica on each of two Ray nodes."""
    service.start()
    probe = Probe()
    values = probe.diagnostics()
    images = {name: camera_image(*size) for name, size in CAMERAS.items()}
    fleet = Fleet(probe, load_model(model_directory), images)
    fleet.values = lambda name: values(f'decoding /{name}/features')
    fleet.node = node
    yield fleet
    probe.close()


def refusals(fleet):
    """Return the numbers of refused frames by camera and reason."""
    return {
        name: {key: int(value) for key, value in fleet.values(name).items()
               if key.startswith('refused_')}
        for name in CAMERAS
    }


def settled(fleet):
    """Wait until every frame that came is decoded, refused or replaced, and compare results."""

    def accounted():
        for name in CAMERAS:
            values = defaultdict(int, fleet.values(name))
            numbers = {key: int(values[key]) for key in ('received', 'decoded', 'refused')}
            done = numbers['decoded'] + numbers['refused'] + int(values['overwritten'])
            if not done or numbers['received'] != done:
                return False
            if numbers['decoded'] != len(fleet.found[name]):
                return False
        return True

    fleet.probe.wait(accounted, 'all frames to be accounted for', PATIENCE)
    fleet.check()


# The tests follow each other: each start of a replica takes its time.


def test_results_are_the_local_ones(service, fleet):
    assert len(service.replicas(2)) == 2
    fleet.more(4, 'results')
    settled(fleet)
    assert not any(refusals(fleet).values())


def test_a_replica_is_killed_while_it_works(service, fleet):
    """At most what it worked on is lost, the other goes on, and Ray makes a new one."""
    before = refusals(fleet)
    victim = min(service.replicas(2))
    os.kill(victim, signal.SIGKILL)
    fleet.more(6, 'results with one replica')
    settled(fleet)
    for name, numbers in refusals(fleet).items():
        assert sum(numbers.values()) - sum(before[name].values()) <= 2, numbers
    service.replicas(2, other_than={victim})


def test_a_node_goes(fleet, second_node):
    """It goes with its replica and its proxy, and all at once."""
    second_node.kill()
    fleet.more(8, 'results with one node')
    settled(fleet)


def test_another_model_and_back(service, fleet, tmp_path, model_directory):
    """The node says that the service has another model, and goes on when the old one is back."""
    other = load_model(model_directory)
    with torch.no_grad():
        next(other.codec.synthesis.parameters()).add_(1.0)
    save_model(other, tmp_path / 'other')
    service.start(model=str(tmp_path / 'other'), replicas=1)
    fleet.run(
        lambda: all(refusals(fleet)[name].get('refused_foreign_model') for name in CAMERAS),
        'refusals of another model',
    )
    assert 'foreign_model' in fleet.node.output

    service.stop()  # nothing is there at all
    fleet.run(
        lambda: all(refusals(fleet)[name].get('refused_engine_away') for name in CAMERAS),
        'refusals without a service',
    )
    assert 'is  msfc serve  running there?' in fleet.node.output

    service.start(model=str(model_directory))
    fleet.more(3, 'results again')
    settled(fleet)
    assert fleet.node.stop() == 0

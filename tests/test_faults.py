"""The pair on two hosts with a bad link between them, and with nodes that die and come back.

Every test keeps books: each image that the camera published was received by the edge, each that
the edge received was sent or is in one of its counts, each that was sent was received by the cloud
or counted as lost, and each that the cloud received was published or is in one of its counts. Of
what was published nothing comes twice, all headers are the camera's, and all instances are those
that the same image gives without a link.

What was measured is printed, a line a test:  pytest tests/test_faults.py -s | grep measured
"""

from __future__ import annotations

import re
import signal
import statistics
import time
from collections import Counter
from contextlib import contextmanager

import pytest
import torch

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from agents import Agent, wait_until
from host_agent import digest, picture
from msfc.codecs.msfc.codec import MSFC, MSFCConfig
from msfc.detectors.torchvision import TorchvisionConfig, TorchvisionDetector
from msfc.model import SplitModel
from msfc.model_file import load_model, save_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline
from msfc_demo.two_hosts import TwoHosts, obstacle, queue_obstacle
from msfc_ros.messages import instances_to_message
from ros_fixtures import NodeProcess

WHY_NOT = obstacle('nft', 'tc')
pytestmark = [pytest.mark.dds, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]

SLOW = ('netem', 'delay', '40ms', '20ms', 'reorder', '5%', '25%')
"""What tc puts on a slow link."""

WHY_NOT_SLOW = WHY_NOT or queue_obstacle(*SLOW)

CODE_CHANNELS = 2720
THRESHOLD = 0.05

PAYLOADS = {
    2040: ((32, 96), 2),
    27200: ((32, 640), 4),
    217600: ((32, 640), 32),
}
"""Image size (network input as well) and bit depth, by bytes of the payload."""

SMALL, MIDDLE, LARGE = PAYLOADS

RATE = 20.0
"""Images per second."""

COUNT = 60
"""Frames that are sent over a bad link."""

NARROW, BURST = 2_000_000, 16_000
"""Of a narrow link: bits per second, and bytes that may go at once."""

PATIENCE = 120.0
"""Seconds until a wait has failed, unless a test says otherwise."""

BACK = 2.0
"""Seconds from when a node that was killed is active again, or a link whole, until frames flow."""

FATES = ('decoded', 'overwritten', 'stale', 'reordered', 'repeated', 'refused')
"""What can become of a message that the cloud received, one of them for each."""

PERIOD = 0.1
"""Seconds between two diagnostics."""

LEASE = 3
"""Seconds of silence after which a participant is taken for gone, where a test waits for that."""

SHORT_LEASE = f"""<?xml version="1.0" encoding="UTF-8"?>
<profiles xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles">
  <participant profile_name="short_lease" is_default_profile="true">
    <rtps><builtin><discovery_config>
      <leaseDuration><sec>{LEASE}</sec></leaseDuration>
      <leaseAnnouncement><sec>1</sec></leaseAnnouncement>
    </discovery_config></builtin></rtps>
  </participant>
</profiles>
"""


@pytest.fixture(scope='session')
def fault_model(tmp_path_factory):
    """Write a small model with many code channels: small images make large payloads."""
    torch.manual_seed(0)
    config = TorchvisionConfig(
        class_names=('ant', 'bee', 'cat'),
        backbone='resnet18',
        fpn_channels=32,
        box_head_channels=32,
        mask_head_layers=1,
        min_size=32,
        max_size=640,
        rpn_pre_nms=50,
        rpn_post_nms=8,
        score_threshold=0.01,
        max_detections=5,
    )
    codec = MSFC(MSFCConfig(channels=32, code_channels=CODE_CHANNELS))
    directory = tmp_path_factory.mktemp('fault_model')
    save_model(SplitModel(TorchvisionDetector(config).eval(), codec, 4), directory)
    return directory


@contextmanager
def two_hosts_with_pair(model, folder, variables=(), **parameters):
    """Make two hosts with a node and an agent each; the nodes are told the parameters."""
    environment = {
        'ROS_DOMAIN_ID': '7',  # nobody else is in there
        'ROS_LOG_DIR': str(folder),
        'OMP_NUM_THREADS': '1',
        'PYTHONUNBUFFERED': '1',
        **dict(variables),
    }
    with TwoHosts(environment) as hosts:
        pair = Pair(hosts, model, folder, parameters)
        try:
            yield pair
        finally:
            pair.close()


def qos(reliability, depth):
    return {'qos__features__reliability': reliability, 'qos__features__depth': depth}


@contextmanager
def working_pair(model, folder, reliability, depth):
    """Make two hosts with both nodes at work, and features sent as told."""
    with two_hosts_with_pair(model, folder, **qos(reliability, depth)) as pair:
        pair.start('edge')
        pair.start('cloud')
        pair.flush()
        pair.link = f'{reliability.replace("_", " ")}, depth {depth}'
        pair.reliable = reliability == 'reliable'
        yield pair


@pytest.fixture(scope='module', params=['reliable', 'best_effort'])
def pair(request, fault_model, tmp_path_factory):
    """Return a pair whose features are repeated, if at all, for a second."""
    folder = tmp_path_factory.mktemp(request.param)
    with working_pair(fault_model, folder, request.param, round(RATE)) as pair:
        yield pair


@pytest.fixture(scope='module')
def patient_pair(fault_model, tmp_path_factory):
    """Return a pair whose features are repeated until they have arrived."""
    folder = tmp_path_factory.mktemp('patient')
    with working_pair(fault_model, folder, 'reliable', 10 * COUNT) as pair:
        yield pair


@pytest.fixture(scope='module')
def ordinary_pair(fault_model, tmp_path_factory):
    """Return a pair that does all as it does by default, without nodes yet."""
    with two_hosts_with_pair(fault_model, tmp_path_factory.mktemp('ordinary')) as pair:
        yield pair


@pytest.fixture
def both(ordinary_pair):
    """Return the ordinary pair with both nodes at work."""
    for name in ('edge', 'cloud'):
        if not ordinary_pair.running(name):
            ordinary_pair.start(name)
    ordinary_pair.flush()
    return ordinary_pair


class Pair:
    """Two hosts, a node and an agent on each, and the books."""

    TASKS = ('encoding', 'decoding')
    PACKAGES = ('msfc_edge', 'msfc_cloud')

    def __init__(self, hosts, model, folder, parameters):
        self.hosts = hosts
        self._folder = folder
        self._parameters = parameters
        self._directory = model
        self._model = load_model(model)
        self._nodes = {}
        self._expected = {}
        # What the camera shows from which image on, and the bit depth.
        self._settings = [(0, PAYLOADS[SMALL])]
        self.robot_agent = self.camera = None
        self.robot_agent = self._agent('robot')
        self.cloud_agent = self._agent('cloud')
        self.cloud_agent.ask('listen')
        self.camera = self._agent('camera', hosts.robot)

    def _agent(self, name, host=None):
        agent = Agent(host or getattr(self.hosts, name), self._folder / f'agent_{name}.log')
        assert agent.ask('ready')
        return agent

    def close(self):
        for node in self._nodes.values():
            if node.running():
                node.stop(signal.SIGKILL)
        for agent in (self.robot_agent, self.cloud_agent, self.camera):
            if agent is not None:
                agent.kill()

    def wait(self, condition, what, pause=0.02, timeout=PATIENCE):
        """Wait until a condition holds and return its value; no node may die meanwhile."""

        def checked():
            for node in self._nodes.values():
                assert node.running(), node.output[-3000:]
            return condition()

        return wait_until(checked, what, timeout, pause)

    # -- nodes --

    def start(self, name):
        """Start the edge or the cloud node."""
        place = ('edge', 'cloud').index(name)
        host = (self.hosts.robot, self.hosts.cloud)[place]
        parameters = {
            'model': self._directory,
            'diagnostics_period': PERIOD,
            'autostart': True,
            **self._parameters,
        }
        if name == 'edge':
            # Nothing may be lost before the link.
            parameters |= {'qos__image__reliability': 'reliable', 'qos__image__depth': 100}
            parameters |= {'rate': self._settings[-1][1][1]}
        else:
            parameters |= {'score_threshold': THRESHOLD, 'qos__output__depth': 100}
        # What the one before it said last is not the new one's.
        (self.robot_agent, self.cloud_agent)[place].ask('forget', task=self.TASKS[place])
        self._nodes[name] = NodeProcess(
            self.PACKAGES[place], f'{name}_node', (), parameters, self._folder, host.prefix
        )

    def running(self, name):
        return name in self._nodes and self._nodes[name].running()

    def kill(self, name):
        """End a node by ``kill -9``."""
        assert self._nodes.pop(name).stop(signal.SIGKILL) == -signal.SIGKILL

    def active_since(self, name):
        """Return when a node became active by its own log, in seconds since 1970, once it has."""
        found = re.findall(r'\[(\d+\.\d+)\] \[\S+\]: active', self._nodes[name].output)
        return float(found[-1]) if found else None

    def wait_active(self, name):
        return self.wait(lambda: self.active_since(name), f'{name} to become active')

    def status(self, name):
        """Return the last diagnostics of a node."""
        place = ('edge', 'cloud').index(name)
        agent = (self.robot_agent, self.cloud_agent)[place]
        nothing = {'message': '', 'values': {}, 'time': 0.0}
        return agent.ask('diagnostics').get(self.TASKS[place], nothing)

    def counts(self, name):
        """Return a node's counts by its last diagnostics."""
        values = self.status(name)['values']
        return Counter({k: int(v) for k, v in values.items() if re.fullmatch(r'\d+', v)})

    # -- camera and results --

    def film(self, payload, count=0, rate=RATE):
        """Let the camera film and the edge send payloads of a size."""
        size, bits = PAYLOADS[payload]
        first = len(self.published())
        if self._settings[-1][1][1] != bits and self.running('edge'):
            self._wait_until_edge_is_done()
            refusal = self.robot_agent.ask(
                'set_parameter', node='/msfc_edge', name='rate', value=bits
            )
            assert not refusal
        self._settings.append((first, (size, bits)))
        self.camera.ask('film', height=size[0], width=size[1], rate=rate, count=count)

    def _wait_until_edge_is_done(self):
        self.wait_for_news()
        self.wait(
            lambda: (c := self.counts('edge'))['received'] == handled_by_edge(c),
            'the edge to finish its last image',
        )

    def wait_for_news(self, *names):
        """Wait until nodes have said how they are, after what was under way has arrived."""
        start = time.time() + 2 * PERIOD
        self.wait(
            lambda: all(self.status(name)['time'] > start for name in names or self._nodes),
            'diagnostics',
        )

    def shoot(self, payload, count=COUNT, rate=RATE):
        """Film that many images and wait until they are published."""
        self.film(payload, count, rate)
        self.wait(lambda: not self.camera.ask('filming'), 'the camera')

    def shoot_until_sent(self, payload, count=COUNT):
        """Film until the edge has sent that many; return the seconds that it took.

        With the books open. However slow the machine is, so many have been sent.
        """
        self.film(payload)
        start = time.monotonic()
        self.wait(lambda: self._since('edge')['encoded'] >= count, 'the edge to send')
        self.stop_camera()
        self.wait_for_news()
        return time.monotonic() - start

    def stop_camera(self):
        self.camera.ask('stop')

    def replace_camera(self):
        """End the camera after its last image by ``kill -9``; put another one in its place."""
        self.stop_camera()
        self._wait_until_edge_is_done()
        published = self.published()
        self.camera.kill()
        self.camera = self._agent('camera', self.hosts.robot)
        self.camera.ask('resume', published=published)

    def published(self):
        return self.camera.ask('published')

    def results(self, start=0):
        return self.cloud_agent.ask('results', start=start)

    def flush(self):
        """Send single small images until one of them comes out."""
        self.wait(lambda: self.camera.ask('counterparts', topic='image_raw')[1], 'the edge')

        def arrived():
            self.shoot(SMALL, 1)
            number = len(self.published()) - 1
            end = time.monotonic() + 1
            while time.monotonic() < end:
                if any(frame == f'camera_{number:06}' for frame, *_ in self.results()[-3:]):
                    return True
                time.sleep(0.02)
            return False

        self.wait(arrived, 'an image to come out at the other end')

    # -- books --

    def open_books(self):
        """Note all counts; call with nothing under way."""
        self.wait_for_news()
        self._before = {name: self.counts(name) for name in ('edge', 'cloud')}
        self._results_before = len(self.results())
        self._published_before = len(self.published())

    def close_books(self):
        """Wait until everything is accounted for; return the counts of edge and cloud."""
        self.wait(
            lambda: not self._open_items(), lambda: '; '.join(self._open_items()), timeout=30
        )
        self.check_results()
        return self._since('edge'), self._since('cloud')

    def _since(self, name):
        counts = self.counts(name)
        counts.subtract(self._before[name])
        return counts

    def _open_items(self):
        edge, cloud = self._since('edge'), self._since('cloud')
        published = len(self.published()) - self._published_before
        results = len(self.results()) - self._results_before
        known = {
            'images published = received by the edge': (published, edge['received']),
            'received by the edge = encoded or in one of its counts': (
                edge['received'],
                handled_by_edge(edge),
            ),
            'sent = received by the cloud or lost': (
                edge['encoded'],
                cloud['received'] + cloud['lost'],
            ),
            'received by the cloud = decoded or in one of its counts': (
                cloud['received'],
                sum(cloud[name] for name in FATES),
            ),
            'decoded = results': (cloud['decoded'], results),
            'nothing refused': (edge['refused'] + cloud['refused'], 0),
            'no image lost on the robot': (edge['lost'], 0),
            'none of them twice': (cloud['repeated'], 0),
        }
        return [f'{what}: {a}, {b}' for what, (a, b) in known.items() if a != b]

    def check_results(self):
        """Check header, order and content of all results so far."""
        published = self.published()
        numbers = []
        for frame, seconds, nanoseconds, found, _ in self.results():
            number = int(frame.removeprefix('camera_'))
            assert [seconds, nanoseconds] == published[number]
            assert found == self._expect(number), f'image {number} came out changed'
            numbers.append(number)
        assert numbers == sorted(set(numbers)), 'twice, or out of order'

    def _expect(self, number):
        size, bits = next(s for first, s in reversed(self._settings) if first <= number)
        what = (size, bits, picture(number, *size).tobytes())
        if what not in self._expected:
            with as_many_threads_as_the_nodes():
                packet = edge_pipeline(self._model, bits).encode(picture(number, *size), 0)
                found = CloudPipeline(self._model).decode(packet).instances.above(THRESHOLD)
            assert len(found), 'an empty result would prove nothing'
            message = instances_to_message(found, _header(), size, self._model.class_names)
            self._expected[what] = digest(message)
        return self._expected[what]

    def ages(self, start):
        """Return the seconds from image to result, for the results from one on."""
        return [at - (s + ns * 1e-9) for _, s, ns, _, at in self.results(start)]


@contextmanager
def as_many_threads_as_the_nodes():
    """Let torch take one thread: the last bits of its results depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def handled_by_edge(counts):
    return sum(counts[name] for name in ('encoded', 'overwritten', 'idle', 'skipped', 'refused'))


def _header():
    from std_msgs.msg import Header

    return Header()


def report(what, **figures):
    """Print a line of figures for docs/reliability.md."""
    words = ', '.join(f'{name.replace("_", " ")} {value}' for name, value in figures.items())
    print(f'\nmeasured: {what}: {words}', flush=True)


def send_through(pair, payload, what, break_it, heal):
    """Film over a bad link, then mend it and close the books.

    Returns:
        Frames sent, received and lost, what was dropped, and the seconds that it took.
    """
    pair.flush()
    pair.open_books()
    start = len(pair.results())
    break_it()
    try:
        seconds = pair.shoot_until_sent(payload)
    finally:
        dropped = pair.hosts.dropped()
        heal()
    pair.flush()
    edge, cloud = pair.close_books()
    sent, received, lost = edge['encoded'], cloud['received'], cloud['lost']
    ages = pair.ages(start)
    report(
        f'{payload:,} B, {pair.link}, {what}',
        seconds=f'{seconds:.1f}',
        sent=sent,
        received=received,
        lost=lost,
        decoded=cloud['decoded'],
        overwritten=cloud['overwritten'],
        packets_dropped=dropped.packets,
        median_age=f'{statistics.median(ages) * 1e3:.0f} ms',
        worst_age=f'{max(ages) * 1e3:.0f} ms',
    )
    assert pair.running('edge')
    assert pair.running('cloud')
    return sent, received, lost, dropped, seconds


def send_losing(pair, payload, share):
    """Film while packets are dropped at random; see :func:`send_through`."""
    what = f'{share:.0%} of the packets lost'
    return send_through(pair, payload, what, lambda: pair.hosts.lose(share), pair.hosts.heal_loss)


def nothing():
    pass


@pytest.mark.parametrize('payload', PAYLOADS)
def test_sound_link(pair, payload):
    _, received, lost, dropped, _ = send_through(pair, payload, 'sound link', nothing, nothing)
    assert not dropped.packets
    if pair.reliable or payload < LARGE:
        assert lost == 0
    assert received > 0


@pytest.mark.parametrize(('payload', 'share'), [(SMALL, 0.1), (MIDDLE, 0.01), (LARGE, 0.01)])
def test_lost_packets(pair, payload, share):
    sent, received, lost, dropped, _ = send_losing(pair, payload, share)
    assert dropped.packets
    if pair.reliable:
        if payload == MIDDLE:
            assert received >= 0.9 * sent
    elif payload < LARGE:
        # Packets per message, 1,480 bytes each, with what goes around the payload.
        packets = 1 + (payload + 150) // 1480
        expected = sent * (1 - (1 - share) ** packets)
        assert 0 < lost < 3 * expected
        # One full packet a message, or so many that few messages lose more than one.
        per_message = 1 if payload == SMALL else 4
        assert dropped.full / per_message <= lost <= dropped.packets
    else:
        assert lost > sent / 4


@pytest.mark.parametrize(('payload', 'share'), [(SMALL, 0.1), (MIDDLE, 0.01)])
def test_what_is_repeated_until_it_arrives_is_not_lost(patient_pair, payload, share):
    sent, received, lost, dropped, _ = send_losing(patient_pair, payload, share)
    assert dropped.packets
    assert lost == 0
    assert received == sent


@pytest.mark.parametrize('payload', [SMALL, MIDDLE])
def test_narrow_link(pair, payload):
    limit = ('tbf', 'rate', f'{NARROW}bit', 'burst', f'{BURST}b', 'latency', '100ms')
    sent, received, _, _, seconds = send_through(
        pair,
        payload,
        f'link of {NARROW / 1e6:g} Mbit/s',
        lambda: pair.hosts.queue(*limit),
        pair.hosts.heal_queue,
    )
    # What is repeated after the link is wide again, and the frames that tell it.
    later = round(RATE) + 5
    assert received <= (NARROW / 8 * seconds + BURST) / payload + later
    if payload == SMALL:
        assert received >= 0.9 * sent


@pytest.mark.skipif(bool(WHY_NOT_SLOW), reason=WHY_NOT_SLOW)
@pytest.mark.parametrize('payload', PAYLOADS)
def test_slow_link(pair, payload):
    sent, received, *_ = send_through(
        pair,
        payload,
        'delay 40 +- 20 ms, 5 % of the packets out of order',
        lambda: pair.hosts.queue(*SLOW),
        pair.hosts.heal_queue,
    )
    if payload < LARGE:
        assert received >= 0.5 * sent


def frames_flow_again(pair, name, since, what):
    """Wait for a frame that came out after a time; report how long all took.

    Args:
        pair: the pair.
        name: the node that has been started.
        since: when it was started, in seconds since 1970.
        what: happened, in words.
    """
    active = pair.wait_active(name)

    def first():
        times = [at for *_, at in pair.results()[-200:] if at > max(since, active)]
        return times[0] if times else None

    flowing = pair.wait(first, 'frames to flow again')
    report(
        what,
        start_to_active=f'{active - since:.2f} s',
        active_to_frame=f'{flowing - active:.2f} s',
        start_to_frame=f'{flowing - since:.2f} s',
    )
    assert flowing - active <= BACK


def finish(pair):
    """Stop the camera; check that nothing that came out was changed or came twice."""
    pair.stop_camera()
    pair.flush()
    pair.check_results()
    assert pair.running('edge')
    assert pair.running('cloud')


def test_killed_edge_comes_back(both):
    both.film(SMALL)
    start = len(both.results())
    both.wait(lambda: len(both.results()) > start + 5, 'frames to flow')
    both.kill('edge')
    since = time.time()
    both.start('edge')
    both.wait_for_news('cloud')
    before = both.counts('cloud')
    frames_flow_again(both, 'edge', since, 'edge killed and started again')
    finish(both)
    both.wait_for_news()
    after, sent = both.counts('cloud'), both.counts('edge')['encoded']
    # The numbers begin anew, and no gap is made of that.
    assert after['received'] + after['lost'] - before['received'] - before['lost'] == sent
    assert not after['refused']


def test_killed_cloud_comes_back(both):
    both.film(SMALL)
    start = len(both.results())
    both.wait(lambda: len(both.results()) > start + 5, 'frames to flow')
    both.kill('cloud')
    cloud_comes(both, 'cloud killed and started again')


def test_cloud_starts_late(both):
    both.kill('cloud')
    both.kill('edge')
    both.start('edge')
    both.wait_active('edge')
    both.film(SMALL)
    # A recorder on the robot keeps the edge at work, so that frames go out that no cloud sees.
    both.robot_agent.ask('record', reliability='reliable')
    both.wait(lambda: both.counts('edge')['encoded'] > 5, 'frames that are sent')
    cloud_comes(both, 'cloud started late')


def cloud_comes(pair, what):
    """Start the cloud while the edge is at work; what went before is no loss."""
    since = time.time()
    before = pair.counts('edge')['encoded']
    pair.start('cloud')
    frames_flow_again(pair, 'cloud', since, what)
    finish(pair)
    pair.wait_for_news()
    sent, cloud = pair.counts('edge')['encoded'], pair.counts('cloud')
    assert 0 < cloud['received'] + cloud['lost'] <= sent - before
    assert not cloud['refused']


def test_camera_stops_and_returns(both):
    both.open_books()
    both.film(SMALL)
    start = len(both.results())
    both.wait(lambda: len(both.results()) > start + 5, 'frames to flow')
    before = both.published()
    both.replace_camera()

    def missed():
        return all('nothing received' in both.status(n)['message'] for n in ('edge', 'cloud'))

    both.wait(missed, 'both nodes to say that nothing comes')
    assert both.running('edge')
    assert both.running('cloud')
    assert len(both.published()) >= len(before)
    both.film(SMALL)
    both.wait(lambda: len(both.results()) > start + 10, 'frames to flow')
    both.stop_camera()
    both.flush()
    both.close_books()


def test_short_cut(both):
    both.flush()
    both.open_books()
    both.film(SMALL)
    start = len(both.results())
    both.wait(lambda: len(both.results()) > start + 5, 'frames to flow')
    both.hosts.lose(1.0)
    sent = both.counts('edge')['encoded']
    both.wait(lambda: both.counts('edge')['encoded'] > sent + 20, 'frames that are sent')
    both.hosts.heal_loss()
    healed = time.time()
    flowing = both.wait(
        lambda: [at for *_, at in both.results() if at > healed], 'frames to flow'
    )[0]
    both.stop_camera()
    both.flush()
    edge, cloud = both.close_books()
    report(
        'link cut for 20 frames',
        sent=edge['encoded'],
        received=cloud['received'],
        lost=cloud['lost'],
        whole_to_frame=f'{flowing - healed:.2f} s',
    )
    assert 10 <= cloud['lost'] <= edge['encoded'] - 5
    assert flowing - healed <= BACK


def test_away_for_longer_than_the_lease(fault_model, tmp_path):
    """DDS itself forgets who is silent for its lease, 20 s by default, shorter here."""
    profile = tmp_path / 'short_lease.xml'
    profile.write_text(SHORT_LEASE)
    variables = {
        'FASTRTPS_DEFAULT_PROFILES_FILE': profile,
        'FASTDDS_DEFAULT_PROFILES_FILE': profile,
    }
    with two_hosts_with_pair(fault_model, tmp_path, variables.items()) as pair:
        pair.start('edge')
        pair.start('cloud')
        pair.flush()
        pair.film(SMALL)

        # The cloud is gone: the edge stops computing for it.
        pair.kill('cloud')
        pair.wait(lambda: pair.counts('edge')['idle'], 'the edge to be idle')
        since = time.time()
        pair.start('cloud')
        frames_flow_again(pair, 'cloud', since, 'cloud back after its lease')

        # The edge is gone: the cloud says so and waits.
        pair.kill('edge')
        pair.wait(
            lambda: pair.cloud_agent.ask('counterparts', topic='features')[0] == 0,
            'the edge to be forgotten',
        )
        pair.wait(
            lambda: 'nothing received' in pair.status('cloud')['message'],
            'the cloud to say that nothing comes',
        )
        assert pair.running('cloud')
        since = time.time()
        pair.start('edge')
        frames_flow_again(pair, 'edge', since, 'edge back after its lease')

        # The link is gone: both forget each other, and find each other again.
        pair.hosts.lose(1.0)
        idle = pair.counts('edge')['idle']
        pair.wait(lambda: pair.counts('edge')['idle'] > idle, 'the edge to be idle')
        pair.hosts.heal_loss()
        healed = time.time()
        flowing = pair.wait(
            lambda: [at for *_, at in pair.results()[-200:] if at > healed], 'frames to flow'
        )[0]
        report('link back after the lease', whole_to_frame=f'{flowing - healed:.2f} s')
        finish(pair)

"""An edge that adapts to what the cloud reports, over real DDS; here the probe is the cloud."""

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import CompressedFeature, LinkReport
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from msfc_edge.edge_node import EdgeNode
from ros_fixtures import camera_image, make_node

pytestmark = pytest.mark.usefixtures('ros')

BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


class Rig:
    """An edge node, a camera in front of it and a cloud behind it."""

    def __init__(self, node, probe):
        self.node, self.probe = node, probe
        self.features = probe.listen(CompressedFeature, 'features')
        self.camera = probe.publisher(Image, 'image_raw')
        self.cloud = probe.node.create_publisher(LinkReport, 'link_report', BEST_EFFORT)
        self._number = 0

    def report(self, condition, what, image=False, **fields):
        """Report again and again, with an image each time if asked to, until a condition holds."""

        def once():
            if image:
                self.camera.publish(camera_image())
            message = LinkReport(
                number=self._number, period=0.2, weight=1.0, received=len(self.features),
                received_up_to=self.features[-1].sequence if self.features else 0,
            )  # fmt: skip
            for name, value in fields.items():
                setattr(message, name, value() if callable(value) else value)
            self._number += 1
            self.cloud.publish(message)
            self.probe.spin(0.1)
            return condition()

        return self.probe.wait(once, what)

    def values(self):
        return self.node.values()

    def count(self, name):
        return int(self.node.statistics.values().get(name, 0))

    def shoot(self, condition, what):
        """Publish images until a condition holds."""
        return self.probe.insist(self.camera, camera_image(), condition, what)


@pytest.fixture
def make_rig(model_directory, probe):
    nodes = []

    def make(**parameters):
        context = make_node(EdgeNode, model=str(model_directory), **parameters)
        node = context.__enter__()
        nodes.append((context, node))
        probe.executor.add_node(node)
        assert node.start()
        return Rig(node, probe)

    yield make
    for context, node in nodes:
        node.stop()
        probe.executor.remove_node(node)
        context.__exit__(None, None, None)


def test_does_not_listen_by_default(make_rig, probe):
    rig = make_rig()
    assert probe.node.count_subscribers('link_report') == 0
    assert 'link_bitrate' not in rig.values()


def test_the_budget_is_what_the_link_takes(make_rig):
    rig = make_rig(adaptive=True, link__start_bitrate=123_000.0)
    assert float(rig.values()['bitrate_limit']) == 123_000
    rig.report(
        lambda: float(rig.values()['bitrate_limit']) == pytest.approx(50_000),
        'a share as the budget',
        share=50_000.0, bitrate=40_000.0,
    )  # fmt: skip
    shown = rig.values()
    assert float(shown['link_bitrate']) == pytest.approx(50_000)
    assert float(shown['link_share']) == pytest.approx(50_000)
    assert shown['link_usage'] == 'normal'
    assert rig.count('reports') >= 1


def test_a_growing_delay_lowers_it(make_rig):
    rig = make_rig(adaptive=True, link__start_bitrate=1e6)
    rig.report(
        lambda: float(rig.values()['bitrate_limit']) < 200_000,
        'a lower budget',
        bitrate=200_000.0, delay=0.5, delay_trend=0.5, delay_samples=10,
    )  # fmt: skip


def test_losses_make_messages_small_but_skip_none(make_rig):
    rig = make_rig(adaptive=True, rate=-2)
    rig.report(
        lambda: 'link_message_bytes' in rig.values(),
        'a wish for small messages',
        image=True, lost=lambda: len(rig.features) // 2,
    )  # fmt: skip
    assert float(rig.values()['link_message_bytes']) == 1300
    assert float(rig.values()['link_loss']) > 0.1
    count = len(rig.features)
    rig.report(lambda: len(rig.features) > count, 'features', image=True)


def test_images_that_the_cloud_cannot_decode_are_skipped_before_the_work(make_rig):
    rig = make_rig(adaptive=True)
    rig.shoot(lambda: rig.features, 'features')

    def busy(count):
        # Of so long a period that a slow machine keeps it.
        rig.report(
            lambda: rig.count('skipped_cloud_busy') >= count,
            'skipped images',
            image=True,
            decode_rate=0.001,
            period=30.0,
        )

    # The first two are due at once.
    busy(1)
    assert 'decode_rate_hz' in rig.values()
    rig.probe.wait(
        lambda: (
            rig.count('received')
            == sum(rig.count(name) for name in ('encoded', 'overwritten', 'skipped'))
        ),
        'the end of the work',
    )
    before = rig.count('encoded')
    busy(5)
    assert rig.count('encoded') == before
    assert rig.count('skipped') == rig.count('skipped_cloud_busy')
    assert any('cloud is busy' in finding.text for finding in rig.node.findings())
    rig.report(lambda: rig.count('encoded') > before, 'features again', image=True)
    assert 'decode_rate_hz' not in rig.values()


def test_bad_reports_are_refused_and_change_nothing(make_rig):
    rig = make_rig(adaptive=True)
    limit = rig.values()['bitrate_limit']
    rig.report(lambda: rig.count('bad_reports'), 'a refusal', bitrate=float('nan'), share=1.0)
    assert rig.values()['bitrate_limit'] == limit
    assert rig.count('refused') == 0
    rig.report(lambda: rig.count('reports'), 'a good one')


def test_adaptive_is_live(make_rig, probe):
    rig = make_rig()

    def set_adaptive(value):
        (result,) = rig.node.set_parameters([Parameter('adaptive', value=value)])
        assert result.successful

    set_adaptive(True)
    assert 'bitrate_limit' in rig.values()
    rig.report(lambda: rig.count('reports'), 'a report that is heard', share=30_000.0)
    set_adaptive(False)
    assert 'bitrate_limit' not in rig.values()
    probe.wait(lambda: not probe.node.count_subscribers('link_report'), 'the end of listening')
    set_adaptive(True)
    assert float(rig.values()['bitrate_limit']) == 200_000
    rig.node.stop()
    assert rig.node.start()
    rig.report(lambda: rig.count('reports') > 1, 'a report that is heard')


def test_when_reports_cease_it_says_so_and_sends_little(make_rig):
    rig = make_rig(adaptive=True)
    rig.report(lambda: rig.count('reports'), 'a report')
    assert not rig.node.findings() or 'no report' not in str(rig.node.findings())
    before = float(rig.values()['link_bitrate'])
    rig.probe.wait(
        lambda: any('no report on the link' in f.text for f in rig.node.findings()), 'a finding'
    )
    rig.probe.wait(lambda: float(rig.values()['link_bitrate']) <= before / 4, 'a lower bitrate')


@pytest.mark.parametrize(
    ('name', 'value'), [('min_bitrate', 2e6), ('start_bitrate', 1e3), ('max_bitrate', 5e3)]
)
def test_limits_in_disorder_are_refused_at_once(name, value):
    with (
        pytest.raises(ValueError, match='has to be within the least'),
        make_node(EdgeNode, adaptive=True, **{f'link__{name}': value}),
    ):
        pass

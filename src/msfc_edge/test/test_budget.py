"""Budgets of a node with the learned codec: what is sent, and what is told."""

from functools import partial
from itertools import count

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

import torch
from msfc_msgs.msg import CompressedFeature
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image

from msfc.codecs.learned import LearnedCodec, LearnedConfig
from msfc.model import SplitModel
from msfc.model_file import load_model
from msfc.pipeline.torch_network import edge_pipeline
from msfc.wire.message_size import PACKET_BYTES, compressed_feature_bytes
from msfc_edge.edge_node import EdgeNode
from msfc_ros.message_to_image import image_to_bgr
from ros_fixtures import camera_image, make_node

pytestmark = pytest.mark.usefixtures('ros')


@pytest.fixture(scope='module')
def pipeline(model_directory):
    """Return the pipeline of a learned codec without training, behind the small detector."""
    torch.manual_seed(0)
    detector = load_model(model_directory).detector
    config = LearnedConfig(
        channels=detector.feature_channels, code_channels=12, slices=(4, 8), rates=6,
        analysis_widths=(8, 8), synthesis_widths=(8, 8, 8, 8),
    )  # fmt: skip
    return edge_pipeline(SplitModel(detector, LearnedCodec(config).eval(), 4))


@pytest.fixture
def stream(pipeline, model_directory, probe):
    """Return an active node and a function that gives the message of an image sent to it."""
    make = partial(EdgeNode, make_pipeline=lambda model: pipeline)
    with make_node(make, model=str(model_directory)) as node:
        probe.executor.add_node(node)
        assert node.start()
        features = probe.listen(CompressedFeature, 'features')
        camera = probe.publisher(Image, 'image_raw')

        stamps = count(1000)

        def send(seconds):
            image = camera_image(seconds=seconds)
            # Its own, as an earlier one may have been sent more than once.
            stamp = image.header.stamp.sec = next(stamps)

            def found():
                return [one for one in features if one.header.stamp.sec == stamp]

            probe.insist(camera, image, found, 'features')
            return found()[0]

        yield node, camera, send
        node.stop()
        probe.executor.remove_node(node)


def lengths(pipeline, seconds):
    """Return the bytes of an image's messages at all rates, by writing them all."""
    image = camera_image(seconds=seconds)
    frame = pipeline.analyse(image_to_bgr(image))
    around = compressed_feature_bytes(0, image.header.frame_id)
    return [around + len(frame.payload(rate)) for rate in pipeline.rates]


def set_value(node, name, value):
    (result,) = node.set_parameters([Parameter(name, value=value)])
    assert result.successful, result.reason


def test_each_message_is_the_best_that_fits(pipeline, stream):
    node, _, send = stream
    for seconds in (1, 2):
        sizes = lengths(pipeline, seconds)
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[4] < sizes[5]
        for rate, most in ((-1, 4), (-2, 5)):
            set_value(node, 'rate', rate)
            # One packet by default, and then just enough for one of the rates.
            for limit in (-1, sizes[1], sizes[4] - 1, sizes[5]):
                set_value(node, 'max_message_bytes', limit)
                message = send(seconds)
                bound = PACKET_BYTES if limit == -1 else limit
                fitting = [one for one in range(most + 1) if sizes[one] <= bound]
                assert message.rate == fitting[-1]
                assert len(serialize_message(message)) == sizes[message.rate] <= bound
    # By hand, the default limit does not stop what is asked for.
    set_value(node, 'max_message_bytes', -1)
    set_value(node, 'rate', 5)
    assert send(1).rate == 5


def test_skipped_frames_are_counted_and_told_of_once(pipeline, stream, probe, capfd):
    node, camera, send = stream
    send(1)
    capfd.readouterr()
    least = min(lengths(pipeline, 1))
    set_value(node, 'max_message_bytes', least - 1)
    probe.insist(
        camera, camera_image(seconds=1),
        lambda: int(node.statistics.values().get('over_budget', 0)) >= 3, 'skipped frames',
    )  # fmt: skip
    values = node.statistics.values()
    assert values['over_budget_message_limit'] == values['over_budget']
    told = [line for line in capfd.readouterr().err.splitlines() if 'skipped a frame' in line]
    (line,) = told
    assert f'max_message_bytes is {least - 1}. Others are counted without a word' in line
    assert 'raise max_message_bytes' in line
    found = {finding.text for finding in node.findings()}
    assert any('skipped over budget' in text for text in found)
    set_value(node, 'max_message_bytes', 0)
    assert send(2).rate == 4


def test_impossible_values_are_refused_at_start(model_directory):
    with (
        pytest.raises(ValueError, match='burst is 7, but the smallest message has'),
        make_node(EdgeNode, model=str(model_directory), burst=7),
    ):
        pass

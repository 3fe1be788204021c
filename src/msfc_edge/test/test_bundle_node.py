"""A node with an edge bundle: the packets of its pipeline, in a process without torch."""

from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

import cv2
from msfc_msgs.msg import CompressedFeature
from sensor_msgs.msg import Image

import locked_imports
from msfc.edge_bundle import read_bundle
from msfc.export_edge import export_edge
from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.graph_network import bundle_pipeline, open_graph
from msfc_edge.edge_node import EdgeNode
from msfc_ros.message_to_image import image_to_bgr
from msfc_ros.messages import packet_from_message
from ros_fixtures import camera_image, make_node

pytestmark = pytest.mark.usefixtures('ros')

SCRIPT = f"""
import sys
import threading

sys.path.insert(0, {str(Path(locked_imports.__file__).parent)!r})
import locked_imports

locked_imports.leave_an_edge()

def tell():
    for _ in sys.stdin:
        found = [name for name in ('torch', 'torchvision', 'msfc.pipeline') if name in sys.modules]
        print('imported:', *found, flush=True)

threading.Thread(target=tell, daemon=True).start()
from msfc_edge.main import main
main()
"""


@pytest.fixture(scope='module')
def bundle_directory(model_directory, tmp_path_factory):
    """Return the bundle of the small model."""
    root = tmp_path_factory.mktemp('bundle')
    (root / 'pictures').mkdir()
    cv2.imwrite(str(root / 'pictures' / 'one.png'), image_to_bgr(camera_image()))
    export_edge(str(model_directory), root / 'bundle', images=root / 'pictures')
    return root / 'bundle'


@pytest.mark.parametrize('backend', ['onnxruntime', 'openvino'])
def test_the_process_is_without_torch(
    backend, bundle_directory, model_directory, start_script, probe, tmp_path
):
    script = tmp_path / 'edge.py'
    script.write_text(SCRIPT)
    node = start_script(script, model=bundle_directory, backend=backend, threads=1)
    features = probe.listen(CompressedFeature, 'features')
    values = probe.diagnostics()
    camera = probe.publisher(Image, 'image_raw')
    image = camera_image()
    probe.insist(camera, image, lambda: features, 'features')
    node.say('now')
    probe.wait(lambda: 'imported:' in node.output, 'its modules')
    (line,) = [line for line in node.output.splitlines() if line.startswith('imported:')]
    assert line == 'imported: msfc.pipeline'

    bundle = read_bundle(bundle_directory)
    edge = bundle_pipeline(bundle, open_graph(bundle, backend, threads=1))
    packet = packet_from_message(features[0])
    assert bytes(packet.data) == edge.encode(image_to_bgr(image)).data
    assert features[0].header == image.header
    CloudPipeline(load_model(model_directory)).decode(packet)
    assert probe.wait(lambda: values('encoding').get('fingerprint'), 'diagnostics') == packet.model
    assert node.stop() == 0


def test_backend_and_model_have_to_fit(model_directory, bundle_directory):
    for model, backend, words in (
        (model_directory, 'openvino', 'run  msfc export-edge'),
        (bundle_directory, 'torch', "runs in onnxruntime or openvino, not in 'torch'"),
    ):
        with make_node(EdgeNode, model=str(model), backend=backend) as node:
            assert not node.start()
            assert words in node.failure
    with (
        pytest.raises(ValueError, match="backend is 'tvm', but has to be one of 'auto', 'torch'"),
        make_node(EdgeNode, backend='tvm'),
    ):
        pass


def test_providers_that_are_not_here(bundle_directory):
    with make_node(EdgeNode, model=str(bundle_directory), providers='magic, cpu') as node:
        assert not node.start()
        assert 'has no provider magicExecutionProvider here' in node.failure
    with make_node(EdgeNode, model=str(bundle_directory), providers='cpu') as node:
        assert node.start()
        assert node.hardware.endswith(', CPU')
        node.stop()


def test_a_damaged_bundle(bundle_directory, tmp_path):
    (tmp_path / 'edge.json').write_text('{}')
    with make_node(EdgeNode, model=str(tmp_path)) as node:
        assert not node.start()
        assert 'does not describe an edge bundle' in node.failure

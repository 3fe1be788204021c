"""What holds for the parameters of every node."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

import yaml
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from msfc_cloud.camera import OUTPUTS as CLOUD_OUTPUTS
from msfc_cloud.cloud_node import CloudNode
from msfc_depth.depth_node import OUTPUTS as DEPTH_OUTPUTS
from msfc_depth.depth_node import DepthNode
from msfc_depth.output_messages import POINT
from msfc_edge.edge_node import EdgeNode
from msfc_sim.camera_node import CameraNode
from msfc_sim.clip_player import ClipPlayer
from ros_fixtures import make_node

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / 'launch' / 'config'

CHANGEABLE = (
    'adaptive', 'burst', 'classes', 'depth_gap', 'erode', 'key_interval', 'link_budget',
    'marker_lifetime', 'masks', 'max_age', 'max_depth', 'max_instances', 'max_message_bytes',
    'max_points', 'max_rate', 'max_stamp_difference', 'min_area', 'min_depth', 'min_points',
    'min_score', 'overlay', 'rate', 'score_threshold', 'target_bitrate', 'track.enabled',
    'track.high_score', 'track.low_score', 'track.max_age', 'track.min_hits', 'track.min_iou',
    'track.new_score', 'trim', 'vertical',
)  # fmt: skip

NEEDS_RERUN = pytest.mark.skipif(
    find_spec('rerun') is None,
    reason='rerun-sdk is not installed: python -m pip install rerun-sdk',
)

SHOWN_BY = {
    'Image': {Image, CameraInfo},
    '3D': {MarkerArray, PointCloud2, CameraInfo},
    'Plot': {DiagnosticArray},
    'DiagnosticSummary': {DiagnosticArray},
}
"""Foxglove's panels, and which of the messages of these nodes each shows."""

NOT_OURS = ('use_sim_time', 'start_type_description_service', 'qos_overrides')

pytestmark = pytest.mark.usefixtures('ros')


def flatten(tree, prefix=''):
    """Return the leaves of nested dictionaries by dotted name."""
    leaves = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves.update(flatten(value, f'{prefix}{key}.'))
        else:
            leaves[prefix + key] = value
    return leaves


def own_parameters(node_type):
    """Return descriptor and default of a node's own parameters, by name."""
    with make_node(node_type) as node:
        names = [n for n in node.list_parameters([], 0).names if not n.startswith(NOT_OURS)]
        descriptors = node.describe_parameters(names)
        return {
            name: (descriptor, node.get_parameter(name).value)
            for name, descriptor in zip(names, descriptors, strict=True)
        }


@pytest.mark.parametrize(
    ('file', 'node_types'),
    [
        ('edge.yaml', [EdgeNode]),
        ('cloud.yaml', [CloudNode]),
        ('camera.yaml', [CameraNode, ClipPlayer]),
        ('depth.yaml', [DepthNode]),
        pytest.param('viewer.yaml', ['msfc_viewer'], marks=NEEDS_RERUN),
    ],
)
def test_file_has_all_parameters_with_their_defaults(file, node_types):
    if node_types == ['msfc_viewer']:
        from msfc_viewer.viewer_node import ViewerNode

        node_types = [ViewerNode]
    in_file = flatten(yaml.safe_load((CONFIG / file).read_text())['/**']['ros__parameters'])
    defaults = {}
    for node_type in node_types:
        defaults.update(
            {name: value for name, (_, value) in own_parameters(node_type).items()}
        )
    assert defaults == in_file


@pytest.mark.parametrize(
    ('name', 'node_type'), [('msfc_edge', EdgeNode), ('msfc_cloud', CloudNode)]
)
def test_reference_has_all_parameters_and_no_others(name, node_type):
    section = (ROOT / 'docs' / 'nodes.md').read_text().split(f'## {name}\n')[1]
    table = section.partition('### Parameters\n')[2].partition('\n## ')[0]
    rows = [row.split('|') for row in table.splitlines() if row.startswith('| `')]
    named = {name: row[3].strip() for row in rows for name in re.findall(r'`([\w.*]+)`', row[1])}
    declared = {re.sub(r'^qos\..*', 'qos.*', name) for name in own_parameters(node_type)}
    assert set(named) == declared
    live = {name for name, cell in named.items() if cell in ('yes', f'`{name}`')}
    assert live == declared & set(CHANGEABLE)


@pytest.mark.parametrize('node_type', [EdgeNode, CloudNode, DepthNode, CameraNode, ClipPlayer])
def test_parameters_are_described_and_ranged(node_type):
    for name, (descriptor, value) in own_parameters(node_type).items():
        assert descriptor.description.endswith('.'), name
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert descriptor.integer_range or descriptor.floating_point_range, name
        assert descriptor.read_only or name in CHANGEABLE, name


@pytest.mark.parametrize('node_type', [EdgeNode, CloudNode])
@pytest.mark.parametrize(
    ('parameters', 'words'),
    [
        ({'model': 'no_such_model'}, "'no_such_model' is no directory and no shipped model"),
        ({'device': 'abacus'}, "parameter device is 'abacus', which is no device"),
        ({'device': 'cuda:99'}, "parameter device is 'cuda:99', but there"),
    ],
)
def test_what_cannot_be_configured(model_directory, capfd, node_type, parameters, words):
    with make_node(node_type, **{'model': str(model_directory), **parameters}) as node:
        assert not node.start()
        assert words in capfd.readouterr().err
        assert not node.start()


@pytest.mark.parametrize('node_type', [EdgeNode, CloudNode])
def test_unknown_reliability(node_type):
    with (
        pytest.raises(ValueError, match=r'qos.features.reliability is .certain.'),
        make_node(node_type, qos__features__reliability='certain'),
    ):
        pass


def test_viewer_asks_for_pictures_reliably():
    """Best effort most of them are lost."""
    viewer = yaml.safe_load((CONFIG.parent / 'rviz' / 'msfc.rviz').read_text())
    displays = viewer['Visualization Manager']['Displays']
    assert {display['Topic']['Reliability Policy'] for display in displays} == {'Reliable'}


def test_layout_of_foxglove_has_topics_that_there_are():
    layout = json.loads((CONFIG.parent / 'foxglove' / 'msfc.json').read_text())
    published = {
        'image_raw': Image, 'camera_info': CameraInfo, 'diagnostics': DiagnosticArray,
        **CLOUD_OUTPUTS, **DEPTH_OUTPUTS,
    }  # fmt: skip
    shown = {}
    for name, panel in layout['configById'].items():
        found = {topic: published[topic[1:]] for topic in topics_of(panel)}
        assert found, name
        assert set(found.values()) <= SHOWN_BY[name.partition('!')[0]], name
        shown |= found
    assert {'/image_raw', '/overlay', '/object_markers', '/object_points'} <= shown.keys()
    # Every panel has a place, and every place a panel.
    placed = re.findall(r'"(\w+!\w+)"', json.dumps(layout['layout']))
    assert sorted(placed) == sorted(layout['configById'])
    assert_nodes_say_what_is_plotted(json.dumps(layout))
    points = layout['configById']['3D!objects']['topics']['/object_points']
    assert points['colorField'] in POINT.names


def topics_of(panel):
    """Return the topics that a panel of Foxglove shows."""
    return {*re.findall(r'"(/\w+)', json.dumps(panel))}


def assert_nodes_say_what_is_plotted(text):
    """Check that there are nodes and values of the diagnostics with the plotted names."""
    table = (ROOT / 'docs' / 'diagnostics.md').read_text()
    paths = re.findall(r"name=='(\w+): (\w+)'}.values\[:\]{key=='(\w+)'}.value", text)
    assert len(paths) == text.count('/diagnostics.status')
    for node, task, key in paths:
        (named,) = [kind for kind in (EdgeNode, CloudNode, DepthNode) if kind_name(kind) == node]
        with make_node(named) as made:
            assert made._task == task
        assert re.search(rf'^\| .*`{key}`', table, re.MULTILINE), key


def kind_name(node_type):
    with make_node(node_type) as node:
        return node.get_name()

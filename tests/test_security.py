"""Access: the SROS2 policy against the nodes as they are, and the pair with security on."""

import json
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import InstanceArray
from rclpy.utilities import get_rmw_implementation_identifier
from visualization_msgs.msg import MarkerArray

from msfc_cloud.detections import Detection2DArray
from msfc_edge.keys import Trigger
from ros_fixtures import TIMEOUT
from security_policy import (
    POLICY,
    VIEWER_POLICY,
    Right,
    dds_topics,
    policy_text,
    rights,
    used_rights,
)

NAMESPACE = '/robot1'

NODES = {
    'msfc_edge': ('msfc_edge', 'edge_node'),
    'msfc_cloud': ('msfc_cloud', 'cloud_node'),
    'msfc_depth': ('msfc_depth', 'depth_node'),
    'msfc_sim': ('clip_player', 'clip_player'),
    'msfc_viewer': ('msfc_viewer', 'viewer_node'),
}
"""Name of the node and its executable, by package."""

PLANNER = Path(__file__).parent / 'security_planner.py'

EVERY_NODE = {'/rosout', '/parameter_events', '/diagnostics'}
"""Topics that more than one node may publish."""

NEEDS_RERUN = pytest.mark.skipif(
    find_spec('rerun') is None,
    reason='rerun-sdk is not installed: python -m pip install rerun-sdk',
)

NOT_BUILT = (
    "doesn't have the security libraries",  # Fast DDS
    'does not have security support',  # Cyclone DDS
)
"""Parts of what a middleware says that was built without security."""


# -- the policy, without a middleware --


def test_nodes_of_the_pair_have_an_enclave_each():
    assert {enclave for enclave, _ in rights(policy_text())} == {
        '/msfc_edge', '/msfc_cloud', '/msfc_depth', '/msfc_sim', '/msfc_planner', '/msfc_operator',
    }  # fmt: skip


def test_every_topic_has_one_publisher():
    publishers = {}
    for (enclave, _), granted in rights(policy_text()).items():
        for action, name in granted:
            if action == 'publish' and name not in EVERY_NODE:
                publishers.setdefault(name, set()).add(enclave)
    assert all(len(enclaves) == 1 for enclaves in publishers.values())
    assert publishers['/features'] == {'/msfc_edge'}
    assert publishers['/instances'] == {'/msfc_cloud'}
    assert publishers['/link_report'] == {'/msfc_cloud'}
    assert publishers['/image_raw'] == {'/msfc_sim'}
    assert '/clock' not in publishers


def test_pictures_stay_on_the_robot():
    readers = {
        enclave
        for (enclave, _), granted in rights(policy_text()).items()
        if Right('subscribe', '/image_raw') in granted
    }
    assert readers == {'/msfc_edge'}


def test_the_viewer_only_looks():
    ((key, granted),) = rights(policy_text(policy=VIEWER_POLICY)).items()
    assert key == ('/msfc_viewer', 'msfc_viewer')
    published = {name for action, name in granted if action == 'publish'}
    assert published == {*EVERY_NODE, '/msfc_viewer/transition_event'}
    assert not [name for action, name in granted if action == 'request']
    assert {Right('subscribe', f'/{name}') for name in ('image_raw', 'features')} <= granted


def test_only_the_operator_requests():
    requests = {
        enclave: {name for action, name in granted if action == 'request'}
        for (enclave, _), granted in rights(policy_text()).items()
    }
    served = {
        name
        for (enclave, _), granted in rights(policy_text()).items()
        if enclave in ('/msfc_edge', '/msfc_cloud', '/msfc_depth')
        for action, name in granted
        if action == 'reply' and not name.endswith('/get_type_description')
    }
    assert requests.pop('/msfc_operator') == served
    assert not any(requests.values())


def test_no_wildcards():
    names = {
        name for granted in rights(policy_text()).values() for _, name in granted if '*' in name
    }
    # The commands' nodes have the number of their process in their names.
    assert names == {'/_ros2cli_*/get_type_description'}


def test_both_cameras_have_the_same_rights():
    of_node = rights(policy_text())
    clip, live = (
        {Right(action, name.replace(node, 'NODE')) for action, name in of_node['/msfc_sim', node]}
        for node in ('clip_player', 'camera_node')
    )
    depth = {Right('publish', f'/depth/{name}') for name in ('image', 'camera_info')}
    assert clip == live - depth
    assert depth <= live


def test_another_namespace():
    granted = rights(policy_text(NAMESPACE))
    edge = granted['/robot1/msfc_edge', 'msfc_edge']
    assert Right('publish', '/robot1/features') in edge
    assert Right('reply', '/robot1/msfc_edge/change_state') in edge
    assert Right('publish', '/diagnostics') in edge
    assert not any(name == '/features' for _, name in edge)


# -- the policy against the nodes --


@pytest.mark.parametrize(
    'package', [pytest.param(p, marks=NEEDS_RERUN if p == 'msfc_viewer' else ()) for p in NODES]
)
def test_a_node_may_do_what_it_does_and_no_more(
    package, probe, start_node, model_directory, tmp_path
):
    node, executable = NODES[package]
    policy = VIEWER_POLICY if package == 'msfc_viewer' else POLICY
    granted = rights(policy_text(NAMESPACE, policy))[f'{NAMESPACE}/{package}', node]
    # Subscribed only with simulated time, which can be switched on while the node runs.
    parameters = {'use_sim_time': True}
    if package == 'msfc_sim':
        # Only then it reads what came of the last frame.
        parameters['rate'] = 0.0
    elif package == 'msfc_viewer':
        parameters.update(show='none', record=tmp_path / 'run.rrd')
    elif package != 'msfc_depth':
        parameters['model'] = model_directory
    if package == 'msfc_edge':
        # Only then it reads what the cloud reports.
        parameters['adaptive'] = True
        if Trigger is None:
            # Offered only where std_srvs is installed.
            granted -= {Right('reply', f'{NAMESPACE}/msfc_edge/request_keyframe')}
    if Trigger is None:
        granted -= {Right('reply', f'{NAMESPACE}/{package}/enable')}
    if Detection2DArray is None:
        # Published only where vision_msgs is installed.
        granted -= {Right('publish', f'{NAMESPACE}/{n}') for n in ('detections', 'detections_3d')}
    # Published only where the model has such a head.
    granted -= {Right('publish', f'{NAMESPACE}/{n}') for n in ('semantic', 'semantic_info')}
    if package == 'msfc_depth':
        # Only then it subscribes.
        probe.listen(MarkerArray, f'{NAMESPACE}/object_markers')
    start_node(package, executable, '--ros-args', '-r', f'__ns:={NAMESPACE}', **parameters)
    there = (node, NAMESPACE)
    probe.wait(lambda: there in probe.node.get_node_names_and_namespaces(), f'node {node}')

    def used():
        return used_rights(probe.node, NAMESPACE, node)

    end = time.monotonic() + TIMEOUT
    while used() != granted and time.monotonic() < end:
        probe.spin(0.5)
    # What is created late would be too much.
    probe.spin(2.0)
    assert used() == granted


# -- what ROS 2 makes of it --


needs_sros2 = pytest.mark.skipif(
    find_spec('sros2') is None or shutil.which('ros2') is None,
    reason="ROS 2's sros2 is not installed: it is not on PyPI",
)


def built_without_security():
    """Return whether a library of the middleware has what only one without security says."""
    get_rmw_implementation_identifier()  # loads it
    mapped = Path('/proc/self/maps').read_text().split()
    libraries = {Path(word) for word in mapped if '/librmw_' in word}
    assert libraries
    return any(
        sentence.encode() in library.read_bytes()
        for library in libraries
        for sentence in NOT_BUILT
    )


needs_security = pytest.mark.skipif(
    built_without_security(), reason='the middleware here was built without security'
)


@pytest.fixture
def keystore(ros_environment, tmp_path):
    """Make keys and permissions as docs/security.md says; return their folder."""
    folder = tmp_path / 'keystore'
    for arguments in (
        ['create_keystore', folder],
        ['generate_artifacts', '-k', folder, '-p', POLICY, VIEWER_POLICY],
    ):
        subprocess.run(['ros2', 'security', *arguments], check=True, timeout=TIMEOUT)
    return folder


@needs_sros2
def test_sros2_makes_exactly_these_permissions(keystore, ros_environment):
    both = rights(policy_text()) | rights(policy_text(policy=VIEWER_POLICY))
    for (enclave, _), granted in merged(both).items():
        file = keystore / 'enclaves' / enclave.lstrip('/') / 'permissions.xml'
        (grant,) = ElementTree.parse(file).findall('permissions/grant')
        assert grant.findtext('subject_name') == f'CN={enclave}'
        assert grant.findtext('default') == 'DENY'
        assert not grant.findall('deny_rule')
        domains = {item.text for item in grant.findall('allow_rule/domains/id')}
        assert domains == {ros_environment['ROS_DOMAIN_ID']}
        written, read = (
            {item.text for item in grant.findall(f'allow_rule/{action}/topics/topic')}
            for action in ('publish', 'subscribe')
        )
        assert (written, read) == dds_topics(granted)


def merged(of_nodes):
    """Return the rights of all nodes of an enclave together, as a process has them."""
    together = {}
    for (enclave, _), granted in of_nodes.items():
        together[enclave, ''] = together.get((enclave, ''), set()) | granted
    return together


# -- security switched on --


def switch_on(monkeypatch, keystore):
    monkeypatch.setenv('ROS_SECURITY_ENABLE', 'true')
    monkeypatch.setenv('ROS_SECURITY_STRATEGY', 'Enforce')
    monkeypatch.setenv('ROS_SECURITY_KEYSTORE', str(keystore))


@pytest.fixture
def security_on(ros, keystore, monkeypatch):
    """Switch security on for processes started from now on; this one stays outside."""
    switch_on(monkeypatch, keystore)
    result = subprocess.run(
        [
            sys.executable, '-c', 'import rclpy; rclpy.init(); rclpy.create_node("msfc_planner")',
            '--ros-args', '--enclave', '/msfc_planner',
        ],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def start_pair(start_node, model_directory):
    """Return a function that starts both nodes and a camera, each in its enclave."""

    def start():
        for package, (_, executable) in NODES.items():
            if package in ('msfc_depth', 'msfc_viewer'):
                continue
            parameters = {'rate': 2.0} if package == 'msfc_sim' else {'model': model_directory}
            start_node(package, executable, '--ros-args', '-e', f'/{package}', **parameters)

    return start


@pytest.mark.parametrize(
    'secured',
    [
        pytest.param(False, id='open'),
        pytest.param(True, id='secured', marks=[needs_sros2, needs_security]),
    ],
)
def test_pair(secured, request, probe, start_pair):
    if secured:
        request.getfixturevalue('security_on')
    overheard = probe.listen(InstanceArray, '/instances')
    start_pair()
    planner = subprocess.Popen(
        [sys.executable, str(PLANNER), '--ros-args', '-e', '/msfc_planner'],
        stdout=subprocess.PIPE,
        text=True,
    )
    # Who is inside gets results; who has no keys neither reads them nor sees the nodes.
    try:
        probe.wait(lambda: planner.poll() is not None, 'the planner')
    finally:
        planner.kill()
        said = planner.communicate()[0]
    assert planner.returncode == 0
    got = json.loads(said)
    assert got['instances']
    assert got['label_info']
    # The control for what follows is the open pair.
    assert got['may_publish_features'] == (not secured)
    if not secured:
        probe.wait(lambda: overheard, 'instances')
    probe.spin(2.0)
    assert bool(overheard) == (not secured)
    assert ({'msfc_edge', 'msfc_cloud'} <= set(probe.node.get_node_names())) == (not secured)


@needs_sros2
@needs_security
def test_a_node_does_not_start_with_rights_of_another(security_on, start_node, model_directory):
    arguments = ('--ros-args', '-e', '/msfc_planner')
    process = start_node('msfc_edge', 'edge_node', *arguments, model=model_directory)
    assert process.wait() == 1
    assert 'cannot start' in process.output


@pytest.mark.parametrize('enclave', ['missing', 'empty'])
def test_a_node_does_not_start_without_keys(
    enclave, monkeypatch, start_node, tmp_path, model_directory
):
    folder = tmp_path / 'keystore' / 'enclaves'
    folder.mkdir(parents=True)
    if enclave == 'empty':
        (folder / 'msfc_edge').mkdir()
    switch_on(monkeypatch, folder.parent)
    arguments = ('--ros-args', '-e', '/msfc_edge')
    process = start_node('msfc_edge', 'edge_node', *arguments, model=model_directory)
    assert process.wait() == 1
    assert 'cannot start' in process.output
    reasons = ('does not exist',) if enclave == 'missing' else (*NOT_BUILT, 'security files')
    assert any(reason in process.output for reason in reasons)


def test_a_node_does_not_start_unprotected_by_a_misspelling(
    monkeypatch, start_node, tmp_path, model_directory
):
    switch_on(monkeypatch, tmp_path)
    monkeypatch.setenv('ROS_SECURITY_ENABLE', '1')
    process = start_node('msfc_edge', 'edge_node', model=model_directory)
    assert process.wait() == 1
    assert "ROS_SECURITY_ENABLE is '1'" in process.output

"""Reads the SROS2 policy: which node may do what, in full names."""

from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

POLICY = Path(__file__).parent.parent / 'launch' / 'security' / 'msfc.policy.xml'

VIEWER_POLICY = POLICY.with_name('viewer.policy.xml')

KINDS = {'topics': ('publish', 'subscribe'), 'services': ('reply', 'request')}


class Right(NamedTuple):
    """What may be done with what."""

    action: str
    name: str


def policy_text(namespace='/', policy=POLICY):
    """Return a policy for a namespace, made as docs/security.md says."""
    text = policy.read_text()
    if namespace == '/':
        return text
    return text.replace('path="/', f'path="{namespace}/').replace('ns="/"', f'ns="{namespace}"')


def rights(text):
    """Return the rights that a policy gives, by enclave and node.

    Raises:
        AssertionError: if it has something that this does not understand.
    """
    policy = ElementTree.fromstring(text)
    found = {}
    for enclave in policy.findall('enclaves/enclave'):
        for profile in enclave.findall('profiles/profile'):
            namespace, node = profile.attrib['ns'], profile.attrib['node']
            of_node = found.setdefault((enclave.attrib['path'], node), set())
            for group in profile:
                for action, rule in group.attrib.items():
                    assert action in KINDS[group.tag], f'{group.tag} cannot {action}'
                    assert rule == 'ALLOW', f'{group.tag} {rule}'
                    of_node |= {
                        Right(action, full_name(namespace, node, item.text)) for item in group
                    }
    return found


def full_name(namespace, node, name):
    """Return a name as it is on the graph."""
    base = namespace.rstrip('/')
    if name.startswith('~'):
        return f'{base}/{node}{name[1:]}'
    return name if name.startswith('/') else f'{base}/{name}'


def used_rights(observer, namespace, node):
    """Return the rights that a running node makes use of, as another one sees its endpoints."""
    endpoints = {
        'publish': observer.get_publisher_names_and_types_by_node,
        'subscribe': observer.get_subscriber_names_and_types_by_node,
        'reply': observer.get_service_names_and_types_by_node,
        'request': observer.get_client_names_and_types_by_node,
    }
    return {
        Right(action, name)
        for action, names in endpoints.items()
        for name, _ in names(node, namespace)
    }


def dds_topics(granted):
    """Return the DDS topics that SROS2 makes of rights: what is written, what is read.

    Source: design.ros2.org, "Topic and Service name mapping to DDS".
    """
    written, read = {'ros_discovery_info'}, {'ros_discovery_info'}
    for action, name in granted:
        if action in ('publish', 'subscribe'):
            (written if action == 'publish' else read).add(f'rt{name}')
        else:
            (written if action == 'request' else read).add(f'rq{name}Request')
            (read if action == 'request' else written).add(f'rr{name}Reply')
    return written, read

"""Checks that hold for every node, called by the tests of its package."""

from pathlib import Path

import pytest
import yaml
from rclpy.parameter import Parameter

CONFIG = Path(__file__).parent.parent / 'src' / 'msfc' / 'config'

CHANGEABLE = ('bit_depth', 'score_threshold', 'max_age')

NOT_OURS = ('use_sim_time', 'start_type_description_service', 'qos_overrides')


def make(node_type, **parameters):
    """Create a node in this process."""
    overrides = [Parameter(name.replace('__', '.'), value=v) for name, v in parameters.items()]
    return node_type(parameter_overrides=overrides)


def own_parameters(node):
    """Return the descriptors of a node's own parameters, by name."""
    names = [n for n in node.list_parameters([], 0).names if not n.startswith(NOT_OURS)]
    return dict(zip(names, node.describe_parameters(names), strict=True))


def flatten(tree, prefix=''):
    """Return the leaves of nested dictionaries by dotted name."""
    leaves = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves.update(flatten(value, f'{prefix}{key}.'))
        else:
            leaves[prefix + key] = value
    return leaves


def check_parameters(file, *node_types):
    """All parameters are described, and a file holds all of them with their defaults."""
    in_file = flatten(yaml.safe_load((CONFIG / file).read_text())['/**']['ros__parameters'])
    defaults = {}
    for node_type in node_types:
        node = make(node_type)
        try:
            descriptors = own_parameters(node)
            defaults.update({name: node.get_parameter(name).value for name in descriptors})
        finally:
            node.destroy_node()
        for name, descriptor in descriptors.items():
            assert descriptor.description.endswith('.'), name
            if isinstance(defaults[name], int | float) and not isinstance(defaults[name], bool):
                assert descriptor.integer_range or descriptor.floating_point_range, name
            assert descriptor.read_only or name in CHANGEABLE, name
    assert defaults == in_file


def check_configure_fails(node_type, capfd, words, **parameters):
    """A node that cannot be configured says why and stays unconfigured."""
    node = make(node_type, **parameters)
    try:
        assert not node.start()
        assert words in capfd.readouterr().err
        assert not node.start()
    finally:
        node.destroy_node()


def check_construction_fails(node_type, words, **parameters):
    """A node whose parameters cannot be says why."""
    with pytest.raises(ValueError, match=words):
        make(node_type, **parameters)

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

import node_checks
from msfc_cloud.cloud_node import CloudNode

pytestmark = pytest.mark.usefixtures('ros')


def test_parameters_are_described_and_in_the_file():
    node_checks.check_parameters('cloud.yaml', CloudNode)


@pytest.mark.parametrize(
    ('parameters', 'words'),
    [
        ({'model': 'no_such_model'}, "'no_such_model' is no directory and no shipped model"),
        ({'channels': 16}, "parameter channels asks for C' = 16, but"),
        ({'device': 'abacus'}, "parameter device is 'abacus', which is no device"),
        ({'device': 'cuda:99'}, "parameter device is 'cuda:99', but there"),
    ],
)
def test_what_cannot_be_configured(model_directory, capfd, parameters, words):
    parameters = {'model': str(model_directory), **parameters}
    node_checks.check_configure_fails(CloudNode, capfd, words, **parameters)


def test_unknown_reliability():
    node_checks.check_construction_fails(
        CloudNode, 'qos.features.reliability is .certain.', qos__features__reliability='certain'
    )

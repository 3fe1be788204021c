"""A cloud node that waits for a line on its standard input before it loads its model."""

import sys

from msfc_cloud.cloud_node import CloudNode
from msfc_ros import model_parameters
from msfc_ros.node import run

load_model = model_parameters.load_model


def load_when_told(*args, **kwargs):
    """Say that a model is to be loaded, wait for a line, load it."""
    print('loading.', flush=True)
    sys.stdin.readline()
    return load_model(*args, **kwargs)


model_parameters.load_model = load_when_told
sys.exit(run(CloudNode))

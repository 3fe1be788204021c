"""A cloud node that waits for a line on its standard input before it loads its model."""

import sys

from msfc import model_file
from msfc_cloud.cloud_node import CloudNode
from msfc_ros.node import run

load_model = model_file.load_model


def load_when_told(*args, **kwargs):
    """Say that a model is to be loaded, wait for a line, load it."""
    print('loading.', flush=True)
    sys.stdin.readline()
    return load_model(*args, **kwargs)


model_file.load_model = load_when_told
sys.exit(run(CloudNode))

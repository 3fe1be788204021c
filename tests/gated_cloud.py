"""A cloud node that waits before each frame for a line on its standard input.

So a test decides how slow the cloud is, by what has happened and not by the clock.
"""

import sys

from msfc.pipeline import CloudPipeline
from msfc_cloud.cloud_node import CloudNode
from msfc_ros.node import run

decode = CloudPipeline.decode


def decode_when_told(self, packet):
    """Say which frame is at work, wait for a line, decode it."""
    print(f'decoding {packet.sequence}.', flush=True)
    sys.stdin.readline()
    return decode(self, packet)


CloudPipeline.decode = decode_when_told
sys.exit(run(CloudNode))

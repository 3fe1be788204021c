"""A cloud node that waits before each frame for a line on its standard input.

So a test decides how slow the cloud is, by what has happened and not by the clock.
"""

import sys

from msfc.pipeline import CloudPipeline
from msfc_cloud.cloud_node import CloudNode
from msfc_ros.node import run

decode_batch = CloudPipeline.decode_batch


def decode_when_told(self, packets):
    """Say which frame is at work, wait for a line, decode it."""
    (packet,) = packets
    print(f'decoding {packet.sequence}.', flush=True)
    sys.stdin.readline()
    return decode_batch(self, packets)


CloudPipeline.decode_batch = decode_when_told
sys.exit(run(CloudNode))

"""A cloud node that waits before each frame for a line on its standard input.

So a test decides how slow the cloud is, by what has happened and not by the clock.
"""

import sys
from functools import partial

from msfc.pipeline.cloud import CloudPipeline
from msfc_cloud.cloud_node import CloudNode
from msfc_ros.node import run


class GatedPipeline(CloudPipeline):
    """Decodes when it is told to."""

    def decode_valid(self, packets):
        """Say which frame is at work, wait for a line, decode it."""
        (valid,) = packets
        print(f'decoding {valid.packet.sequence}.', flush=True)
        sys.stdin.readline()
        return super().decode_valid(packets)


sys.exit(run(partial(CloudNode, make_pipeline=GatedPipeline)))

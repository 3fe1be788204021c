"""The executable ``depth_node``."""

from msfc_ros.start import start


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    start('msfc_depth.depth_node', 'DepthNode', uses_torch=False)

"""The executable ``viewer_node``."""

from msfc_ros.start import start


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    start('msfc_viewer.viewer_node', 'ViewerNode', uses_torch=False)

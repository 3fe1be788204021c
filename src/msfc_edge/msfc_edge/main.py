"""The executable ``edge_node``."""

from msfc_ros.start import start


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    start('msfc_edge.edge_node', 'EdgeNode', uses_torch=False)

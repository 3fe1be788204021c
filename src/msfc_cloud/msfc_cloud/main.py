"""The executable ``cloud_node``."""

from msfc_ros.start import start


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    start('msfc_cloud.cloud_node', 'CloudNode', sends_images=True)

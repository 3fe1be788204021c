"""The node that puts instances into metres, by a depth image registered to the camera."""

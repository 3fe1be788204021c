"""Bags of compressed features, without ROS: reading, writing, inference after the fact.

Bags are rosbag2 folders, as ``ros2 bag`` and ``msfc bag record`` make them; ``rosbags`` reads and
writes them. Reading and writing import no torch, so that a recorder starts at once. See
``docs/bags.md``.
"""

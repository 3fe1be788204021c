"""What the link between edge and cloud takes: reports of the one, estimates of the other.

No ROS, no torch, no clock of its own: times are handed in.
"""

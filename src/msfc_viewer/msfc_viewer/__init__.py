"""A viewer without rviz2: what the pair sends and finds, in Rerun."""

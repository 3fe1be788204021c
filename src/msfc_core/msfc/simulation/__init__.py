"""The simulated tabletop world, free of ROS: scenes, camera model, camera paths, data set."""

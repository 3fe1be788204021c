"""A simulated robot camera over a tabletop: scenes, camera model, data set and live nodes."""

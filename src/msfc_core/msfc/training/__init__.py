"""Three-step training: the detector, the codec in the frozen detector, both end to end."""

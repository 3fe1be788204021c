"""The camera-side node: images in, compressed features out."""

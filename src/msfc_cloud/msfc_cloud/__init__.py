"""The cloud-side node: compressed features in, instances out."""

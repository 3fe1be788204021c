"""MSFC: multi-scale feature compression for split instance segmentation."""

__version__ = '0.1.0'

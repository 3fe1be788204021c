"""Data sets: images with instance masks, in COCO's format."""

from msfc.data.coco import CocoDataset, Example

__all__ = ['CocoDataset', 'Example']

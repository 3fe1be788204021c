"""Reads OpenImages' official files (V5 to V7) and writes a COCO-format data set.

The files, as they are downloaded, anywhere under one folder:

* ``class-descriptions-boxable.csv``, no heading: class id (``/m/...``), name;
* ``<split>-annotations-object-segmentation.csv``: ``MaskPath, ImageID, LabelName, BoxID,
  BoxXMin, BoxXMax, BoxYMin, BoxYMax, ...``, coordinates as shares of the image's sides;
* ``<split>-annotations-bbox.csv``: ``ImageID, Source, LabelName, Confidence, XMin, XMax, YMin,
  YMax, IsOccluded, IsTruncated, IsGroupOf, ...``; may have a prefix such as ``oidv6-``;
* the masks, PNGs of any size with the object not zero, loose or in their ``zip`` files
  (``<split>-masks-<digit>.zip``);
* the images, ``<ImageID>.jpg``.

Objects of the chosen classes that have a box but no mask, and boxes of whole groups, become
``iscrowd`` regions: training leaves them out and evaluation counts them neither for nor against
a detector, since nobody drew their masks.
"""

from msfc.data.openimages.objects import mask_to_rle
from msfc.data.openimages.official_files import PAPER_CLASSES, choose_classes, find_files
from msfc.data.openimages.report import OpenImagesReport
from msfc.data.openimages.writing import PAPER_SIZES, split_images, write_openimages

__all__ = [
    'PAPER_CLASSES',
    'PAPER_SIZES',
    'OpenImagesReport',
    'choose_classes',
    'find_files',
    'mask_to_rle',
    'split_images',
    'write_openimages',
]

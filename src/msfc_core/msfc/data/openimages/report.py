"""What a conversion of OpenImages wrote and what was missing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class OpenImagesReport:
    """What was written and what is missing.

    Attributes:
        classes: names of the classes, by label.
        images: images written, by split.
        objects: objects with a mask written, by split.
        ignored_regions: regions written as ``iscrowd``, by split.
        wanted_images: images asked for, by split.
        images_with_masks: images that have masks of these classes, by the CSV files.
        missing_images: of these, how many have no file here.
        missing_masks: masks of the images written that have no file here.
        unusable_masks: masks that cannot be read, are empty or of another shape than the image.
        unreadable_images: images that cannot be read, or are cut off.
        repeated_rows: rows of the CSV files that say again what another one says, left out.
        missing_list: file that names each of them; None if nothing is missing.
        download_list: file with the images that would make up the sets if all were here and are
            not, in the form that OpenImages' downloader reads; None if there are none.
    """

    classes: list[str]
    images: dict[str, int] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    ignored_regions: dict[str, int] = field(default_factory=dict)
    wanted_images: dict[str, int] = field(default_factory=dict)
    images_with_masks: int = 0
    missing_images: int = 0
    missing_masks: int = 0
    unusable_masks: int = 0
    unreadable_images: int = 0
    repeated_rows: int = 0
    missing_list: str | None = None
    download_list: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-serialisable values."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """Return the report in words."""
        lines = []
        for split, count in self.images.items():
            line = (
                f'{split}: {count:,} images with {self.objects[split]:,} objects and '
                f'{self.ignored_regions[split]:,} ignored regions'
            )
            if count < self.wanted_images[split]:
                line += f' ({self.wanted_images[split]:,} images were asked for)'
            lines.append(line)
        lines.append(
            f'{self.images_with_masks:,} images have masks of the {len(self.classes)} classes; '
            f'{self.missing_images:,} of them are not here'
        )
        for number, what in (
            (self.missing_masks, 'masks are not here'),
            (self.unusable_masks, 'masks are unreadable, empty or of another shape'),
            (self.unreadable_images, 'images cannot be read, or are cut off'),
            (self.repeated_rows, 'rows of the CSV files are repeated, and count once'),
        ):
            if number:
                lines.append(f'{number:,} {what}')
        if self.missing_list:
            lines.append(f'each is named in {self.missing_list}')
        if self.download_list:
            lines.append(
                f'{self.download_list} lists what to download for the whole sets, in the form of '
                "OpenImages' downloader"
            )
        return lines

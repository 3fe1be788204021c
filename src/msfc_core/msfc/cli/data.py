"""The commands ``msfc data ...``: data sets in COCO's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfc.cli.console import Bar, console, print_lines, report_errors, stoppable
from msfc.output import check_output_folder

# The heavy imports (MuJoCo, OpenCV) are in the commands, so that --help answers at once.

data_app = typer.Typer(help='Make data sets.', no_args_is_help=True)


@data_app.command('tabletop')
def data_tabletop(
    output: Annotated[Path, typer.Argument(help='Folder to write the COCO-format data to.')],
    train: Annotated[int, typer.Option(help='Training images.', min=0)] = 3200,
    val: Annotated[int, typer.Option(help='Validation images.', min=0)] = 200,
    test: Annotated[int, typer.Option(help='Test images.', min=0)] = 400,
    empty_train: Annotated[
        int, typer.Option(help='Training images of tables without objects.', min=0)
    ] = 200,
    empty_val: Annotated[
        int, typer.Option(help='Validation images of tables without objects.', min=0)
    ] = 60,
    evening_train: Annotated[
        int, typer.Option(help='Images by lamplight, from a camera that stands low.', min=0)
    ] = 0,
    evening_val: Annotated[int, typer.Option(help='Validation images of these.', min=0)] = 0,
    workers: Annotated[int | None, typer.Option(help='Processes; all cores by default.')] = None,
) -> None:
    """Render the simulated tabletop world (MuJoCo) as a COCO-format data set.

    Resumes an interrupted run. The same numbers give the same data on every machine that
    renders alike.
    """
    with report_errors(), stoppable(output), Bar('rendering') as update:
        from msfc.simulation.dataset import write_dataset

        check_output_folder(output)
        counts = {
            'train': train, 'val': val, 'test': test,
            'empty_train': empty_train, 'empty_val': empty_val,
            'evening_train': evening_train, 'evening_val': evening_val,
        }
        counts = {
            name: count for name, count in counts.items()
            if count or not name.startswith('evening')
        }
        files = write_dataset(output, counts, workers, update)
    for split, path in files.items():
        console.print(f'{split}: {path}')


@data_app.command('semantic')
def data_semantic(
    data: Annotated[Path, typer.Argument(help='Folder that msfc data tabletop wrote.')],
    split: Annotated[
        list[str] | None, typer.Option(help='Split to label; repeatable. train and val if none.')
    ] = None,
    images: Annotated[
        int | None, typer.Option(help='Label the first images of each only.', min=1)
    ] = None,
    workers: Annotated[int | None, typer.Option(help='Processes; all cores by default.')] = None,
) -> None:
    """Write the class of each pixel of a tabletop data set: table, floor, wall or object.

    Renders its scenes again. Resumes an interrupted run.
    """
    with report_errors(), stoppable(data), Bar('rendering') as update:
        from msfc.simulation.labels import write_labels

        check_output_folder(data)
        counts = {
            name: write_labels(data, name, images, workers, update)
            for name in split or ('train', 'val')
        }
    for name, count in counts.items():
        console.print(f'{name}: {count} images with labels')


@data_app.command('openimages')
def data_openimages(
    source: Annotated[Path, typer.Argument(help="Folder with OpenImages' official files.")],
    output: Annotated[Path, typer.Argument(help='Folder to write the COCO-format data to.')],
    classes: Annotated[
        list[str] | None, typer.Option('--class', help='Class by name; repeatable.')
    ] = None,
    most: Annotated[
        int, typer.Option(help='Without --class: this many classes with the most masks.', min=1)
    ] = 80,
    train: Annotated[int, typer.Option(help='Training images; the paper has 176,107.', min=0)] = (
        176_107
    ),
    test: Annotated[int, typer.Option(help='Test images; the paper has 8,746.', min=0)] = 8_746,
    copy: Annotated[bool, typer.Option('--copy', help='Copy images in place of links.')] = False,
    workers: Annotated[int | None, typer.Option(help='Threads; all cores by default.')] = None,
) -> None:
    """Write OpenImages' instance masks as a COCO-format data set.

    Resumes an interrupted run. Says what is missing, names it in missing.csv, and lists in
    download.txt what to download for the whole sets.
    """
    with report_errors(), stoppable(output), Bar('reading masks') as update:
        from msfc.data.openimages import write_openimages

        check_output_folder(output)
        report = write_openimages(
            source, output, classes or (), most, {'train': train, 'test': test}, copy, workers,
            update,
        )
    print_lines(report.sentences())


@data_app.command('coco')
def data_coco(
    annotations: Annotated[Path, typer.Argument(help='Such as instances_val2017.json.')],
    images: Annotated[Path, typer.Argument(help='Its folder of images.')],
    output: Annotated[Path, typer.Argument(help='Folder to write the subset to.')],
    split: Annotated[str | None, typer.Option(help="Its name; the image folder's by default.")]
    = None,
    classes: Annotated[
        list[str] | None, typer.Option('--class', help='Class to keep; repeatable. All if none.')
    ] = None,
    count: Annotated[int | None, typer.Option(help='Images to keep.', min=1)] = None,
    keep_empty: Annotated[
        bool | None,
        typer.Option(help='Keep images without objects; by default if no class is given.'),
    ] = None,
    copy: Annotated[bool, typer.Option('--copy', help='Copy images in place of links.')] = False,
) -> None:
    """Check a COCO data set, and write the sound part of it or a subset.

    Images that are missing, cut off or of another size and annotations that are of no use are left
    out, and named in problems_<split>.csv. Resumes an interrupted run.
    """
    with report_errors(), stoppable(output), Bar('checking images') as update:
        from msfc.data.coco_subset import write_subset

        check_output_folder(output)
        report = write_subset(
            annotations, images, output, split or images.name, classes or (), count, keep_empty,
            copy, update,
        )
    print_lines(report.sentences())

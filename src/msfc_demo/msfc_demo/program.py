"""The demo's program.

Exit status: 0 if all frames were decoded, 1 if a node failed or nothing was decoded, and 128 plus
the number of the signal that stopped it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from rich.console import Console

from msfc.model_file import load_model
from msfc.output import check_output_file, check_output_folder
from msfc_demo.comparison import Reference, find_reference
from msfc_demo.demo import Demo, StoppedError, StopRequest
from msfc_demo.link_course import LinkCourse, plot_course
from msfc_demo.media import write_contact_sheet, write_video
from msfc_demo.metrics import DemoMetrics
from msfc_demo.options import parse_options
from msfc_demo.processes import NodeError
from msfc_demo.two_hosts import HostError


def run(options: argparse.Namespace, console: Console) -> int:
    """Run the demo and return its exit status."""
    stop = StopRequest()
    try:
        check_output_folder(options.output)
        check_viewer(options)
        if options.json:
            check_output_file(options.json)
        model = load_model(options.model)
        reference = find_reference(options.model, model, options.reference)
        demo = Demo(options, model, console, stop)
    except (ValueError, OSError) as error:
        return _fail(console, str(error))
    with demo:
        return _run_and_tell(demo, reference, options, console, stop)


def _run_and_tell(
    demo: Demo,
    reference: Reference,
    options: argparse.Namespace,
    console: Console,
    stop: StopRequest,
) -> int:
    status = 0
    try:
        stop.check()
        demo.run()
        demo.compare(reference)
    except StoppedError as stopped:
        console.print(f'Broken off: {stopped}.')
        status = 128 + stopped.number
    except (NodeError, HostError, ValueError, OSError) as error:
        status = _fail(console, str(error))
    demo.measure()
    figures = demo.figures
    if figures.frames:
        console.print(figures.table(options.frames))
        if demo.unknown_classes:
            names = ', '.join(sorted(demo.unknown_classes))
            console.print(f'no mAP: the model does not have the classes {names}')
        if figures.comparison:
            console.print(figures.comparison.sentence())
        if demo.course:
            console.print(demo.course.table())
    elif not status:
        status = _fail(console, 'no frame was decoded')
    try:
        _write(options, demo, demo.class_names, console)
    except OSError as error:
        status = _fail(console, f'cannot write the results: {error}')
    if not status:
        try:
            demo.keep_showing()
        except NodeError as error:
            status = _fail(console, str(error))
    return status


def check_viewer(options: argparse.Namespace) -> None:
    """Check that what was asked of the viewer can be done.

    Raises:
        ValueError: if Rerun is not here, or the recording cannot be written.
    """
    if not options.view and options.record is None:
        return
    if find_spec('rerun') is None:
        raise ValueError(
            '--view and --record need Rerun, which is not installed: run  '
            f'{sys.executable} -m pip install rerun-sdk'
        )
    if options.record is not None:
        check_output_file(options.record)


def _write(
    options: argparse.Namespace, demo: Demo, class_names: Sequence[str], console: Console
) -> None:
    figures: DemoMetrics = demo.figures
    course: LinkCourse | None = demo.course
    if options.json:
        values = {
            **figures.to_json(),
            'frames_asked': options.frames,
            'camera': 'live' if options.live else 'clip',
            'model': os.fspath(options.model),
            'link': course and course.to_json(),
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(values, indent=2) + '\n')
        console.print(f'figures        {options.json}')
    if options.record:
        console.print(f'recording      {options.record}; to open it: rerun {options.record}')
    if figures.frames:
        sheet = options.output / 'contact_sheet.jpg'
        write_contact_sheet(sheet, figures.frames, class_names)
        console.print(f'contact sheet  {sheet}')
        clip = write_video(options.output, 'camera_and_masks', figures.frames, class_names)
        console.print(f'clip           {clip}')
    if course and course.crossings:
        plot = options.output / 'link.png'
        plot_course(course, plot)
        console.print(f'link           {plot}')


def _fail(console: Console, message: str) -> int:
    console.print('error:', message, style='red', markup=False, highlight=False, soft_wrap=True)
    return 1


def main(args: Sequence[str] | None = None) -> None:
    """Run the demo."""
    sys.exit(run(parse_options(args), Console(highlight=False)))

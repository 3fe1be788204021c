"""The commands ``msfc bag``: info and infer; those that need ROS 2 come from its packages."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfc.cli.console import (
    Bar,
    check_device,
    print_lines,
    print_table,
    report_errors,
    stoppable,
)
from msfc.cli.plugins import PluginGroup
from msfc.output import check_output_file, check_output_folder
from msfc.zoo import DEFAULT_MODEL

if TYPE_CHECKING:
    from msfc.bags.inference import Finder, InferenceReport
    from msfc.bags.summary import BagSummary

# The heavy imports are in the commands, so that --help answers at once.


class BagCommands(PluginGroup):
    """The commands of bags, those of the ROS packages among them."""

    entry_points = 'msfc.bag_commands'
    expected = ('play', 'record')
    missing = (
        'recording and playing need ROS 2, and it is not in this environment ({reason}): run '
        'scripts/setup.sh, then source scripts/env.sh. msfc bag info and msfc bag infer work '
        'without it.'
    )


bag_app = typer.Typer(
    cls=BagCommands, help='Bags of compressed features.', no_args_is_help=True
)

Topics = Annotated[
    list[str] | None,
    typer.Option('--topic', help='Topic of the features; repeatable. All by default.'),
]
Bag = Annotated[Path, typer.Argument(help='rosbag2 folder, or its storage file.')]


@bag_app.command()
def info(
    bag: Bag,
    topic: Topics = None,
    output: Annotated[Path | None, typer.Option('--json', help='Write it here too.')] = None,
) -> None:
    """Show what a bag of compressed features holds, and the space a day of it takes."""
    with report_errors():
        from msfc.bags.reading import FeatureBag
        from msfc.bags.summary import summarize

        if output:
            check_output_file(output)
        with FeatureBag(bag, tuple(topic or ())) as features:
            summary = summarize(features)
        _print_summary(bag, summary)
        if output:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(summary.to_dict(), indent=2) + '\n')


@bag_app.command()
def infer(
    bags: Annotated[
        list[Path], typer.Argument(help='rosbag2 folder, or its storage file; or several.')
    ],
    output: Annotated[
        Path, typer.Argument(help='Bag of instances to make; of several bags the folder for them.')
    ],
    model: Annotated[
        str, typer.Option(help='Model folder or name; the one that the features are for.')
    ] = DEFAULT_MODEL,
    topic: Topics = None,
    score_threshold: Annotated[
        float, typer.Option(help='Leave out instances under this score.', min=0, max=1)
    ] = 0.5,
    device: Annotated[str, typer.Option(help='cpu or cuda.')] = 'cpu',
    max_image_side: Annotated[
        int, typer.Option(help='Longest side of a source image in pixels.', min=1)
    ] = 16384,
    max_image_pixels: Annotated[
        int, typer.Option(help='Pixels of a source image.', min=1)
    ] = 64 * 10**6,
    max_padded_side: Annotated[
        int, typer.Option(help='Longest side of the network input in pixels.', min=1)
    ] = 4096,
    max_payload_bytes: Annotated[
        int, typer.Option(help='Length of a payload in bytes.', min=1)
    ] = 32 * 2**20,
    max_mask_pixels: Annotated[
        int,
        typer.Option(help='Pixels of all masks of an image, a byte each; of more instances the '
                          'surest are kept.', min=1),
    ] = 2**30,
    engine: Annotated[
        str, typer.Option(help='local: in this process; ray: by workers on a Ray cluster.')
    ] = 'local',
    ray_address: Annotated[
        str, typer.Option(help='Head of the cluster, as 10.0.0.2:6379; by default one is started '
                               'on this machine.')
    ] = '',
    workers: Annotated[
        int, typer.Option(help='Workers on Ray; 0: as many as GPUs or cores.', min=0)
    ] = 0,
    gpus: Annotated[
        float, typer.Option(help='Share of a GPU for each worker, with cuda.', min=0.01)
    ] = 1.0,
    batch: Annotated[
        int, typer.Option(help='Images that a worker decodes at once; of more than one the last '
                               'bits of results can differ.', min=1, max=64)
    ] = 1,
) -> None:
    """Find the instances in bags of compressed features, without ROS.

    Resumes an interrupted run. Exits with 1 if a bag cannot be read to its end, when what was
    read is written all the same, or if no message of it could be decoded.
    """
    with report_errors():
        from msfc.bags.inference import find_here, infer_bags
        from msfc.bags.many import infer_many
        from msfc.model_file import load_model
        from msfc.pipeline.cloud import CloudPipeline
        from msfc.wire.packet import DecodeLimits

        check_output_folder(output)
        limits = DecodeLimits(
            max_image_side, max_image_pixels, max_padded_side, max_payload_bytes, max_mask_pixels
        )
        find: Finder = find_here
        if engine == 'ray':
            find = _ray_finder(model, device, workers, gpus, batch, ray_address)
        elif engine != 'local':
            raise ValueError(f'unknown engine {engine!r}: choose local or ray')
        here = check_device(device) if engine == 'local' else 'cpu'
        pipeline = CloudPipeline(load_model(model, here), limits)
        topics = tuple(topic or ())
        with stoppable(output), Bar('messages') as update:
            if len(bags) > 1:
                reports = infer_many(
                    bags, output, pipeline, topics, score_threshold, find, update
                )
            else:
                pairs = [(bags[0], output)]
                made = infer_bags(pairs, pipeline, topics, score_threshold, find, update)
                reports = dict(zip(bags, made, strict=True))
    _print_reports(reports, output)


def _ray_finder(
    model: str, device: str, workers: int, gpus: float, batch: int, address: str
) -> Finder:
    """Return what finds instances on a Ray cluster.

    Raises:
        ValueError: Ray is not installed, or the device unknown.
    """
    missing = [name for name in ('ray', 'pyarrow') if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f'--engine ray needs {" and ".join(missing)}, which this environment lacks: run  '
            "pip install 'ray[data]'"
        )
    if device not in ('cpu', 'cuda'):
        raise ValueError(f'unknown device {device!r}: choose cpu or cuda')
    from msfc.bags.on_ray import RayFinder

    folder = Path(model)
    return RayFinder(
        str(folder.resolve()) if folder.is_dir() else model, device, workers, gpus, batch, address
    )


def _print_reports(reports: dict[Path, InferenceReport], output: Path) -> None:
    """Say what became of bags.

    Raises:
        typer.Exit: with status 1, if something of a bag could not be read, or nothing decoded.
    """
    failures = []
    for bag, report in reports.items():
        several = len(reports) > 1
        of = f'{bag}: ' if several else ''
        where = '' if several else f': {output}'
        lines = [f'{of}{report.decoded} messages decoded{where}']
        if report.taken_over:
            lines.append(f'{of}{report.taken_over} of them were done by a run before')
        for reason, count in report.refused.most_common():
            lines.append(f'{of}{count} refused ({reason}), the first: {report.sentences[reason]}')
        if report.refused['missing_reference']:
            lines.append(
                f'{of}what refers to a key frame that is not before it in the bag, as where a '
                'recording begins between key frames, cannot be decoded'
            )
        print_lines(lines)
        if report.damage:
            failures.append(f'{report.damage}; what could be read was decoded and written')
        elif not report.decoded:
            failures.append(f'{of}no message could be decoded')
    if len(reports) > 1:
        print_lines([f'{len(reports)} bags: {output}'])
    with report_errors():
        if failures:
            raise ValueError('\n'.join(failures))


def _print_summary(bag: Path, summary: BagSummary) -> None:
    rows = []
    lines = []
    for topic in summary.topics:
        per_message = summary.bag_bytes_per_message(topic)
        count = max(topic.messages, 1)
        rows.append((
            topic.topic, str(topic.messages), f'{topic.seconds:.1f}', f'{topic.rate:.2f}',
            f'{topic.payload_bytes / count:.0f}', f'{topic.message_bytes / count:.0f}',
            f'{per_message:.0f}', str(topic.missing), str(topic.unreadable or ''),
        ))
        lines += [f'{topic.topic}: {text}, {n} messages' for text, n in topic.points.items()]
        lines += [f'{topic.topic}: model {text}, {n} messages' for text, n in topic.models.items()]
        if topic.keys or topic.referring:
            lines.append(
                f'{topic.topic}: {topic.keys} key frames, {topic.referring} messages are coded '
                'against one'
            )
        if topic.orphans:
            lines.append(
                f'warning: {topic.topic}: {topic.orphans} messages cannot be decoded: their key '
                'frame is not before them in the bag'
            )
        if topic.rate:
            lines.append(
                f'{topic.topic}: a day takes {summary.bytes_per_day(topic) / 1e6:.0f} MB, the '
                f'space of {summary.raw_seconds_per_day(topic) / 60:.1f} min of its camera '
                'images as they are'
            )
    print_table(
        str(bag),
        ('topic', 'messages', 's', 'Hz', 'payload B', 'message B', 'in bag B', 'missing',
         'unreadable'),
        rows,
    )
    lines += [f'also in it: {topic}, {n} messages' for topic, n in sorted(summary.others.items())]
    if summary.damage:
        lines.append(f'warning: {summary.damage}')
    print_lines(lines)

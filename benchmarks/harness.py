"""What the benchmarks share: command lines, frames, nodes of their own, figures in a file."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from msfc.output import check_output_file

if TYPE_CHECKING:
    from msfc_demo.processes import NodeProcesses

# ROS 2 is imported where it is needed: some benchmarks run without it.

HALVES = ('edge', 'cloud')

Figures = dict[str, Any]


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a command line with ``--json``.

    Args:
        description: the benchmark's docstring, of which the first paragraph is shown.
    """
    parser = argparse.ArgumentParser(description=(description or '').split('\n\n')[0])
    parser.add_argument('--json', type=Path, help='write the figures into this file')
    return parser


def add_node_options(parser: argparse.ArgumentParser, model: str, threads: int = 0) -> None:
    """Add ``--model``, ``--device`` and ``--threads``, as nodes take them.

    Args:
        parser: to add them to.
        model: the default.
        threads: the default; 0 leaves the number to torch.
    """
    parser.add_argument('--model', default=model, help='name or directory')
    parser.add_argument('--device', default='cpu', help='cpu or cuda (default cpu)')
    parser.add_argument(
        '--threads', type=int, default=threads,
        help=f"of torch in each process; 0 is torch's own choice (default {threads})",
    )


def run_benchmark(
    options: argparse.Namespace, run: Callable[[argparse.Namespace, Console], Figures]
) -> Figures | None:
    """Run a benchmark and write its figures to ``--json``; a file that cannot be is told before.

    Args:
        options: of the command line.
        run: returns JSON-serialisable figures.

    Returns:
        The figures; None if there are none, with the reason on the console.
    """
    console = Console()
    try:
        if options.json:
            check_output_file(options.json)
        figures = run(options, console)
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(figures, indent=2) + '\n', encoding='utf-8')
    except (*_node_errors(), ValueError, OSError) as error:
        console.print(
            f'error: {error}', style='red', highlight=False, markup=False, soft_wrap=True
        )
        return None
    return figures


def clip_frames(count: int | None = None) -> list[NDArray[np.uint8]]:
    """Return frames of the shipped clip, H x W x 3 BGR.

    Args:
        count: how many, again from its beginning where it is shorter; all of it once if None.

    Raises:
        ClipError: it cannot be read.
    """
    from msfc_sim.clip import read_clip, shipped_clip

    clip = [frame.decode() for frame in read_clip(shipped_clip())]
    return clip if count is None else [clip[index % len(clip)] for index in range(count)]


def describe_machine() -> Figures:
    """Return what of the machine the figures depend on."""
    return {'cores': os.cpu_count(), 'torch': torch.__version__}


@contextmanager
def ros_session(
    logs: Path | None = None, sends_images: bool = False, **init: Any
) -> Iterator[NodeProcesses]:
    """Join a ROS 2 graph of one's own, in which nodes can be started; end it all on leaving.

    Args:
        logs: folder of the nodes' output; one that is deleted by default.
        sends_images: whether this process is a camera.
        init: arguments of ``rclpy.init``.
    """
    import rclpy

    from msfc_demo.processes import NodeProcesses, private_environment
    from msfc_ros.fast_dds import use_profile
    from msfc_ros.fast_dds_queues import domain_of_environment, queues_released

    with tempfile.TemporaryDirectory() as folder:
        place = logs or Path(folder)
        environment = private_environment(place)
        os.environ.update(environment)
        # This process would hang in sending to a node that was killed.
        released = queues_released(domain_of_environment() or 0)
        with NodeProcesses(place, environment) as processes, released:
            use_profile(sends_images)
            rclpy.init(args=[], **init)
            try:
                yield processes
            finally:
                rclpy.try_shutdown()


def start_half(processes: NodeProcesses, half: str, parameters: dict[str, Any]) -> None:
    """Start ``edge_node`` or ``cloud_node`` with its parameter file.

    Args:
        processes: of the session.
        half: ``edge`` or ``cloud``.
        parameters: in place of the file's.

    Raises:
        NodeError: it cannot be started.
    """
    from ament_index_python.packages import get_package_share_directory

    config = Path(get_package_share_directory('msfc')) / 'config'
    processes.start(half, f'msfc_{half}', f'{half}_node', config / f'{half}.yaml', parameters)


def node_parameters(options: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters that :func:`add_node_options` is for."""
    model = options.model
    return {
        # A folder's name would be another one in another working directory.
        'model': os.path.abspath(model) if os.path.isdir(model) else model,
        'device': options.device,
        'threads': options.threads,
    }


def _node_errors() -> tuple[type[Exception], ...]:
    try:
        from msfc_demo.processes import NodeError
    except ImportError:
        return ()
    return (NodeError,)

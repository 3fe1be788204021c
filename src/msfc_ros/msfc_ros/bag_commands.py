"""The commands ``msfc bag record`` and ``msfc bag play``, which ``msfc`` finds as entry points.

Nothing of ROS is imported before one of them runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfc.cli.bag import Bag, BagCommands, Topics
from msfc.cli.console import console, report_errors
from msfc.output import check_output_folder


def record(
    output: Annotated[Path, typer.Argument(help='Folder to make.')],
    topic: Topics = None,
    frames: Annotated[int, typer.Option(help='End after so many messages.', min=0)] = 0,
    duration: Annotated[float, typer.Option(help='End after so many seconds.', min=0)] = 0.0,
) -> None:
    """Record compressed features from ROS 2 until Ctrl-C, as rosbag2 with MCAP storage.

    Topics that appear later are taken up as they come. A recorder counts as a listener: edges
    that send only on demand begin to work.
    """
    with report_errors():
        try:
            from msfc_ros import bag_recorder
        except ImportError as error:
            raise _without_ros(error) from error
        check_output_folder(output)
        count = bag_recorder.record(output, tuple(topic or ()), frames, duration)
        console.print(f'{count} messages: {output}', highlight=False)


def play(
    bag: Bag,
    topic: Topics = None,
    to: Annotated[
        str, typer.Option(help="Topic to publish on; by default each message's own.")
    ] = '',
    speed: Annotated[float, typer.Option(help='Times as fast as recorded.', min=0.01)] = 1.0,
    rate: Annotated[
        float, typer.Option(help='Messages per second, in place of the recorded times.', min=0)
    ] = 0.0,
    each: Annotated[
        bool, typer.Option('--each', help='Wait for the instances of each before the next.')
    ] = False,
    restamp: Annotated[
        bool, typer.Option('--restamp', help='Stamp the messages with the time of now.')
    ] = False,
    loop: Annotated[bool, typer.Option('--loop', help='Begin again at the end.')] = False,
    wait: Annotated[
        float, typer.Option(help='Seconds to wait for a subscriber at most.', min=0)
    ] = 30.0,
) -> None:
    """Play compressed features from a bag into ROS 2, for a cloud node to decode."""
    with report_errors():
        try:
            from msfc_ros import bag_player
        except ImportError as error:
            raise _without_ros(error) from error
        count = bag_player.play(
            bag, tuple(topic or ()), to, speed, rate, each, restamp, loop, wait
        )
        console.print(f'{count} messages played', highlight=False)


def _without_ros(error: ImportError) -> ImportError:
    """Return what to say where this package is here, but ROS 2 is not."""
    return ImportError(BagCommands.missing.format(reason=error))

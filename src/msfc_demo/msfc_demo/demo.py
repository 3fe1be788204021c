"""One run of the demo: starts the nodes, watches them, ends them, measures."""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import Progress

from msfc.model import SplitModel
from msfc.model_file import DESCRIPTION_FILE
from msfc_demo.accuracy import RunningAccuracy
from msfc_demo.arrangements import (
    Listener,
    Namespaces,
    OneGraph,
    PacedGraph,
    namespaces_obstacle,
)
from msfc_demo.comparison import IMAGES, Reference, compare
from msfc_demo.link_course import LinkCourse
from msfc_demo.metrics import DRAWN_SCORE, DemoMetrics
from msfc_demo.monitor import FrameJoiner, FrameRecord, SentMessage, Stamp, stamp_of
from msfc_demo.options import ANY_RATE
from msfc_demo.processes import NodeError, NodeProcesses, private_environment
from msfc_demo.sample import FrameSample
from msfc_ros.messages import instances_from_message
from msfc_ros.signals import StopSignals
from msfc_viewer.screen import WEB_PORT, has_screen, web_address

START_PATIENCE = 300.0
"""Seconds until all nodes have to be ready."""

FRAME_PATIENCE = 90.0
"""Seconds without a decoded frame after which the demo gives up."""

DIAGNOSTICS_PATIENCE = 2.5
"""Seconds that the cloud gets to tell its last stage times."""

PERIOD = 10
"""Frames between two average precisions and, where the output is no terminal, between lines."""

CLOUD_PARAMETERS: dict[str, object] = {
    # Average precision is measured with the unsure instances too; drawn are the sure ones.
    'score_threshold': 0.05,
}

LIVE_VERTICAL = [0.0, -0.7, -0.7]
"""Up for the live camera, which looks down by 28 to 60 degrees: for boxes, near enough."""

LIVE_SHOT = 20
"""Frames that the live camera takes of a scene, as many as the recorded clip has."""


class StoppedError(Exception):
    """Somebody asked the demo to stop.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f'stopped by {signal.Signals(number).name}')
        self.number = number


class StopRequest:
    """Notes the signals that ask this program to stop, see :mod:`msfc_ros.signals`."""

    def __init__(self) -> None:
        self._number: int | None = None
        StopSignals((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), self._note)

    def _note(self, number: int) -> None:
        self._number = number

    def check(self) -> None:
        """Raise :exc:`StoppedError` if there was one."""
        if self._number is not None:
            raise StoppedError(self._number)


class Demo:
    """One run of the demo.

    Args:
        options: of the command line, see :func:`msfc_demo.options.parse_options`.
        model: that the nodes use.
        console: to write to.
        stop: looked at all the time.

    Attributes:
        figures: what was measured, also of a run that was broken off.
        course: what happened on the link, if there is one.
        class_names: of the model, by label.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        model: SplitModel,
        console: Console,
        stop: StopRequest,
    ) -> None:
        self.figures = DemoMetrics()
        self._options = options
        self._model = model
        self.class_names = model.class_names
        self._console = console
        self._stop = stop
        self._logs: Path = options.output / 'logs'
        self._environment = private_environment(self._logs)
        self._processes = NodeProcesses(self._logs, self._environment)
        self._viewer = NodeProcesses(self._logs, self._environment)
        self._joiner = FrameJoiner(model, options.frames, self._decoded, self._sent)
        self._arrangement: OneGraph | Namespaces = OneGraph(self._environment, not options.rate)
        self.course: LinkCourse | None = None
        self._accuracy = RunningAccuracy(model.class_names)
        self._sample = FrameSample(options.frames, options.compare)
        self._live: Live | None = None
        self._progress = 0.0

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, *error: object) -> None:
        self._viewer.stop()

    def run(self) -> None:
        """Start everything, watch until all frames are decoded, end everything but the viewer.

        Leaving the demo as a context manager ends that as well.

        Raises:
            NodeError: if a node dies, or nothing happens any more.
            HostError: if the hosts of a link fail.
            StoppedError: if a signal came.
        """
        try:
            with self._processes:
                if self._options.link:
                    self._arrange_link()
                self._start_nodes()
                self._watch()
        finally:
            self._arrangement.close()

    def compare(self, reference: Reference) -> None:
        """Measure what some of the frames could have been sent as; the run is over.

        Args:
            reference: whose detector gets the images.

        Raises:
            StoppedError: if a signal came.
        """
        frames = self._sample.frames
        if not frames:
            return
        self._console.print(
            f'Coding {len(frames)} of the frames at every rate, and as {IMAGES} images for '
            f'{reference.name}'
        )
        with Progress(
            *Progress.get_default_columns(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        ) as bar:
            task = bar.add_task('comparing', total=None)

            def show(done: int, total: int) -> None:
                self._stop.check()
                bar.update(task, completed=done, total=total)

            self.figures.comparison = compare(self._model, frames, reference, show)

    def keep_showing(self) -> None:
        """Wait until somebody has seen enough, where that takes a viewer that serves a browser.

        A window stays open by itself, and where no terminal is nobody is waited for.

        Raises:
            NodeError: if the viewer ends.
        """
        if not self._serves_browsers or not self._console.is_terminal:
            return
        self._console.print(f'still shown   {web_address(WEB_PORT)}; Ctrl-C ends', soft_wrap=True)
        with suppress(StoppedError):
            while True:
                self._stop.check()
                self._viewer.check()
                time.sleep(0.1)

    def measure(self) -> None:
        """Take the average precision of all frames so far."""
        self.figures.precision = self._accuracy.compute()

    @property
    def _serves_browsers(self) -> bool:
        return bool(self._options.view) and not has_screen()

    @property
    def unknown_classes(self) -> set[str]:
        """Classes of true objects that the model does not have, so that no precision is taken."""
        return self._accuracy.unknown

    def _arrange_link(self) -> None:
        shape = self._options.link
        why = 'asked for' if self._options.paced else namespaces_obstacle()
        if why:
            self._arrangement = PacedGraph(shape, why, self._environment)
        else:
            self._arrangement = Namespaces(shape, self._environment, self._logs)
        self.course = LinkCourse(shape, self._arrangement.how, self._model.class_names)
        self._console.print(f'Link: {shape}; {self._arrangement.how}')
        self._console.print(adaptation(self._model, self._options.codec_rate))

    def _start_nodes(self) -> None:
        options = self._options
        config = Path(get_package_share_directory('msfc')) / 'config'
        # Absolute, as the nodes write it to their logs; a shipped model stays a name.
        own = os.path.isfile(os.path.join(options.model, DESCRIPTION_FILE))
        model = os.path.abspath(options.model) if own else options.model
        self._console.print(f'Starting camera, edge and cloud; their logs are in {self._logs}/')
        viewed = options.view or options.record is not None
        # The images' subscribers are the edge, this program and the viewer.
        camera: dict[str, object] = {
            'rate': options.rate,
            'wait_for_subscribers': 2 + viewed,
        }
        if options.live:
            camera.update(seed=options.seed, frames_per_scene=LIVE_SHOT)
        if options.depth:
            camera['depth'] = '16UC1'
        if viewed:
            self._start_viewer(config)
        for name, package, executable, parameters in (
            (
                'edge',
                'msfc_edge',
                'edge_node',
                {
                    'model': model,
                    'rate': options.codec_rate,
                    'adaptive': options.link is not None,
                },
            ),
            ('cloud', 'msfc_cloud', 'cloud_node', {'model': model, **CLOUD_PARAMETERS}),
            ('camera', 'msfc_sim', 'camera_node' if options.live else 'clip_player', camera),
        ):
            self._processes.start(
                name,
                package,
                executable,
                config / f'{name}.yaml',
                parameters | self._arrangement.parameters(name),
                self._arrangement.prefix(name),
            )

    def _start_viewer(self, config: Path) -> None:
        options = self._options
        record = '' if options.record is None else os.path.abspath(options.record)
        show = 'auto' if options.view else 'none'
        self._viewer.start(
            'viewer',
            'msfc_viewer',
            'viewer_node',
            config / 'viewer.yaml',
            {
                'show': show,
                'record': record,
                'web_port': WEB_PORT,
                'min_score': DRAWN_SCORE,
            },
        )
        if self._serves_browsers:
            address = web_address(WEB_PORT)
            self._console.print(f'No screen here: open {address} in a browser', soft_wrap=True)
        if options.depth:
            parameters = {'vertical': LIVE_VERTICAL, 'min_score': DRAWN_SCORE}
            self._processes.start(
                'depth', 'msfc_depth', 'depth_node', config / 'depth.yaml', parameters
            )

    def _watch(self) -> None:
        monitor: Listener = self._arrangement.listen(self._joiner)
        joiner = self._joiner

        def spin(until: Callable[[], bool], patience: float) -> bool:
            """Spin until it is so; return False if nothing went on for too long."""
            self._progress = time.monotonic()
            while not until():
                monitor.spin_once(0.1)
                self._note_link()
                self._stop.check()
                self._processes.check()
                self._viewer.check()
                if time.monotonic() - self._progress > patience:
                    return False
            return True

        try:
            if not spin(lambda: not monitor.missing(), START_PATIENCE):
                late = monitor.missing()[0]
                raise NodeError(
                    f'the {late} is not ready after {START_PATIENCE:g} s\n'
                    + self._processes.tail(late)
                )
            with Live(console=self._console, refresh_per_second=4, transient=True) as live:
                # Elsewhere a line now and then takes its place.
                self._live = live if self._console.is_terminal else None
                self._arrangement.narrow()
                monitor.listen_to_camera()
                if not spin(lambda: joiner.complete, FRAME_PATIENCE):
                    raise NodeError(
                        f'no frame was decoded for {FRAME_PATIENCE:g} s\n'
                        + self._processes.tail('edge')
                        + '\n'
                        + self._processes.tail('cloud')
                    )
                spin(lambda: joiner.diagnosed, DIAGNOSTICS_PATIENCE)
        finally:
            self._live = None
            self._note_joiner()
            monitor.close()

    def _note_joiner(self) -> None:
        self.figures.captured, self.figures.sent = self._joiner.captured, self._joiner.sent
        self.figures.cloud_stages = self._joiner.cloud_stages

    def _sent(self, stamp: Stamp, message: SentMessage) -> None:
        if self.course is not None:
            self.course.sent(stamp, message)
            self._arrangement.note_sent(stamp)

    def _note_link(self) -> None:
        if self.course is not None:
            for one in self._arrangement.passed():
                self.course.passed(one.stamp, one.delay)

    def _decoded(self, record: FrameRecord) -> None:
        assert record.found is not None
        assert record.truth is not None
        self._progress = time.monotonic()
        found = instances_from_message(record.found)
        self._accuracy.add(found, record.truth)
        if self.course is not None:
            self.course.decoded(stamp_of(record.found.header), found, record.truth)
        self._sample.offer(record)
        self.figures.add(record)
        self._note_joiner()
        count = len(self.figures.frames)
        if count % PERIOD == 0:
            self.measure()
        if self._live:
            self._live.update(self._display())
        elif count % PERIOD == 0:
            self._console.print(self.figures.line(self._options.frames))

    def _display(self) -> RenderableType:
        return Group(self.figures.table(self._options.frames), self.figures.seen())


def adaptation(model: SplitModel, rate: int) -> str:
    """Return in words what the edge can do about a narrow link.

    Args:
        model: the model.
        rate: of the edge.
    """
    rates = model.require_codec().coder().rates
    if len(rates) == 1 or rate >= 0:
        why = 'its rate is given' if len(rates) > 1 else 'the model has one rate only'
        return f'The edge cannot adapt its messages, as {why}: it can only skip frames'
    if rate != ANY_RATE:
        return 'The edge adapts: it takes the best rate that the link takes, up to its own'
    return f'The edge adapts: it takes the best of {len(rates)} rates that the link takes'

"""What happened on the demo's link: message by message, and in windows of some seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from msfc_msgs.msg import InstanceArray
from rich.table import Table

from msfc.types import Instances
from msfc_demo.accuracy import RunningAccuracy
from msfc_demo.link_shape import LinkShape
from msfc_demo.monitor import SentMessage, Stamp

WINDOW = 5.0
"""Seconds of a window."""


@dataclass
class Crossing:
    """A message of the edge.

    Attributes:
        at: when its image was taken, in seconds since the first one's.
        message_bytes: bytes of the whole message.
        rate: of its features.
        known: whether it is known what became of it.
        delay: seconds on the link; None if it was lost, or not known.
        decoded: whether its instances have come.
    """

    at: float
    message_bytes: int
    rate: int
    known: bool = False
    delay: float | None = None
    decoded: bool = False

    @property
    def lost(self) -> bool:
        """Whether it never arrived whole."""
        return self.known and self.delay is None


@dataclass(frozen=True)
class Window:
    """Some seconds of a run; figures of what was sent in them.

    Attributes:
        begin: in seconds.
        end: in seconds.
        sent: messages of the edge.
        lost: of them, those that did not arrive.
        decoded: of them, those whose instances came.
        message_bytes: mean bytes of a message.
        kbit_s: bits of messages per second, in thousands, sent.
        rate: mean rate.
        delay_ms: median of the one-way delay on the link.
        mask_map: of the decoded frames against their ground truth.
        box_map: the same of boxes.
    """

    begin: float
    end: float
    sent: int
    lost: int
    decoded: int
    message_bytes: float | None
    kbit_s: float
    rate: float | None
    delay_ms: float | None
    mask_map: float | None
    box_map: float | None


class LinkCourse:
    """Collects what happens on a link.

    Args:
        shape: of the link.
        how: what makes it, in words.
        class_names: of the model, for the average precision.
    """

    def __init__(self, shape: LinkShape, how: str, class_names: Sequence[str]) -> None:
        self.shape, self.how = shape, how
        self._names = tuple(class_names)
        self._crossings: dict[Stamp, Crossing] = {}
        self._early: dict[Stamp, float | None] = {}
        self._begin: float | None = None
        self._accuracies: dict[int, RunningAccuracy] = {}

    @property
    def crossings(self) -> list[Crossing]:
        """All messages so far, in the order of their images."""
        return sorted(self._crossings.values(), key=lambda one: one.at)

    def sent(self, stamp: Stamp, message: SentMessage) -> None:
        """Take note of a message of the edge."""
        seconds = stamp[0] + stamp[1] * 1e-9
        if self._begin is None:
            self._begin = seconds
        self._crossings.setdefault(
            stamp, Crossing(seconds - self._begin, message.message_bytes, message.rate)
        )
        if stamp in self._early:
            self.passed(stamp, self._early.pop(stamp))

    def passed(self, stamp: Stamp, delay: float | None) -> None:
        """Take note of what became of a message on the link.

        Args:
            stamp: of its image.
            delay: in seconds; None if it was lost.
        """
        crossing = self._crossings.get(stamp)
        if crossing is None:
            # On a busy machine it may be heard of before the message itself is.
            self._early[stamp] = delay
        elif crossing.delay is None:
            crossing.known, crossing.delay = True, delay

    def decoded(self, stamp: Stamp, found: Instances, truth: InstanceArray) -> None:
        """Take note of what was found in a frame, and of what is there."""
        crossing = self._crossings.get(stamp)
        if crossing is None:
            return
        crossing.decoded = True
        place = int(crossing.at // WINDOW)
        accuracy = self._accuracies.setdefault(place, RunningAccuracy(self._names))
        accuracy.add(found, truth)

    def windows(self) -> list[Window]:
        """Return the windows so far."""
        crossings = self.crossings
        if not crossings:
            return []
        last = crossings[-1].at
        return [
            self._window(place, [c for c in crossings if c.at // WINDOW == place], last)
            for place in range(int(last // WINDOW) + 1)
        ]

    def _window(self, place: int, sent: Sequence[Crossing], last: float) -> Window:
        begin = place * WINDOW
        end = begin + WINDOW
        if end > last and len(sent) > 1:  # a last one that was broken off
            end = last + (last - begin) / (len(sent) - 1)
        delays = [one.delay for one in sent if one.delay is not None]
        accuracy = self._accuracies.get(place)
        precision = accuracy.compute() if accuracy else {}
        return Window(
            begin=begin,
            end=end,
            sent=len(sent),
            lost=sum(one.lost for one in sent),
            decoded=sum(one.decoded for one in sent),
            message_bytes=mean(one.message_bytes for one in sent) if sent else None,
            kbit_s=sum(8 * one.message_bytes for one in sent) / max(end - begin, 1e-9) / 1e3,
            rate=mean(one.rate for one in sent) if sent else None,
            delay_ms=1e3 * median(delays) if delays else None,
            mask_map=_finite(precision.get('mask_map')),
            box_map=_finite(precision.get('box_map')),
        )

    def table(self) -> Table:
        """Return the windows as a table."""
        table = Table(title=f'The link: {self.shape}', caption=self.how)
        # So narrow that the table fits 80 columns.
        for name in ('seconds', 'sent', 'lost', 'decoded', 'bytes', 'kbit/s', 'rate', 'delay ms'):
            table.add_column(name, justify='right')
        table.add_column('mask mAP', justify='right')
        for window in self.windows():
            table.add_row(
                f'{window.begin:.0f}-{window.end:.0f}',
                *(str(count) for count in (window.sent, window.lost, window.decoded)),
                _show(window.message_bytes, '.0f'),
                _show(window.kbit_s, '.1f'),
                _show(window.rate, '.1f'),
                _show(window.delay_ms, '.0f'),
                _show(window.mask_map, '.3f'),
            )
        return table

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON data."""
        return {
            'shape': asdict(self.shape),
            'how': self.how,
            'windows': [asdict(window) for window in self.windows()],
            'messages': [asdict(one) for one in self.crossings],
        }


def plot_course(course: LinkCourse, path: Path) -> None:
    """Draw bytes, one-way delay and mAP over time, below each other.

    Args:
        course: with at least one message.
        path: of the picture; its suffix says what kind.
    """
    from matplotlib import pyplot

    from msfc.evaluation.plots import COLOURS, STYLE

    crossings, windows = course.crossings, course.windows()
    arrived = [one for one in crossings if one.delay is not None]
    lost = [one for one in crossings if one.lost]
    with pyplot.rc_context(STYLE):
        figure, (size, delay, precision) = pyplot.subplots(3, 1, figsize=(6.4, 6.4), sharex=True)
        dots: dict[str, Any] = {'linestyle': 'none', 'marker': '.'}
        size.plot(
            [one.at for one in arrived], [one.message_bytes for one in arrived],
            color=COLOURS[0], label='arrived', **dots,
        )  # fmt: skip
        if lost:
            size.plot(
                [one.at for one in lost], [one.message_bytes for one in lost],
                color=COLOURS[1], linestyle='none', marker='x', label='lost',
            )  # fmt: skip
        size.legend(loc='best')
        delay.plot(
            [one.at for one in arrived], [1e3 * (one.delay or 0.0) for one in arrived],
            color=COLOURS[0], **dots,
        )  # fmt: skip
        for name, values, place in (
            ('mask', [w.mask_map for w in windows], 0),
            ('box', [w.box_map for w in windows], 2),
        ):
            edges = [w.begin for w in windows] + [windows[-1].end]
            heights = [math.nan if value is None else value for value in values]
            precision.stairs(
                heights, edges, baseline=None, color=COLOURS[place], label=name, linewidth=1.6
            )
        precision.legend(loc='best')
        for axis, label in (
            (size, 'bytes of a message'), (delay, 'one-way delay, ms'), (precision, 'mAP'),
        ):  # fmt: skip
            axis.set_ylabel(label)
            highest = axis.dataLim.ymax
            axis.set_ylim(0, 1.1 * highest if math.isfinite(highest) else 1)
        precision.set_ylim(0, 1)
        precision.set_xlabel('seconds')
        size.set_title(str(course.shape))
        figure.savefig(path)
        pyplot.close(figure)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _show(value: float | None, form: str) -> str:
    return '-' if value is None else f'{value:{form}}'

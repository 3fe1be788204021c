"""The demo's figures: collected frame by frame, as a table, as JSON, as a summary."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from msfc_msgs.msg import InstanceArray
from rich.table import Table

from msfc.evaluation.rate_curves import AT_MOST
from msfc_demo.comparison import IMAGES, Comparison
from msfc_demo.monitor import CLOUD_STAGES, EDGE_STAGES, JPEG_QUALITY, FrameRecord, SentMessage

DRAWN_SCORE = 0.5
"""Instances with a lower score count in the average precision, but are not shown."""


TABLE_WIDTH = 76

RAW_RATIO = 'raw_to_message_ratio'
JPEG_RATIO = f'jpeg_q{JPEG_QUALITY}_to_message_ratio'


@dataclass(frozen=True)
class ShownFrame:
    """What is kept of a frame for the pictures.

    Attributes:
        jpeg: the camera's image.
        found: the instances of at least :data:`DRAWN_SCORE`.
        sent: what crossed the link.
    """

    jpeg: bytes
    found: InstanceArray
    sent: SentMessage


class DemoMetrics:
    """Collects the figures of the decoded frames.

    Attributes:
        frames: what is kept of each.
        captured: frames that the camera took.
        sent: frames that the edge sent.
        precision: of what was found so far.
        cloud_stages: mean durations of the cloud's stages in seconds.
        comparison: of some frames with what else they could have been, if that was measured.
    """

    def __init__(self) -> None:
        self.frames: list[ShownFrame] = []
        self.comparison: Comparison | None = None
        self.captured = self.sent = 0
        self.precision: dict[str, float] = {}
        self.cloud_stages: dict[str, float] = {}
        self._raw: list[int] = []
        self._latency: list[float] = []
        self._received: list[int] = []

    def add(self, record: FrameRecord) -> None:
        """Add a frame of which all messages have come."""
        assert record.jpeg is not None
        assert record.found is not None
        assert record.sent is not None
        found = InstanceArray(
            header=record.found.header,
            image_height=record.found.image_height,
            image_width=record.found.image_width,
            instances=[item for item in record.found.instances if item.score >= DRAWN_SCORE],
        )
        self.frames.append(ShownFrame(record.jpeg, found, record.sent))
        self._raw.append(record.raw_bytes)
        self._latency.append(record.latency)
        self._received.append(record.received)

    @property
    def frames_per_second(self) -> float:
        """Decoded frames per second, from the first result to the last."""
        if len(self._received) < 2:
            return math.nan
        seconds = (self._received[-1] - self._received[0]) * 1e-9
        return (len(self._received) - 1) / max(seconds, 1e-9)

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON data; bytes and times are means unless they say otherwise."""
        sent = [frame.sent for frame in self.frames]
        stages = {
            stage: _mean([message.stages[stage] for message in sent]) for stage in EDGE_STAGES
        }
        stages.update({stage: self.cloud_stages.get(stage, math.nan) for stage in CLOUD_STAGES})
        message_bytes = _mean([message.message_bytes for message in sent])
        jpeg_bytes = _mean([len(frame.jpeg) for frame in self.frames])
        raw_bytes = _mean(self._raw)
        return {
            'frames_captured': self.captured,
            'frames_sent': self.sent,
            'frames_decoded': len(self.frames),
            'frames_per_second': _number(self.frames_per_second),
            'payload_bytes_per_frame': _number(_mean([m.payload_bytes for m in sent])),
            'message_bytes_per_frame': _number(message_bytes),
            'raw_bytes_per_frame': _number(raw_bytes),
            f'jpeg_q{JPEG_QUALITY}_bytes_per_frame': _number(jpeg_bytes),
            RAW_RATIO: _number(raw_bytes / message_bytes),
            JPEG_RATIO: _number(jpeg_bytes / message_bytes),
            'payload_bpfe': _number(_mean([m.payload_bpfe for m in sent])),
            'bits_per_pixel': _number(_mean([m.bits_per_pixel for m in sent])),
            'mask_map': _number(self.precision.get('mask_map')),
            'box_map': _number(self.precision.get('box_map')),
            'mask_map50': _number(self.precision.get('mask_map50')),
            'box_map50': _number(self.precision.get('box_map50')),
            'latency_ms': {
                f'p{percent}': _number(1e3 * _percentile(self._latency, percent))
                for percent in (50, 95)
            },
            'stage_ms': {stage: _number(1e3 * value) for stage, value in stages.items()},
            'c_prime': sent[-1].c_prime if sent else None,
            'rate': sent[-1].rate if sent else None,
            'compared': self.comparison and self.comparison.to_json(),
        }

    def table(self, total: int) -> Table:
        """Return the table of the figures so far.

        Args:
            total: frames to come in all.
        """
        figures = self.to_json()
        table = Table(title='Only compressed features cross from edge to cloud', width=TABLE_WIDTH)
        table.add_column()
        table.add_column('last frame', justify='right')
        table.add_column('all frames', justify='right')
        table.add_row('frames decoded', '', f'{len(self.frames)} of {total}')
        table.add_row('frames per second', '', _show(figures['frames_per_second'], '.2f'))
        table.add_section()
        for row in self._size_rows(figures):
            table.add_row(*row)
        table.add_section()
        if self.comparison:
            for row in _comparison_rows(self.comparison):
                table.add_row(*row)
            table.add_section()
        for stages, place in ((EDGE_STAGES, 'edge'), (CLOUD_STAGES, 'cloud')):
            for stage in stages:
                last = self.frames[-1].sent.stages.get(stage) if self.frames else None
                table.add_row(
                    f'{place}: {stage}, ms',
                    _show(last and 1e3 * last, ',.1f'),
                    _show(figures['stage_ms'][stage], ',.1f'),
                )
        latency = figures['latency_ms']
        table.add_row(
            'image taken to instances, ms',
            _show(1e3 * self._latency[-1] if self._latency else None, ',.0f'),
            f'p50 {_show(latency["p50"], ",.0f")}  p95 {_show(latency["p95"], ",.0f")}',
        )
        table.add_section()
        table.add_row('mask mAP against ground truth', '', _show(figures['mask_map'], '.3f'))
        table.add_row('box mAP against ground truth', '', _show(figures['box_map'], '.3f'))
        return table

    def line(self, total: int) -> str:
        """Return the figures so far in one line."""
        figures = self.to_json()
        return (
            f'{len(self.frames):4d} of {total} frames, '
            f'{_show(figures["frames_per_second"], ".2f")} frames/s, '
            f'{_show(figures["message_bytes_per_frame"], ",.0f")} bytes each, '
            f'latency {_show(figures["latency_ms"]["p50"], ",.0f")} ms, '
            f'mask mAP {_show(figures["mask_map"], ".3f")}'
        )

    def seen(self) -> str:
        """Return what is seen in the last frame, in words."""
        if not self.frames:
            return ''
        items = [f'{i.class_name} {i.score:.2f}' for i in self.frames[-1].found.instances]
        return 'sees: ' + (', '.join(items) if items else 'nothing')

    def _size_rows(self, figures: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
        last: dict[str, float] = {}
        if self.frames:
            frame = self.frames[-1]
            last = {
                'payload_bytes_per_frame': frame.sent.payload_bytes,
                'message_bytes_per_frame': frame.sent.message_bytes,
                'payload_bpfe': frame.sent.payload_bpfe,
                'bits_per_pixel': frame.sent.bits_per_pixel,
                RAW_RATIO: self._raw[-1] / frame.sent.message_bytes,
                JPEG_RATIO: len(frame.jpeg) / frame.sent.message_bytes,
            }
        for name, form, key in (
            ('payload, bytes', ',.0f', 'payload_bytes_per_frame'),
            ('whole message, bytes', ',.0f', 'message_bytes_per_frame'),
            ('payload, bits per feature element', '.5f', 'payload_bpfe'),
            ('message, bits per image pixel', '.4f', 'bits_per_pixel'),
            ('raw image : whole message', ',.1f : 1', RAW_RATIO),
            (f'JPEG q{JPEG_QUALITY} : whole message', ',.1f : 1', JPEG_RATIO),
        ):
            yield name, _show(last.get(key), form), _show(figures[key], form)


def _comparison_rows(comparison: Comparison) -> Iterator[tuple[str, str, str]]:
    for rate in comparison.rates:
        yield f'{rate.name}: payload, bytes', '', f'{rate.payload_bytes:,.0f}'
    ratio = comparison.ratio
    if ratio is not None:
        shown = 'not reached' if ratio.ratio is None else f'{ratio.ratio:,.1f} : 1'
        bound = '≤ ' if ratio.status == AT_MOST else ''
        yield f'{IMAGES} : payload, at equal mask mAP', '', bound + shown


def _mean(values: list[Any]) -> float:
    return float(np.mean(values)) if values else math.nan


def _percentile(values: list[float], percent: int) -> float:
    return float(np.percentile(values, percent)) if values else math.nan


def _number(value: float | None) -> float | None:
    """Return what JSON can hold: NaN and missing become None."""
    return None if value is None or not math.isfinite(value) else float(f'{value:.6g}')


def _show(value: float | None, form: str) -> str:
    form, _, unit = form.partition(' ')
    return '-' if value is None else f'{value:{form}} {unit}'.rstrip()

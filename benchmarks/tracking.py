"""Identities over time against the simulator's, at full rate and with frames lost on the way.

Films shots of the moving camera, those of the shipped clip by default, sends each frame through
edge and cloud and follows what the cloud finds, as `msfc_cloud` does with its defaults. Counted,
by the library `trackers` after TrackEval, for the instances that are published:

* IDF1: how many of them have the one identity that fits their object best, over all frames;
* switches: how often an object's identity changes from one frame to the next it is found in.

An object counts where its visible mask has 256 pixels or more; found is what overlaps it by half
(intersection over union of masks). Lost frames are drawn at random, the same in each run, and
taken out between edge and cloud; truth is then that of the frames that came. Also shown is what
following takes of the cloud's time for a frame, in the same process. Needs no ROS 2:

    python benchmarks/tracking.py --json tracking.json
    python benchmarks/tracking.py --scenes 100 101 102 103 --frames 40
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from trackers.eval import (
    aggregate_clear_metrics,
    aggregate_identity_metrics,
    compute_clear_metrics,
    compute_identity_metrics,
)

import harness
from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline
from msfc.pipeline.tracking import InstanceTracker
from msfc.simulation.path import Shot
from msfc.simulation.scene import MIN_MASK_AREA, Frame
from msfc.types import Instances
from msfc.zoo import DEFAULT_MODEL

CLIP_SCENES = (9, 0, 11)
"""Scenes of the shipped clip, of the split ``clip``."""

RATE = 10
"""Frames per second."""

SCORE_THRESHOLD = 0.5
"""Score from which the cloud publishes by default."""


@dataclass(frozen=True)
class Seen:
    """A frame of a shot.

    Attributes:
        found: all instances that the cloud has found, the unsure ones as well.
        truth: what there is.
        seconds: what the cloud took for it.
    """

    found: Instances
    truth: Frame
    seconds: float


class Counts:
    """Identities of a sequence of frames, true and given."""

    def __init__(self) -> None:
        self.truth: list[NDArray[np.int64]] = []
        self.given: list[NDArray[np.int64]] = []
        self.overlaps: list[NDArray[np.float64]] = []

    def add(self, found: Instances, truth: Frame) -> None:
        """Add a frame.

        Args:
            found: what is published, with track ids; those without one count as not found.
            truth: what there is.
        """
        assert found.track_ids is not None
        known = found.select(found.track_ids > 0)
        assert known.track_ids is not None
        large = [mask.sum() >= MIN_MASK_AREA for mask in truth.masks]
        masks = np.array([m for m, ok in zip(truth.masks, large, strict=True) if ok], bool)
        ids = [i for i, ok in zip(truth.identities, large, strict=True) if ok]
        self.truth.append(np.array(ids, np.int64))
        self.given.append(known.track_ids.numpy())
        self.overlaps.append(overlaps(masks, known.masks.numpy()))

    def clear(self) -> dict[str, Any]:
        """Return the CLEAR metrics."""
        return compute_clear_metrics(self.truth, self.given, self.overlaps)

    def identity(self) -> dict[str, Any]:
        """Return the identity metrics."""
        return compute_identity_metrics(self.truth, self.given, self.overlaps)


def overlaps(masks: NDArray[np.bool_], others: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the intersection over union of K and M masks, K x M."""
    if not len(masks) or not len(others):
        return np.zeros((len(masks), len(others)))
    flat, other = (m.reshape(len(m), -1).astype(np.float32) for m in (masks, others))
    common = flat @ other.T
    union = flat.sum(1)[:, None] + other.sum(1)[None] - common
    return (common / np.maximum(union, 1)).astype(np.float64)


def film(model: str, scenes: list[int], count: int, console: Console) -> list[list[Seen]]:
    """Return the frames of shots and what is found in them."""
    loaded = load_model(model)
    edge, cloud = edge_pipeline(loaded), CloudPipeline(loaded)
    shots = []
    for scene in scenes:
        shot, seen = Shot('clip', scene), []
        frames = track(shot.frames(count), f'scene {scene}', count, console=console)
        for number, frame in enumerate(frames):
            packet = edge.encode(cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR), number)
            start = time.perf_counter()
            found = cloud.decode(packet).instances
            seen.append(Seen(found, frame, time.perf_counter() - start))
        shots.append(seen)
    return shots


def follow(shots: list[list[Seen]], loss: float, seed: int) -> tuple[dict[str, Any], list[float]]:
    """Follow the objects of shots, each by a tracker of its own.

    Args:
        shots: what is found in them.
        loss: part of the frames that are lost.
        seed: of which these are.

    Returns:
        The figures, and the seconds that each frame took.
    """
    rng = np.random.default_rng(seed)
    counts, seconds = [], []
    for shot in shots:
        tracker, count = InstanceTracker(), Counts()
        for number, seen in enumerate(shot):
            if rng.random() < loss:
                continue
            stamp = 10**9 + number * 10**9 // RATE
            start = time.perf_counter()
            tracked = tracker.track(seen.found, stamp, seen.truth.image.shape[:2])
            seconds.append(time.perf_counter() - start)
            count.add(tracked.above(SCORE_THRESHOLD), seen.truth)
        counts.append(count)
    clear = aggregate_clear_metrics([count.clear() for count in counts])
    identity = aggregate_identity_metrics([count.identity() for count in counts])
    objects = sum(len(set(np.concatenate(count.truth).tolist())) for count in counts)
    return {
        'IDF1': identity['IDF1'], 'switches': clear['IDSW'], 'MOTA': clear['MOTA'],
        'recall': clear['CLR_Re'], 'precision': clear['CLR_Pr'], 'objects': objects,
        'frames': len(seconds),
    }, seconds  # fmt: skip


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Film once, follow with each loss.

    Raises:
        ValueError: if the model cannot be loaded.
    """
    shots = film(options.model, options.scenes, options.frames, console)
    cloud = statistics.median(seen.seconds for shot in shots for seen in shot)
    columns = ('IDF1', 'switches', 'MOTA', 'recall', 'precision', 'objects', 'frames')
    table = Table(title=f'{options.model}, {len(shots)} shots of {options.frames} frames')
    for column in ('frames lost', *columns):
        table.add_column(column, justify='right')
    results, times = [], []
    for loss in options.loss:
        runs: defaultdict[str, list[float]] = defaultdict(list)
        for seed in range(options.seeds if loss else 1):
            found, seconds = follow(shots, loss, seed)
            times += seconds
            for name, value in found.items():
                runs[name].append(value)
        means = {name: statistics.mean(values) for name, values in runs.items()}
        results.append({'loss': loss, **means})
        table.add_row(f'{loss:.0%}', *(f'{means[name]:.3g}' for name in columns))
    console.print(table)
    share = statistics.median(times) / cloud
    console.print(
        f'following: {statistics.median(times) * 1e3:.2f} ms a frame, {share:.2%} of what the '
        f'cloud takes ({cloud * 1e3:.0f} ms); medians'
    )
    return {
        **harness.describe_machine(), 'model': options.model, 'scenes': options.scenes,
        'frames_per_shot': options.frames, 'seeds': options.seeds, 'share': share,
        'results': results,
    }  # fmt: skip


def main() -> int:
    """Run from the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument('--model', default=DEFAULT_MODEL, help='name or directory')
    parser.add_argument(
        '--scenes', type=int, nargs='+', default=list(CLIP_SCENES),
        help="of the split clip (default: the shipped clip's)",
    )
    parser.add_argument('--frames', type=int, default=20, help='of each shot (default 20)')
    parser.add_argument(
        '--loss', type=float, nargs='+', default=[0.0, 0.3],
        help='parts of the frames that are lost (default 0 0.3)',
    )
    parser.add_argument(
        '--seeds', type=int, default=10, help='draws of the lost frames, averaged (default 10)'
    )
    options = parser.parse_args()
    if options.frames < 2 or options.seeds < 1 or not all(0 <= x < 1 for x in options.loss):
        parser.error('frames at least 2, seeds at least 1, losses from 0 to below 1')
    return 0 if harness.run_benchmark(options, run) else 1


if __name__ == '__main__':
    sys.exit(main())

"""What the codec adds on the robot: its time over that of the backbone, for several models.

In one process, frame by frame in turn, on the frames of the demo's clip:

* the shipped default model or another: ResNet-18, 128 channels, 240 x 320 pixels;
* the paper's sizes with random weights, which take as long as trained ones: ResNet-50, 256
  channels, C' = 64, short edge 800; or, with `--codec learned`, those of the learned codec, whose
  random weights have every symbol written, which is the most that the range coder can take.

Shown are medians in milliseconds and the codec (analysis and all that makes bytes) over the
backbone with its FPN. Needs no ROS 2, and nothing else to do on the machine:

    python benchmarks/codec_cost.py --threads 1 2 --json codec_cost.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

import harness
from msfc.codecs.base import FeatureCodec
from msfc.codecs.learned import LearnedCodec, LearnedConfig
from msfc.codecs.msfc.codec import MSFC, MSFCConfig
from msfc.detectors.torchvision import TorchvisionConfig, TorchvisionDetector
from msfc.model import SplitModel
from msfc.model_file import load_model
from msfc.pipeline.edge import EdgePipeline
from msfc.pipeline.torch_network import edge_pipeline
from msfc.zoo import DEFAULT_MODEL

GOALS = {('msfc', 'demo'): 0.03, ('msfc', 'paper'): 0.03, ('learned', 'demo'): 0.15,
         ('learned', 'paper'): 0.05}  # fmt: skip
"""Of the codec's time over the backbone's."""

WARM_UP = 3
"""Frames before the measurement."""


def paper_model(kind: str) -> SplitModel:
    """Return a model of the paper's sizes with random weights and a codec of some kind."""
    torch.manual_seed(0)
    detector = TorchvisionDetector(TorchvisionConfig(class_names=('thing',), norm='frozen'))
    codec: FeatureCodec
    if kind == 'learned':
        codec = LearnedCodec(LearnedConfig(channels=256))
    else:
        codec = MSFC(MSFCConfig(channels=256, code_channels=64))
    return SplitModel(detector.eval(), codec)


def measure(
    edge: EdgePipeline, frames: list[NDArray[np.uint8]], name: str, console: Console
) -> dict[str, float]:
    """Encode frames; return the medians of the stages in milliseconds, and the ratio."""
    stages: defaultdict[str, list[float]] = defaultdict(list)
    for index, frame in enumerate(track(frames, name, console=console)):
        packet = edge.encode(frame, index)
        if index >= WARM_UP:
            for stage, seconds in packet.durations.items():
                stages[stage].append(seconds * 1e3)
            stages['codec'].append((packet.encode_time + packet.pack_time) * 1e3)
    medians = {stage: statistics.median(values) for stage, values in stages.items()}
    return {**medians, 'codec / backbone': medians['codec'] / medians['backbone']}


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure all models with all numbers of threads.

    Raises:
        ClipError: if the clip cannot be read.
        ValueError: if the model cannot be loaded.
    """
    models = {
        options.model: (load_model(options.model), options.frames),
        "paper's sizes": (paper_model(options.codec), options.paper_frames),
    }
    results = []
    table = Table(title='Edge, medians in milliseconds')
    columns = ('model', 'threads', 'preprocess', 'backbone', 'encode', 'pack', 'codec / backbone')
    for column in columns:
        table.add_column(column, justify='left' if column == 'model' else 'right')
    for name, (model, count) in models.items():
        edge = edge_pipeline(model)
        frames = harness.clip_frames(count + WARM_UP) if count else []
        for threads in options.threads if frames else ():
            torch.set_num_threads(threads)
            found = measure(edge, frames, f'{name}, {threads} threads', console)
            results.append({'model': name, 'threads': threads, 'frames': count, **found})
            table.add_row(
                name, str(threads), *(f'{found[stage]:.2f}' for stage in columns[2:6]),
                f'{found["codec / backbone"]:.4f}',
            )
    console.print(table)
    for result in results:
        named = result['model'] == options.model
        kind = models[options.model][0].require_codec().kind if named else options.codec
        goal = GOALS[kind, 'demo' if named else 'paper']
        verdict = 'met' if result['codec / backbone'] <= goal else 'NOT met'
        console.print(f'{result["model"]}, {result["threads"]} threads: goal {goal:g} {verdict}')
    return {**harness.describe_machine(), 'results': results}


def main() -> int:
    """Run from the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument('--model', default=DEFAULT_MODEL, help='name or directory')
    parser.add_argument('--frames', type=int, default=60, help='of the model (default 60)')
    parser.add_argument(
        '--codec', choices=('msfc', 'learned'), default='msfc',
        help="of the paper's sizes (default msfc)",
    )
    parser.add_argument(
        '--paper-frames', type=int, default=10, help="of the paper's sizes (default 10)"
    )
    parser.add_argument(
        '--threads', type=int, nargs='+', default=[1, 2], help='of torch (default 1 2)'
    )
    options = parser.parse_args()
    if min(options.frames, options.paper_frames) < 0 or min(options.threads) < 1:
        parser.error('frames must be 0 or more, threads at least 1')
    return 0 if harness.run_benchmark(options, run) else 1


if __name__ == '__main__':
    sys.exit(main())

"""What it costs to choose the best rate that fits, over writing one payload at that rate.

In one process, on the codes of the demo clip's frames: for limits at which each of a model's rates
is the best one for about half of the frames, a controller chooses frame by frame, and the chosen
payload is written alone. Shown are how many payloads were written and the ratio of the two times.
Without `--model` it is a learned codec with random weights behind the demo's detector. Needs no
ROS 2:

    python benchmarks/rate_choice.py --json rate_choice.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import harness
from msfc.codecs.learned import LearnedCodec, LearnedConfig
from msfc.model import SplitModel
from msfc.model_file import load_model
from msfc.pipeline.edge import EdgeFrame
from msfc.pipeline.edge_network import EdgeOutput
from msfc.pipeline.rate_control import LEAST_BYTES, Budget, RateController
from msfc.pipeline.stopwatch import Stopwatch
from msfc.pipeline.torch_network import TorchEdgeNetwork
from msfc.wire.coder import PayloadCoder
from msfc.wire.message_size import compressed_feature_bytes

DETECTOR = 'tabletop_detector'
"""What is in front of a codec with random weights."""

MEASURED = ('writes', 'choosing / writing')
"""Figures of the frames that fit: means."""


@dataclass
class Costs:
    """Of all frames at one limit.

    Attributes:
        choosing: seconds to choose, each.
        writing: seconds to write the chosen payload alone, each.
        writes: payloads that were written to choose, each.
        skipped: frames that did not fit at any rate.
    """

    choosing: list[float] = field(default_factory=list)
    writing: list[float] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)
    skipped: int = 0

    def summary(self) -> dict[str, float]:
        """Return what is shown of them; without any frame there is only how many were skipped."""
        if not self.choosing:
            return {'skipped': self.skipped}
        return {
            'skipped': self.skipped,
            'writes': statistics.mean(self.writes),
            'choosing / writing': sum(self.choosing) / sum(self.writing),
        }


def random_model() -> SplitModel:
    """Return a learned codec with random weights behind the demo's detector."""
    torch.manual_seed(0)
    detector = load_model(DETECTOR).detector
    codec = LearnedCodec(LearnedConfig(channels=detector.feature_channels))
    return SplitModel(detector, codec.eval())


def measure(outputs: list[EdgeOutput], coder: PayloadCoder, limit: int) -> Costs:
    """Choose a rate for each code at a limit of the whole message in bytes."""
    costs = Costs()
    controller = RateController(time.monotonic, Budget(limit))
    for output in outputs:
        frame = EdgeFrame(output, output.sizes.source[0], coder, '0' * 16)
        watch = Stopwatch()
        choice = controller.choose(frame, coder.rates)
        seconds = watch.lap()
        if choice.rate is None:
            costs.skipped += 1
            continue
        costs.choosing.append(seconds)
        costs.writes.append(len(frame.written))
        watch.lap()
        coder.write(output.code, choice.rate)
        costs.writing.append(watch.lap())
    return costs


def payload_lengths(outputs: list[EdgeOutput], coder: PayloadCoder) -> dict[int, list[int]]:
    """Return the bytes of all codes' payloads, by rate."""
    return {
        rate: [len(coder.write(output.code, rate)) for output in outputs] for rate in coder.rates
    }


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure at limits between all rates.

    Raises:
        ClipError: if the clip cannot be read.
        ValueError: if the model cannot be loaded, or its payloads have a fixed length.
    """
    torch.set_num_threads(1)
    model = load_model(options.model) if options.model else random_model()
    codec = model.require_codec()
    coder = codec.coder()
    if coder.fixed_length:
        raise ValueError('payloads of this model have a fixed length: choosing writes none')
    network = TorchEdgeNetwork(model)
    frames = harness.clip_frames(options.frames)
    outputs = [network(image) for image in track(frames, 'codes', console=console)]
    lengths = payload_lengths(outputs, coder)
    if isinstance(codec, LearnedCodec) and not options.model:
        # As training notes them.
        cells = outputs[0].code.shape[1] * outputs[0].code.shape[2]
        means = [statistics.mean(lengths[rate]) / cells for rate in coder.rates]
        codec.typical_bytes.copy_(torch.tensor(means))
        coder = codec.coder()
    results = []
    table = Table(title=f'Choosing among {len(coder.rates)} rates, {len(frames)} frames')
    for column in ('limit, bytes', 'skipped', *MEASURED):
        table.add_column(column, justify='right')
    around = compressed_feature_bytes(0, '')
    for rate in track(coder.rates, 'limits', console=console):
        limit = max(around + int(statistics.median(lengths[rate])), LEAST_BYTES)
        found = measure(outputs, coder, limit).summary()
        results.append({'limit': limit, **found})
        figures = (f'{found[name]:.2f}' if name in found else '' for name in MEASURED)
        table.add_row(f'{limit:,}', str(found['skipped']), *figures)
    console.print(table)
    return {**harness.describe_machine(), 'frames': len(frames), 'results': results}


def main() -> int:
    """Run from the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument('--model', help='name or directory of a model with a learned codec')
    parser.add_argument('--frames', type=int, default=20, help='of the clip (default 20)')
    options = parser.parse_args()
    if options.frames < 1:
        parser.error('frames must be at least 1')
    return 0 if harness.run_benchmark(options, run) else 1


if __name__ == '__main__':
    sys.exit(main())

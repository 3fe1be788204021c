"""What each part of the learned codec's entropy model saves: bytes with and without it.

The codes of a model's images are made once; they, and so what is rebuilt of them, stay as they
are. Then entropy models of the same size are trained on them from random weights, each as long as
the others: with all they have, and without one part or the other. Shown are the mean bytes of
other images' codes at each rate. Needs no ROS 2:

    python benchmarks/context_ablation.py --data datasets/tabletop --json context_ablation.json
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

import harness
from msfc.codecs.learned import LearnedCodec
from msfc.codecs.learned.entropy import EntropyModel
from msfc.codecs.learned.transforms import HyperAnalysis
from msfc.data import CocoDataset
from msfc.model import SplitModel
from msfc.model_file import load_model

BATCH = 48
"""Codes of an iteration, of rates drawn evenly."""

PEAK, CLIP_NORM, NOISE = 2e-3, 2.0, 0.4
"""Learning rate, greatest norm of gradients, share of noisy symbols: as codecs are trained."""

FAST = ('rate_hyper', 'rate_context', 'hyper_mean', 'hyper_scale')
"""Of one rate each: they learn ten times as fast."""


@dataclass(frozen=True)
class Variant:
    """What an entropy model knows of a symbol before it is written.

    Attributes:
        name: as it is shown.
        hyper: the hyper-latent.
        slices: the channels that are written before.
        checkerboard: the other colour's cells of its own slice.
    """

    name: str
    hyper: bool = True
    slices: bool = True
    checkerboard: bool = True


VARIANTS = (
    Variant('all'),
    Variant('without the hyper-latent', hyper=False),
    Variant('without slices', slices=False),
    Variant('without the checkerboard', checkerboard=False),
    Variant('hyper-latent alone', slices=False, checkerboard=False),
    Variant('one table a channel', hyper=False, slices=False, checkerboard=False),
)


class Ablated:
    """An entropy model and its hyper-analysis without some of their parts.

    Args:
        codec: whose size they have.
        variant: what they know.
    """

    def __init__(self, codec: LearnedCodec, variant: Variant) -> None:
        torch.manual_seed(0)
        settings = codec.settings
        if not variant.slices:
            settings = replace(settings, slices=(settings.code_channels,))
        self.entropy, self.hyper = EntropyModel(settings), HyperAnalysis(settings)
        self.entropy.noise = NOISE
        self.variant, self._width = variant, settings.context_width
        self.restrict()

    def parameters(self) -> list[dict[str, Any]]:
        """Return the optimiser's groups."""
        fast = [p for name, p in self.entropy.named_parameters() if name in FAST]
        known = set(map(id, fast))
        others = [p for p in self.entropy.parameters() if id(p) not in known]
        return [
            {'params': [*others, *self.hyper.parameters()], 'factor': 1.0},
            {'params': fast, 'factor': 10.0, 'weight_decay': 0.0},
        ]

    @torch.no_grad()
    def restrict(self) -> None:
        """Take away what the variant does not know, and keep sums exact."""
        if not self.variant.checkerboard:
            for layer in self.entropy.update:
                layer.get_parameter('weight')[: self._width] = 0
        self.entropy.project()

    def bits(self, codes: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bits of each code to minimise, and those of rounded symbols."""
        hyper = self.hyper(codes)
        coded = self.entropy(codes, hyper if self.variant.hyper else 0 * hyper, rates)
        return coded.bits, coded.sent


@torch.inference_mode()
def make_codes(
    model: SplitModel, dataset: CocoDataset, count: int, console: Console
) -> Tensor:
    """Return the codes of a data set's first images, N x C' x h x w, before any gain.

    Raises:
        ValueError: they are of several sizes.
    """
    codec, codes = model.require_codec(), []
    chosen = range(min(count, len(dataset)))
    for index in track(chosen, 'codes', console=console):
        batch = model.detector.preprocess([dataset[index].image])
        codes.append(codec.analyse(model.detector.extract(batch)))
    if len({code.shape for code in codes}) > 1:
        raise ValueError('the images give codes of several sizes: name a data set of one size')
    return torch.cat(codes)


def scaled(codec: LearnedCodec, codes: Tensor, rates: Tensor) -> Tensor:
    """Return codes times their rates' gains."""
    return codes * codec.analysis.log_gain.detach()[rates].exp()[:, :, None, None]


def train(
    codec: LearnedCodec, ablated: Ablated, codes: Tensor, iterations: int, console: Console
) -> None:
    """Train an entropy model; an image's bits count by what its rate usually takes."""
    optimizer = torch.optim.AdamW(ablated.parameters(), lr=PEAK, betas=(0.9, 0.98))
    parameters = [p for group in optimizer.param_groups for p in group['params']]
    rng = torch.Generator().manual_seed(1)
    usual = codec.typical_bytes * 8 * codes.shape[-2] * codes.shape[-1]
    for iteration in track(range(iterations), ablated.variant.name, console=console):
        done = iteration / iterations
        rate = PEAK * min(1.0, 20 * done + 0.05) * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group['lr'] = rate * group['factor']
        chosen = torch.randint(len(codes), (BATCH,), generator=rng)
        rates = torch.randint(codec.settings.rates, (BATCH,), generator=rng)
        bits, _ = ablated.bits(scaled(codec, codes[chosen], rates), rates)
        optimizer.zero_grad()
        (bits / usual[rates]).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
        ablated.restrict()


@torch.no_grad()
def mean_bytes(codec: LearnedCodec, ablated: Ablated, codes: Tensor) -> list[float]:
    """Return the mean bytes of codes at each rate."""
    found = []
    for rate in range(codec.settings.rates):
        rates = torch.full((len(codes),), rate)
        found.append(float(ablated.bits(scaled(codec, codes, rates), rates)[1].mean()) / 8)
    return found


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Train and measure all variants.

    Raises:
        OSError: the data set is not there.
        ValueError: the model has no learned codec, or cannot be loaded.
    """
    torch.set_num_threads(options.threads)
    model = load_model(options.model)
    codec = model.codec
    if not isinstance(codec, LearnedCodec):
        raise ValueError(f'{options.model} has no learned codec: name one that has')
    codes, others = (
        make_codes(model, CocoDataset(options.data, split), count, console).clone()
        for split, count in (('train', options.images), ('val', options.val_images))
    )
    table = Table(title=f'Mean bytes of {len(others)} validation images')
    table.add_column('entropy model')
    for rate in range(codec.settings.rates):
        table.add_column(f'rate {rate}', justify='right')
    results, whole = [], None
    for variant in VARIANTS:
        ablated = Ablated(codec, variant)
        train(codec, ablated, codes, options.iterations, console)
        found = mean_bytes(codec, ablated, others)
        whole = whole or found
        more = [100 * (mine / all_ - 1) for mine, all_ in zip(found, whole, strict=True)]
        results.append({'variant': variant.name, 'bytes': found, 'more_percent': more})
        cells = (f'{mine:,.0f} ({extra:+.0f} %)' for mine, extra in zip(found, more, strict=True))
        table.add_row(variant.name, *cells)
    console.print(table)
    return {
        **harness.describe_machine(), 'model': options.model, 'iterations': options.iterations,
        'images': len(codes), 'results': results,
    }


def main() -> int:
    """Run from the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument('--model', default='tabletop', help='with a learned codec')
    parser.add_argument('--data', type=Path, required=True, help='COCO-format data set')
    parser.add_argument('--images', type=int, default=600, help='of train (default 600)')
    parser.add_argument('--val-images', type=int, default=100, help='of val (default 100)')
    parser.add_argument('--iterations', type=int, default=600, help='of each (default 600)')
    parser.add_argument('--threads', type=int, default=1, help='of torch (default 1)')
    options = parser.parse_args()
    if min(options.images, options.val_images, options.iterations, options.threads) < 1:
        parser.error('images, val-images, iterations and threads must be at least 1')
    return 0 if harness.run_benchmark(options, run) else 1


if __name__ == '__main__':
    sys.exit(main())

"""What a frame of some bytes is worth: mask mAP of features and of images over message bytes.

    python benchmarks/link_quality.py --json docs/results/link/quality.json

Frames of the shipped clip, spread over it, are coded at every rate of ``tabletop`` and of
``tabletop_msfc``, and sent as H.265 and JPEG images, at a few settings of ``msfc baselines``, to
the detector that both are measured against. ``benchmarks/link.py`` reads what this writes. An
interrupted run is resumed. A few frames of one clip are no test set: the figures are for comparing
what is beside each other here.
"""

from __future__ import annotations

import argparse
import json
import sys
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

_ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_ROOT / 'src' / 'msfc_core')]

import harness  # noqa: E402

MODELS = ('tabletop', 'tabletop_msfc')
REFERENCE = 'tabletop_detector'

IMAGES = {
    'H.265 intra': (
        'H.265 intra 4:2:0, 50 % of the input q=-47',
        'H.265 intra 4:2:0, 100 % of the input q=-47',
        'H.265 intra 4:4:4, 100 % of the input q=-42',
        'H.265 intra 4:4:4, 100 % of the input q=-33',
    ),
    'JPEG': (
        'JPEG 4:2:0, 50 % of the input q=5',
        'JPEG 4:2:0, 50 % of the input q=25',
        'JPEG 4:2:0, 100 % of the input q=12',
        'JPEG 4:2:0, 100 % of the input q=35',
    ),
}
"""Codecs, and settings of :mod:`msfc.evaluation.image_settings`, from the fewest bytes to about as
many as the largest messages have."""


@dataclass(frozen=True)
class Quality:
    """Mask mAP over the bytes of a message, best setting first where several fit.

    Attributes:
        name: of a model or an image codec.
        message_bytes: mean, rising; no setting is worse than a cheaper one.
        mask_map: of each.
    """

    name: str
    message_bytes: tuple[float, ...]
    mask_map: tuple[float, ...]

    def at(self, message_bytes: float) -> float | None:
        """Return the mask mAP of the best setting that fits; None if none does."""
        place = bisect_right(self.message_bytes, message_bytes)
        return self.mask_map[place - 1] if place else None


def read_quality(path: Path) -> dict[str, Quality]:
    """Return what this program wrote, by name."""
    return {
        name: frontier(name, [(row['message_bytes'], row['mask_map']) for row in rows])
        for name, rows in json.loads(path.read_text())['methods'].items()
    }


def frontier(name: str, points: Sequence[tuple[float, float]]) -> Quality:
    """Return those of some settings, bytes and mAP, that no cheaper one equals."""
    kept: list[tuple[float, float]] = []
    for size, value in sorted(points):
        if not kept or value > kept[-1][1]:
            kept.append((size, value))
    return Quality(name, tuple(size for size, _ in kept), tuple(value for _, value in kept))


@torch.inference_mode()
def measure(options: argparse.Namespace, console: Console) -> harness.Figures:
    """Measure all and return the figures."""
    from msfc.evaluation.baselines import image_methods
    from msfc.evaluation.image_codecs import find_codecs
    from msfc.evaluation.variants import Coded, SourceImage, Variant
    from msfc.model import SplitModel
    from msfc.model_file import load_model
    from msfc.pipeline.torch_network import prepare_model
    from msfc_demo.accuracy import RunningAccuracy
    from msfc_demo.sample import middles
    from msfc_sim.clip import read_clip, shipped_clip

    clip = read_clip(shipped_clip())
    frames = [clip[place] for place in middles(len(clip), options.frames)]
    variants: dict[str, list[Variant]] = {}
    figures = started(options)
    for name in MODELS:
        model = prepare_model(load_model(name))
        if figures['models'].setdefault(name, model.fingerprint) != model.fingerprint:
            figures['models'][name], figures['methods'][name] = model.fingerprint, []
        variants[name] = [Coded(model, rate) for rate in model.require_codec().coder().rates]
    detector = prepare_model(SplitModel(load_model(REFERENCE).detector)).detector
    for method in image_methods(detector, find_codecs()[0]):
        if method.name in IMAGES:
            chosen = [one for one in method.variants if one.name in IMAGES[method.name]]
            variants[method.name] = chosen
    sources = [SourceImage(number, frame.decode()) for number, frame in enumerate(frames)]
    for name, own in variants.items():
        rows = figures['methods'].setdefault(name, [])
        known = {row['setting'] for row in rows}
        for variant in own:
            if variant.name in known:
                continue
            accuracy, size = RunningAccuracy(variant.detector.class_names), 0
            for source, frame in zip(sources, frames, strict=True):
                outcome = variant.run(source)
                assert outcome.message_bytes is not None
                size += outcome.message_bytes
                accuracy.add(outcome.instances, frame.ground_truth)
            row = {
                'setting': variant.name,
                'message_bytes': size / len(frames),
                'mask_map': accuracy.compute()['mask_map'],
            }
            console.print(name, row, highlight=False, soft_wrap=True)
            rows.append(row)
            if options.json:
                options.json.write_text(json.dumps(figures, indent=2) + '\n')
    return figures


def started(options: argparse.Namespace) -> harness.Figures:
    """Return what an earlier run has written by now, or a beginning."""
    beginning = {'frames': options.frames, 'reference': REFERENCE, 'models': {}, 'methods': {}}
    if not (options.json and options.json.exists() and options.json.stat().st_size):
        return beginning
    figures: harness.Figures = json.loads(options.json.read_text())
    same = all(figures[key] == beginning[key] for key in ('frames', 'reference'))
    return figures if same else beginning


def main() -> int:
    """Run from the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument('--frames', type=int, default=8, help='of the clip (8)')
    options = parser.parse_args()
    return 0 if harness.run_benchmark(options, measure) is not None else 1


if __name__ == '__main__':
    sys.exit(main())

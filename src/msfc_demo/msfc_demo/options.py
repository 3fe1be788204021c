"""The demo's command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from msfc.zoo import DEFAULT_MODEL


def parse_options(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of a command line; by default of this process's."""
    parser = argparse.ArgumentParser(
        prog='demo',
        description='Starts a simulated robot camera, the edge and the cloud, shows what crosses '
        'the link and what is found, and draws it.',
    )
    parser.add_argument('--frames', type=_positive, default=60, help='frames to decode (60)')
    parser.add_argument(
        '--live', action='store_true', help='a live MuJoCo camera in place of the recorded clip'
    )
    parser.add_argument(
        '--seed', type=_seed, default=100, help='first scene of the live camera (100)'
    )
    parser.add_argument(
        '--rate',
        type=_rate,
        default=0.0,
        metavar='HZ',
        help='frames per second of the camera; frames that the nodes are too slow for are '
        'dropped. By default (0) the next frame is taken when the instances of the last have come',
    )
    parser.add_argument(
        '--model',
        default=DEFAULT_MODEL,
        metavar='NAME_OR_DIR',
        help=f'shipped model, or directory of a model file ({DEFAULT_MODEL})',
    )
    parser.add_argument(
        '--codec-rate',
        type=int,
        default=-1,
        metavar='RATE',
        help="one of the codec's rates: for packed bits n (what the model is made for)",
    )
    parser.add_argument(
        '--compare',
        type=_count,
        default=8,
        metavar='N',
        help='frames that are also coded at every rate, and as H.265 images, after the run (8)',
    )
    parser.add_argument(
        '--reference',
        default=None,
        metavar='NAME_OR_DIR',
        help='model whose detector gets these images (the one that the figures of the model are '
        'against, or its own)',
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures to a file')
    parser.add_argument(
        '--output',
        type=Path,
        default=Path('demo_out'),
        metavar='DIR',
        help='folder of the pictures and logs (demo_out)',
    )
    return parser.parse_args(args)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError('give 1 or more')
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError('give 0 or more')
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError('give 0 or more')
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 120:
        raise argparse.ArgumentTypeError('give 0 to 120')
    return value

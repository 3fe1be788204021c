"""The demo's command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from msfc.zoo import DEFAULT_MODEL
from msfc_demo.link_shape import LinkShape, parse_link

LINK_FRAMES, LINK_RATE = 150, 5.0

OWN_RATE, ANY_RATE = -1, -2
"""Rates of the edge: what the model is made for, and the best of all that the budget allows."""

DEFAULTS = {'frames': 60, 'rate': 0.0, 'codec_rate': OWN_RATE}
LINK_DEFAULTS = {'frames': LINK_FRAMES, 'rate': LINK_RATE, 'codec_rate': ANY_RATE}


def parse_options(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of a command line; by default of this process's."""
    parser = argparse.ArgumentParser(
        prog='demo',
        description='Starts a simulated robot camera, the edge and the cloud, shows what crosses '
        'the link and what is found, and draws it.',
    )
    parser.add_argument(
        '--frames',
        type=_positive,
        help=f'frames to decode (60; {LINK_FRAMES} with --link)',
    )
    parser.add_argument(
        '--link',
        type=_link,
        metavar='RATE[,loss=5%]',
        help='a narrow link between edge and cloud, which the edge follows (adaptive): a rate '
        'such as 200kbit or 2Mbit, then what of loss=0%%, delay=20ms, queue=60kB is to be '
        'otherwise. '
        'As root in two network namespaces, else held back by the demo',
    )
    parser.add_argument(
        '--paced',
        action='store_true',
        help='with --link: held back by the demo, also as root',
    )
    parser.add_argument(
        '--live', action='store_true', help='a live MuJoCo camera in place of the recorded clip'
    )
    parser.add_argument(
        '--seed', type=_seed, default=100, help='first scene of the live camera (100)'
    )
    parser.add_argument(
        '--rate',
        type=_rate,
        metavar='HZ',
        help='frames per second of the camera; frames that the nodes are too slow for are '
        'dropped. 0, the default, takes the next frame when the instances of the last have come. '
        f'With --link it has a pace of its own ({LINK_RATE:g})',
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
        metavar='RATE',
        help="one of the codec's rates: for packed bits n (what the model is made for; with "
        '--link the best that it takes)',
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
    parser.add_argument(
        '--view',
        action='store_true',
        help='show camera, masks, tracks, bytes and latency in Rerun (rerun-sdk from PyPI): in a '
        'window, or where there is no screen in a browser',
    )
    parser.add_argument(
        '--record',
        type=Path,
        metavar='FILE.rrd',
        help='record it for Rerun, which opens it by  rerun FILE.rrd',
    )
    parser.add_argument(
        '--depth',
        action='store_true',
        help='with --live: depth images too, and objects in metres of them (msfc_depth)',
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures to a file')
    parser.add_argument(
        '--output',
        type=Path,
        default=Path('demo_out'),
        metavar='DIR',
        help='folder of the pictures and logs (demo_out)',
    )
    options = parser.parse_args(args)
    if options.link is not None and (options.view or options.record):
        parser.error('arguments --view and --record: not with --link, whose nodes are apart')
    if options.depth and not options.live:
        parser.error('argument --depth: it is for --live, as the clip has no depth')
    if options.depth and not (options.view or options.record):
        parser.error('argument --depth: give --view or --record as well, which show it')
    if options.link is None and options.paced:
        parser.error('argument --paced: it is for --link')
    if options.link is not None and options.rate == 0:
        parser.error('argument --rate: with --link a lost frame would be waited for; give a pace')
    defaults = LINK_DEFAULTS if options.link else DEFAULTS
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def _link(text: str) -> LinkShape:
    try:
        return parse_link(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


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

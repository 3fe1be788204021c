"""What key frames save: bytes with and without them, and mAP at the same rate.

Three scenes, each filmed at 10 Hz: the demo's moving clip, a camera that stands still before a
scene of the simulator, and one that goes past it at a tenth of the clip's speed. At each rate all
frames are coded alone, and against key frames that the receiver acknowledges some frames later; of
some of them the receiver's instances are compared with the ground truth. With `--pairs` the
model's tables for key frames are fitted to other scenes, and measured as well. Nothing is lost on
the way.

    python benchmarks/references.py --json references.json --plot references.svg
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

import harness
from msfc.codecs.learned import LearnedCodec
from msfc.evaluation.coco_map import evaluate_instances
from msfc.model import SplitModel
from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.edge import EdgeFrame
from msfc.pipeline.edge_network import EdgeOutput
from msfc.pipeline.references import KeyFrames, KeyStore
from msfc.pipeline.torch_network import TorchEdgeNetwork
from msfc.types import Instances, Targets
from msfc.wire.packet import FeaturePacket

CLIP_STEP = 1 / 19
"""Part of its arc that the clip's camera goes from one frame to the next."""

SLOW_STEP = CLIP_STEP / 10

SCENE = 9
"""Of the split ``clip``, on which nothing is trained: the first one of the clip."""

STILL, SLOW, CLIP = 'static scene', 'slow pan', 'moving clip'
SPEEDS = {STILL: 0.0, SLOW: SLOW_STEP, CLIP: CLIP_STEP}
"""Parts of an arc from one frame to the next."""

KINDS = ('box_map', 'mask_map')


@dataclass(frozen=True)
class Film:
    """Frames of one scene: BGR images and what is in them."""

    images: list[NDArray[np.uint8]]
    truth: list[Targets]


@dataclass
class Sent:
    """What one way of coding made of a film at one rate.

    Attributes:
        sizes: bytes of each payload.
        keys: how many frames were key frames.
        referring: how many were coded against one.
        found: the instances of the frames that were decoded.
    """

    sizes: list[int] = field(default_factory=list)
    keys: int = 0
    referring: int = 0
    found: list[Instances] = field(default_factory=list)


def targets(labels: Sequence[int], masks: Sequence[NDArray[np.bool_]]) -> Targets:
    """Return the ground truth of a frame; boxes are around the masks."""
    boxes = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return Targets(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.from_numpy(np.stack(masks)) if len(masks) else torch.zeros((0, 1, 1), dtype=bool),
    )


def film_clip(count: int) -> Film:
    """Return the beginning of the shipped clip."""
    from msfc_ros.messages import instances_from_message
    from msfc_sim.clip import read_clip, shipped_clip

    frames = read_clip(shipped_clip())[:count]
    truth = [instances_from_message(frame.ground_truth) for frame in frames]
    return Film(
        [frame.decode() for frame in frames],
        [targets(one.labels.tolist(), list(one.masks.numpy())) for one in truth],
    )


def film_scene(split: str, index: int, times: Sequence[float]) -> Film:
    """Film a scene of the simulator from places on its arc, 0 to 1, with fresh noise in each."""
    from msfc.simulation.path import Shot

    shot, film = Shot(split, index), Film([], [])
    rng = np.random.default_rng(index)
    with shot.scene.renderer() as renderer:
        for time in times:
            image, bodies = shot.scene.render(renderer, shot.arc.camera(time))
            noisy = shot.camera_model.apply(image, rng)
            film.images.append(cv2.cvtColor(noisy, cv2.COLOR_RGB2BGR))
            labels, masks, _ = shot.scene.ground_truth(bodies)
            film.truth.append(targets(labels, masks))
    return film


def films(count: int) -> dict[str, Film]:
    """Return all films, by name."""
    still = film_scene('clip', SCENE, [0.5] * count)
    slow = film_scene('clip', SCENE, [0.3 + SLOW_STEP * number for number in range(count)])
    return {STILL: still, SLOW: slow, CLIP: film_clip(count)}


def packets(
    outputs: Sequence[EdgeOutput], model: SplitModel, rate: int, interval: int, delay: int
) -> Iterator[FeaturePacket]:
    """Yield the packets of a film.

    Args:
        outputs: of the robot's network.
        model: whose coder is used.
        rate: of all frames.
        interval: frames from one key frame to the next; 0 for none.
        delay: frames after which the sender hears of a key frame.
    """
    coder = model.require_codec().coder()
    keys = KeyFrames(coder, interval)
    newest = [0] * delay
    for number, output in enumerate(outputs, 1):
        frame = EdgeFrame(output, output.sizes.source[0], coder, model.fingerprint, keys)
        packet = frame.packet(rate, number)
        newest.append(number if packet.is_key else newest[-1])
        keys.acknowledge(newest[number - 1])
        yield packet


def send(
    stream: Iterator[FeaturePacket], cloud: CloudPipeline, decode_every: int
) -> Sent:
    """Receive a film and decode some of its frames."""
    sent, keys = Sent(), KeyStore()
    for index, packet in enumerate(stream):
        valid = cloud.validate(packet, keys)
        sent.sizes.append(packet.payload_bytes)
        sent.keys += packet.is_key
        sent.referring += packet.refers
        if index % decode_every == 0:
            sent.found.append(cloud.decode_valid([valid])[0].instances)
    return sent


def fitting_pairs(count: int) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Return pairs of images to fit tables to: of training scenes, at all speeds in turn."""
    pairs = []
    for number in range(count):
        rng = np.random.default_rng(number)
        speed = list(SPEEDS.values())[number % len(SPEEDS)]
        first = rng.uniform(0.0, 0.4)
        last = min(first + speed * float(rng.integers(1, 30)), 1.0)
        images = film_scene('train', number, [first, last]).images
        pairs.append((images[0], images[1]))
    return pairs


def fitted(name: str, count: int, network: TorchEdgeNetwork, console: Console) -> SplitModel:
    """Return the model with tables fitted to so many pairs of frames."""
    from msfc.wire.key_fit import fit_key_arrays

    model = load_model(name).eval()
    codec = model.require_codec()
    if not isinstance(codec, LearnedCodec):
        raise ValueError('only tables of learned codecs can be fitted')
    codes = [
        (network(first).code, network(second).code)
        for first, second in track(fitting_pairs(count), 'codes to fit to', console=console)
    ]
    arrays = fit_key_arrays(codec.coder_arrays(), codec.settings.slices, codes)
    codec.entropy.set_key_arrays(arrays)
    return model


def measure(
    film: Film, outputs: list[EdgeOutput], models: dict[str, SplitModel], rate: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Measure a film at one rate: alone, and with the tables of each model."""
    truth = film.truth[:: options.decode_every]
    row: dict[str, Any] = {'rate': rate}
    for name, model in {'alone': next(iter(models.values())), **models}.items():
        interval = 0 if name == 'alone' else options.interval
        stream = packets(outputs, model, rate, interval, options.delay)
        sent = send(stream, CloudPipeline(model), options.decode_every)
        score = evaluate_instances(sent.found, truth, model.class_names)
        row[name] = {
            'payload_bytes': mean(sent.sizes), 'key_frames': sent.keys,
            'referring': sent.referring, **{kind: score[kind] for kind in KINDS},
        }  # fmt: skip
    for name in models:
        row[name]['saved'] = 1 - row[name]['payload_bytes'] / row['alone']['payload_bytes']
    return row


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure all films at all rates.

    Raises:
        ClipError: if the clip cannot be read.
        ValueError: if the model cannot be loaded, or has no such rate or no references.
    """
    torch.set_num_threads(1)
    model = load_model(options.model).eval()
    network = TorchEdgeNetwork(model)
    models = {'default': model}
    if options.pairs:
        models['fitted'] = fitted(options.model, options.pairs, network, console)
    results: dict[str, list[dict[str, Any]]] = {}
    for name, film in films(options.frames).items():
        outputs = [network(image) for image in track(film.images, name, console=console)]
        results[name] = [
            measure(film, outputs, models, rate, options)
            for rate in track(options.rates, f'{name}: rates', console=console)
        ]
    show(results, list(models), console)
    if options.plot:
        plot(results, list(models), options.plot)
    settings = ('frames', 'interval', 'delay', 'pairs', 'decode_every')
    return {
        **harness.describe_machine(), 'model': options.model,
        **{name: getattr(options, name) for name in settings}, 'results': results,
    }  # fmt: skip


def show(results: dict[str, list[dict[str, Any]]], names: list[str], console: Console) -> None:
    """Print a table."""
    table = Table(title='Mean bytes of a payload, alone and against key frames; mAP in points')
    columns = ['scene', 'rate', 'alone', 'mask mAP']
    for name in names:
        columns += [f'{name} tables', 'saved', 'mask mAP']
    for column in columns:
        table.add_column(column, justify='right')
    for scene, rows in results.items():
        for row in rows:
            cells = [scene, str(row['rate'])]
            for name in ('alone', *names):
                cells.append(f'{row[name]["payload_bytes"]:.0f}')
                if name != 'alone':
                    cells.append(f'{row[name]["saved"]:.0%}')
                cells.append(f'{100 * row[name]["mask_map"]:.1f}')
            table.add_row(*cells)
    console.print(table)


def plot(results: dict[str, list[dict[str, Any]]], names: list[str], path: Path) -> None:
    """Draw the part of the bytes that is saved, a panel a scene."""
    from matplotlib import pyplot

    from msfc.evaluation.plots import COLOURS, STYLE

    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(
            1, len(results), figsize=(3.6 * len(results), 3.0), sharey=True, squeeze=False
        )
        for axis, (scene, rows) in zip(axes[0], results.items(), strict=True):
            for colour, name in zip(COLOURS, names, strict=False):
                sizes = [row['alone']['payload_bytes'] for row in rows]
                saved = [100 * row[name]['saved'] for row in rows]
                axis.plot(sizes, saved, marker='o', color=colour, label=f'{name} tables')
            axis.set_title(scene)
            axis.set_xscale('log')
            axis.set_xlabel('bytes of a payload alone')
        axes[0, 0].set_ylabel('saved, %')
        axes[0, 0].set_ylim(bottom=0)
        axes[0, 0].legend()
        figure.savefig(path)
        pyplot.close(figure)


def main() -> int:
    """Run from the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument('--model', default='tabletop', help='name or directory')
    parser.add_argument('--rates', type=int, nargs='+', default=[1, 3, 5, 7])
    parser.add_argument('--frames', type=int, default=60, help='of each scene (default 60)')
    parser.add_argument('--interval', type=int, default=60, help='of key frames (default 60)')
    parser.add_argument(
        '--delay', type=int, default=3, help='frames until a key frame is acknowledged (default 3)'
    )
    parser.add_argument(
        '--decode-every', type=int, default=3, help='frames, of which one is decoded (default 3)'
    )
    parser.add_argument('--pairs', type=int, default=0, help='frames to fit tables to (default 0)')
    parser.add_argument('--plot', type=Path, help='draw the figures into this file')
    options = parser.parse_args()
    if min(options.frames, options.decode_every, options.interval) < 1 or options.delay < 0:
        parser.error('frames, intervals and decode-every are at least 1, delay at least 0')
    return 0 if harness.run_benchmark(options, run) else 1


if __name__ == '__main__':
    sys.exit(main())

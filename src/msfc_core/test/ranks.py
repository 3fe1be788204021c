"""Trains an experiment in one process or several, and keeps what each of them ended with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

HERE = Path(__file__).resolve().parent
TIMEOUT = 240.0  # seconds


@dataclass(frozen=True)
class Rank:
    """What one process ended with.

    Attributes:
        weights: its parameters by name.
        losses: the sum of losses of each of its iterations, in all steps.
    """

    weights: dict[str, Tensor]
    losses: list[float]


def train_in_processes(
    count: int, experiment: Path, data: Path, output: Path, tiny: bool = False
) -> list[Rank]:
    """Train with torchrun, or in one process without it.

    Args:
        count: number of processes.
        experiment: YAML file.
        data: folder of the data set.
        output: folder of the run; what the processes ended with goes there too.
        tiny: put :class:`tiny.TinyDetector` in the place of the experiment's detector.
    """
    command = [sys.executable]
    if count > 1:
        command += ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(count)]
    command += [__file__, str(experiment), str(data), str(output), *(['tiny'] if tiny else [])]
    paths = [str(HERE), str(HERE.parent), os.environ.get('PYTHONPATH', '')]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': os.pathsep.join(paths)},
        start_new_session=True,
    )
    try:
        text, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        # torchrun's processes would outlive it. They are in sessions of their own, so it must be
        # torchrun that ends them.
        process.terminate()
        text, _ = process.communicate(timeout=60)
        raise AssertionError(f'not done within {TIMEOUT} s:\n{text}') from None
    assert process.returncode == 0, text
    return [
        Rank(
            load_file(output / f'rank{rank}.safetensors'),
            json.loads((output / f'rank{rank}.json').read_text()),
        )
        for rank in range(count)
    ]


def main(experiment: str, data: str, output: str, tiny: str = '') -> None:
    """Train as one of the processes."""
    from msfc.training import trainer
    from msfc.training.experiment import load_experiment
    from msfc.training.processes import launch_fabric

    torch.set_num_threads(1)
    if tiny:
        from tiny import TinyDetector

        trainer.build_detector = lambda config: TinyDetector(config['class_names'])
    losses: list[float] = []

    class Recorder(trainer.Trainer):
        def _iterate(self, *args: Any) -> dict[str, Tensor]:
            found = super()._iterate(*args)
            losses.append(float(found['loss'].detach()))
            return found

    plan = load_experiment(Path(experiment))
    fabric = launch_fabric('cpu', plan.precision)
    model = Recorder(plan, Path(data), Path(output), fabric, workers=0, log_every=1).run()
    stem = Path(output) / f'rank{fabric.global_rank}'
    weights = {name: value.detach().contiguous() for name, value in model.named_parameters()}
    save_file(weights, stem.with_suffix('.safetensors'))
    stem.with_suffix('.json').write_text(json.dumps(losses))


if __name__ == '__main__':
    main(*sys.argv[1:])

"""Training batches as a pure function of (seed, step, iteration), so that a resume is exact."""

from __future__ import annotations

import zlib

import numpy as np
from torch.utils.data import ConcatDataset, Dataset

from msfc.data import CocoDataset, Example
from msfc.training.augmentation import Augmentation

# Of the random choices of one image, apart from those of processes, orders and mirrors.
_IMAGE_SALT = 1000


def iteration_seed(seed: int, step: str, iteration: int, salt: int = 0) -> int:
    """Return the seed of one iteration's random choices, a 63-bit number."""
    entropy = [seed, zlib.crc32(step.encode()), iteration, salt]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def epoch_order(seed: int, step: str, epoch: int, count: int) -> np.ndarray:
    """Return the order in which an epoch has the images."""
    rng = np.random.default_rng(iteration_seed(seed, step, epoch, salt=1))
    return rng.permutation(count)


class Batch:
    """The examples of one iteration; a plain object, which Fabric passes on as it is."""

    def __init__(self, examples: list[Example]) -> None:
        self.examples = examples


class TrainingBatches(Dataset[Batch]):
    """The batches of a training step; item ``k`` is the batch of iteration ``k``.

    Every image is seen once per epoch, in an order of the epoch's own, each time mirrored or not
    at random, and changed as the augmentation says.

    Args:
        dataset: the images, or those of several data sets.
        batch_size: images per iteration, over all processes.
        seed: of the experiment.
        step: name of the training step.
        rank: number of this process.
        world_size: number of processes; each gets its share of a batch.
        augmentation: how the images are changed; not at all by default.

    Raises:
        ValueError: the processes cannot have equal shares of a batch.
    """

    def __init__(
        self,
        dataset: CocoDataset | ConcatDataset[Example],
        batch_size: int,
        seed: int,
        step: str,
        rank: int = 0,
        world_size: int = 1,
        augmentation: Augmentation | None = None,
    ) -> None:
        if batch_size % world_size:
            raise ValueError(f'{world_size} processes cannot share batches of {batch_size}')
        self._dataset, self._batch_size = dataset, batch_size
        self._augmentation = augmentation or Augmentation()
        self._seed, self._step = seed, step
        self._rank, self._world_size = rank, world_size

    def __getitem__(self, iteration: int) -> Batch:
        rng = np.random.default_rng(iteration_seed(self._seed, self._step, iteration, salt=2))
        mirror = rng.random(self._batch_size) < 0.5
        examples = []
        for slot in range(self._rank, self._batch_size, self._world_size):
            epoch, place = divmod(iteration * self._batch_size + slot, len(self._dataset))
            order = epoch_order(self._seed, self._step, epoch, len(self._dataset))
            example = self._dataset[int(order[place])]
            example = example.flipped() if mirror[slot] else example
            seed = iteration_seed(self._seed, self._step, iteration, _IMAGE_SALT + slot)
            examples.append(self._augmentation.apply(example, seed))
        return Batch(examples)

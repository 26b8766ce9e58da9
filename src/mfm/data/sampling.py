"""Which samples make a batch: shuffled, of similar length, and shared out among processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import BatchSampler, Sampler, SequentialSampler

from mfm.errors import ConfigurationError

_MEGA = 50  # batches that are sorted together: enough for little padding, few enough to stay random


class EpochSampler(Sampler[int]):
    """Indices 0 to n - 1 that also know the epoch.

    Lightning calls `set_epoch` on `dataloader.batch_sampler.sampler`; this is what it finds there.
    """

    def __init__(self, size: int) -> None:
        self.size, self.epoch = size, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from which the next shuffling follows."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.size))

    def __len__(self) -> int:
        return self.size


class LengthBucketBatchSampler(BatchSampler):
    """Batches of indices, in training shuffled and made of samples of similar length.

    Training: all samples are shuffled, cut into runs of 50 batches, sorted by length within a run, cut
    into batches, and the batches are shuffled. The order depends on `seed` and the epoch alone. With W
    processes the batches are W times as large and each process takes every W-th sample of them: all have the same
    number of batches, of equal length and cost; only if the last one has fewer than W samples are some repeated.

    Evaluation: in the order of the file. With W processes each takes one contiguous part and all have
    the same number of batches; no sample is lost or doubled.

    Processes are those of `torch.distributed` at the time of iteration. Lightning may replace `sampler` by
    a `DistributedSampler` (its default); only its epoch is used, so the result is the same.

    Args:
        sampler: Source of the epoch, by default an `EpochSampler`.
        batch_size: Samples a batch and process.
        drop_last: Must be False (Lightning asks for the argument).
        lengths: Length (or cost) of each of the N samples.
        shuffle: Training (True) or evaluation (False).
        bucketing: False: a plain shuffle.
        seed: Seed of the order.

    Raises:
        ConfigurationError: `batch_size` below 1, or `drop_last`.
    """

    def __init__(
        self,
        sampler: Any = None,
        batch_size: int = 32,
        drop_last: bool = False,
        *,
        lengths: Sequence[int] | NDArray[np.int64],
        shuffle: bool = True,
        bucketing: bool = True,
        seed: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"batch_size is {batch_size}; it must be at least 1")
        if drop_last:
            raise ConfigurationError("drop_last would lose samples; it is not supported")
        self.sampler: Any = EpochSampler(len(lengths)) if sampler is None else sampler
        self.batch_size = batch_size
        self.drop_last = False
        self.lengths = np.asarray(lengths, dtype=np.int64)
        # Lightning's overfit_batches puts a SequentialSampler here
        self.shuffle = shuffle and not isinstance(self.sampler, SequentialSampler)
        self.bucketing = bucketing
        self.seed = seed

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration shuffles for."""
        return int(getattr(self.sampler, "epoch", 0))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from which the next shuffling follows."""
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        _, world = _process()
        size, samples = self.batch_size, len(self.lengths)
        if not self.shuffle and world > 1:
            return _even_batches(samples, size, world)
        return -(-samples // (size * world))

    def __iter__(self) -> Iterator[list[int]]:
        rank, world = _process()
        yield from self._training(rank, world) if self.shuffle else self._evaluation(rank, world)

    def _training(self, rank: int, world: int) -> Iterator[list[int]]:
        size = self.batch_size * world
        for batch in self._shuffled(size):
            missing = max(0, world - len(batch))
            padded = np.concatenate([batch, np.resize(batch, missing)]) if missing else batch
            yield padded[rank::world].tolist()

    def _shuffled(self, size: int) -> list[NDArray[np.int64]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(len(self.lengths))
        if not self.bucketing:
            return [order[start : start + size] for start in range(0, len(order), size)]
        batches = []
        for start in range(0, len(order), size * _MEGA):
            run = order[start : start + size * _MEGA]
            run = run[np.argsort(self.lengths[run], kind="stable")]
            batches += [run[first : first + size] for first in range(0, len(run), size)]
        return [batches[index] for index in generator.permutation(len(batches))]

    def _evaluation(self, rank: int, world: int) -> Iterator[list[int]]:
        samples = len(self.lengths)
        if world == 1:
            for start in range(0, samples, self.batch_size):
                yield list(range(start, min(start + self.batch_size, samples)))
            return
        part = np.array_split(np.arange(samples), world)[rank]
        # equally many batches everywhere: the model may synchronise within a batch
        for batch in np.array_split(part, _even_batches(samples, self.batch_size, world)):
            yield batch.tolist()


def _even_batches(samples: int, size: int, world: int) -> int:
    """Batches of each of W processes such that none is empty; the last samples may make some larger by one."""
    if samples < world:
        raise ConfigurationError(
            f"{samples} sample(s) cannot be shared out among {world} processes; use fewer (--trainer.devices)"
        )
    return min(-(-samples // (size * world)), samples // world)


def _process() -> tuple[int, int]:
    """Rank and number of processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1

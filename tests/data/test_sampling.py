"""Every sample exactly once, whatever the epoch, the seed and the number of processes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import SequentialSampler

from mfm.data import sampling
from mfm.data.sampling import LengthBucketBatchSampler
from mfm.errors import ConfigurationError

sizes = st.integers(1, 300)
batch_sizes = st.integers(1, 17)


def lengths_of(n: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 60, size=n)


def shards(monkeypatch: pytest.MonkeyPatch, world: int, **options: Any) -> list[list[list[int]]]:
    result = []
    for rank in range(world):
        monkeypatch.setattr(sampling, "_process", lambda rank=rank: (rank, world))
        sampler = LengthBucketBatchSampler(**options)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        result.append(batches)
    return result


@given(n=sizes, batch=batch_sizes, seed=st.integers(0, 1000), epoch=st.integers(0, 50), bucketing=st.booleans())
def test_every_sample_exactly_once(n: int, batch: int, seed: int, epoch: int, bucketing: bool) -> None:
    sampler = LengthBucketBatchSampler(batch_size=batch, lengths=lengths_of(n), seed=seed, bucketing=bucketing)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert sorted(i for b in batches for i in b) == list(range(n))
    assert len(batches) == len(sampler) == -(-n // batch)
    assert all(1 <= len(b) <= batch for b in batches)
    assert batches == list(sampler)


@given(n=st.integers(30, 300), seed=st.integers(0, 1000), bucketing=st.booleans())
def test_order_depends_on_seed_and_epoch_alone(n: int, seed: int, bucketing: bool) -> None:
    torch.manual_seed(seed)
    state = torch.get_rng_state()

    def order(seed: int, epoch: int) -> list[list[int]]:
        sampler = LengthBucketBatchSampler(batch_size=8, lengths=lengths_of(n), seed=seed, bucketing=bucketing)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(seed, 3) == order(seed, 3)
    assert order(seed, 3) != order(seed, 4)
    assert order(seed, 3) != order(seed + 1, 3)
    assert torch.equal(torch.get_rng_state(), state)  # no global randomness used


def test_buckets_need_less_padding() -> None:
    lengths = lengths_of(2000)

    def padded(bucketing: bool) -> int:
        sampler = LengthBucketBatchSampler(batch_size=32, lengths=lengths, bucketing=bucketing)
        return sum(int(lengths[b].max()) * len(b) - int(lengths[b].sum()) for b in sampler)

    assert padded(True) < 0.2 * padded(False)


def test_batches_are_not_in_order_of_length() -> None:
    lengths = lengths_of(2000)
    means = [float(lengths[b].mean()) for b in LengthBucketBatchSampler(batch_size=32, lengths=lengths)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.4


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [1, 7, 33, 100])
@pytest.mark.parametrize("batch", [1, 4])
def test_training_is_shared_out(monkeypatch: pytest.MonkeyPatch, world: int, n: int, batch: int) -> None:
    ranks = shards(monkeypatch, world, batch_size=batch, lengths=lengths_of(n))
    assert len({len(batches) for batches in ranks}) == 1
    assert all(len(b) >= 1 for batches in ranks for b in batches)
    counts = Counter(i for batches in ranks for b in batches for i in b)
    assert set(counts) == set(range(n))
    repeated = sum(counts.values()) - n
    last = n % (batch * world) or batch * world
    assert repeated == max(0, world - last)


@given(n=st.integers(1, 200), batch=batch_sizes, world=st.integers(1, 9))
def test_evaluation_loses_and_doubles_nothing(n: int, batch: int, world: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        options = {"batch_size": batch, "lengths": lengths_of(n), "shuffle": False}
        if n < world:
            with pytest.raises(ConfigurationError, match="cannot be shared out"):
                shards(patch, world, **options)
            return
        ranks = shards(patch, world, **options)
    # in the order of the file, process after process
    assert [i for batches in ranks for b in batches for i in b] == list(range(n))
    assert len({len(batches) for batches in ranks}) == 1
    assert all(1 <= len(b) <= batch + 1 for batches in ranks for b in batches)


def test_overfitting_stops_shuffling() -> None:
    sampler = LengthBucketBatchSampler(SequentialSampler(range(10)), 4, lengths=lengths_of(10))
    assert list(sampler) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_bad_options() -> None:
    with pytest.raises(ConfigurationError, match="batch_size is 0"):
        LengthBucketBatchSampler(batch_size=0, lengths=[1])
    with pytest.raises(ConfigurationError, match="lose samples"):
        LengthBucketBatchSampler(batch_size=1, drop_last=True, lengths=[1])

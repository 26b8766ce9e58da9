"""The mean of loss parts over batches and processes."""

import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mfm.metrics import WeightedMean

VALUES, WEIGHTS = [0.5, 2.0, -1.0, 4.0], [3, 1, 6, 0]


def test_equals_numpy_and_resets():
    mean = WeightedMean()
    for value, weight in zip(VALUES, WEIGHTS, strict=True):
        mean.update(torch.tensor(value), torch.tensor(weight))
    assert mean.compute().item() == pytest.approx(np.average(VALUES, weights=WEIGHTS))
    mean.reset()
    mean.update(torch.tensor(7.0), 2)
    assert mean.compute().item() == 7.0


def test_nan_counts_unless_it_has_no_weight():
    mean = WeightedMean()
    mean.update(torch.tensor(float("nan")), 0)
    mean.update(torch.tensor(1.0), 2)
    assert mean.compute().item() == 1.0
    mean.update(torch.tensor(float("nan")), 1)
    assert mean.compute().isnan()


def _process(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    mean = WeightedMean()
    for value, weight in list(zip(VALUES, WEIGHTS, strict=True))[rank::2]:
        mean.update(torch.tensor(value), weight)
    torch.save(mean.compute(), os.path.join(folder, f"{rank}.pt"))  # noqa: PTH118
    dist.destroy_process_group()


@pytest.mark.slow
def test_across_processes(tmp_path):
    mp.spawn(_process, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True).item()
        assert found == pytest.approx(np.average(VALUES, weights=WEIGHTS), abs=1e-12)

"""Small random batches for the module tests."""

import torch

from mfm.data.batch import AffectBatch


def make_affect_batch(dims, *, rows=6, steps=3, label=0.0):
    """All observed, no padding, one label a sample around `label`; the same numbers at every call."""
    generator = torch.Generator().manual_seed(1)
    return AffectBatch(
        {name: torch.randn(rows, steps, dim, generator=generator) for name, dim in dims.items()},
        {name: torch.full((rows,), steps) for name in dims},
        {name: torch.ones(rows, dtype=torch.bool) for name in dims},
        torch.randn(rows, 1, generator=generator) + label,
        torch.ones(rows, 1, dtype=torch.bool),
        [str(row) for row in range(rows)],
    )

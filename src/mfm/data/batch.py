"""The batch that everything downstream of the data reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class AffectBatch(NamedTuple):
    """B samples with any number of modalities, left-aligned.

    Padded steps and absent modalities hold zeros, but no consumer may depend on that: `lengths` and
    `present` alone say what is real.

    Attributes:
        features: Modality -> (B, T_m, D_m) float32, in the file's units; may hold NaN or infinities
            where the file does.
        lengths: Modality -> (B,) int64 real steps, 0 where absent.
        present: Modality -> (B,) bool, whether the modality was observed for this sample.
        target: Regression, binary and multi-label: (B, K) float32. Multi-class: (B,) int64.
        target_mask: Same shape as `target`, bool, False where the label is missing.
        ids: B sample names.
    """

    features: dict[str, Tensor]
    lengths: dict[str, Tensor]
    present: dict[str, Tensor]
    target: Tensor
    target_mask: Tensor
    ids: list[str]


def without(batch: AffectBatch, absent: Mapping[str, Tensor]) -> AffectBatch:
    """Take modalities away from some samples of a batch.

    Args:
        batch: The batch; not changed.
        absent: Modality -> (B,) bool, True for the samples that lose it.

    Returns:
        A batch in which those samples have length 0, `present` False and zeros for features.
    """
    features, lengths, present = dict(batch.features), dict(batch.lengths), dict(batch.present)
    for name, gone in absent.items():
        if name not in features:
            continue
        gone = gone.to(present[name].device)
        features[name] = features[name].masked_fill(gone[:, None, None], 0.0)
        lengths[name] = lengths[name].masked_fill(gone, 0)
        present[name] = present[name] & ~gone
    return batch._replace(features=features, lengths=lengths, present=present)


def draw_absent(
    batch: AffectBatch, rates: Mapping[str, float], generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Draw which modalities each sample loses, leaving every sample at least one it had.

    Args:
        batch: The batch to draw for.
        rates: Modality -> probability in [0, 1) that a sample loses it.
        generator: Source of randomness; the global one by default.

    Returns:
        Modality -> (B,) bool for `without`.
    """
    names = sorted(batch.features)
    device = batch.present[names[0]].device
    present = torch.stack([batch.present[name] for name in names], dim=1)
    rate = torch.tensor([rates.get(name, 0.0) for name in names], device=device)
    draws = torch.rand(present.shape, generator=generator, device=device)
    gone = (draws < rate) & present
    emptied = (gone == present).all(dim=1)  # would lose everything: keep the modality with the largest draw
    keep = draws.masked_fill(~present, -1.0).argmax(dim=1)
    rescued = torch.nn.functional.one_hot(keep, len(names)).bool() & emptied[:, None]
    gone = gone & ~rescued
    return {name: gone[:, column] for column, name in enumerate(names)}

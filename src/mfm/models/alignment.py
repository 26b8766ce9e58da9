"""A shared clock for modalities that were sampled at different rates."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mfm.models.masking import pad_steps, step_mask, zero_padding


def on_one_clock(
    features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], *, aligned: bool, limit: int | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Give all modalities one time axis, on which step t is one moment.

    Args:
        features: Modality -> (B, T_m, D_m), left-aligned.
        lengths: Modality -> (B,) real steps, 0 where absent.
        aligned: Whether step t is one moment already (word-aligned features); otherwise see `pool_to_clock`.
        limit: Most steps of the clock, for features that are not aligned.

    Returns:
        Modality -> (B, T, D_m) with padding zeroed, one T for all, and modality -> (B,) real steps.
    """
    if not aligned:
        return pool_to_clock(features, lengths, limit=limit)
    steps = max(1, *(x.shape[1] for x in features.values()))
    return {name: pad_steps(zero_padding(x, lengths[name]), steps) for name, x in features.items()}, dict(lengths)


def pool_to_clock(
    features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], *, limit: int | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Average each modality in proportion to its length onto the clock of the sample's shortest modality.

    A sample's clock has K steps, the smallest length of the modalities present in it (at most
    `limit`). Step t of a modality of L >= K steps falls into step floor(t K / L) of the clock; each
    clock step gets at least one, and holds the mean of what falls into it. The shortest modality is
    kept as it is. A sample's result does not depend on the others in its batch.

    The clock's axis is as long as the longest modality's, or `limit`: how long the longest clock
    really is is known on the device only, and asking would synchronise with it. Hence give a limit
    where one modality is far longer than another.

    Args:
        features: Modality -> (B, T_m, D_m), left-aligned.
        lengths: Modality -> (B,) real steps, 0 where absent.
        limit: Most steps of any clock.

    Returns:
        Modality -> (B, T, D_m), zeros in padding, and modality -> (B,) K where present, 0 where absent.
    """
    steps = max(1, *(x.shape[1] for x in features.values()))
    longest = torch.iinfo(torch.int64).max
    shortest = torch.stack([own.masked_fill(own == 0, longest) for own in lengths.values()]).amin(dim=0)
    clock = shortest.clamp(max=steps)
    if limit is not None:
        steps = min(steps, limit)
        clock = clock.clamp(max=limit)
    pooled, pooled_lengths = {}, {}
    for name, x in features.items():
        own = lengths[name]
        x = zero_padding(x, own)
        positions = torch.arange(x.shape[1], device=x.device)
        bins = positions * clock[:, None] // own.clamp(min=1)[:, None]
        falls = bins[:, None, :] == torch.arange(steps, device=x.device)[:, None]
        falls = falls & step_mask(own, x.shape[1])[:, None, :]
        # (B, T, T_m) weights and one batched product: deterministic on every device, unlike scattered sums
        weights = falls.to(x.dtype) / falls.sum(dim=2, keepdim=True).clamp(min=1)
        pooled[name] = weights @ x
        pooled_lengths[name] = clock.masked_fill(own == 0, 0)
    return pooled, pooled_lengths

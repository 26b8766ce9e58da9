"""c_Xi(X_i, X^_i): the cost of a reconstruction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mfm.errors import ConfigurationError, nearest
from mfm.losses.precision import at_least_float32, without_autocast

RECONSTRUCTION_LOSSES: dict[str, Callable[[Tensor], Tensor]] = {"mse": torch.square, "l1": torch.abs}
"""Costs of an error by name: `mse` (the paper's), `l1`."""


def reconstruction_loss(reconstruction: Tensor, features: Tensor, lengths: Tensor, *, loss: str = "mse") -> Tensor:
    """Mean cost over real steps and features; padding and absent modalities do not count.

    Args:
        reconstruction: (B, T, D).
        features: (B, T, D); padded steps may hold anything, NaN included.
        lengths: (B,) real steps, 0 where the modality is absent.
        loss: Name in `RECONSTRUCTION_LOSSES`.

    Returns:
        Scalar, at least float32; 0, with zero gradients, where no step is real.

    Raises:
        ConfigurationError: Unknown loss; the nearest one is named.
    """
    if loss not in RECONSTRUCTION_LOSSES:
        raise ConfigurationError(f"unknown reconstruction loss {loss!r}: {nearest(loss, RECONSTRUCTION_LOSSES)}")
    if reconstruction.shape != features.shape:  # would broadcast silently
        raise ValueError(f"reconstruction {tuple(reconstruction.shape)} and features {tuple(features.shape)} differ")
    padded = torch.arange(features.shape[1], device=lengths.device) >= lengths[:, None]
    with without_autocast(features):
        # Zeros in the difference, before anything whose derivative is a product: garbage would be NaN times 0 there
        error = (at_least_float32(reconstruction) - at_least_float32(features)).masked_fill_(padded[..., None], 0.0)
        count = (~padded).sum().clamp(min=1) * features.shape[2]
        return RECONSTRUCTION_LOSSES[loss](error).sum() / count

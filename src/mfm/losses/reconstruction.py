"""c_Xi(X_i, X^_i): the cost of a reconstruction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mfm.errors import ConfigurationError, nearest
from mfm.losses.precision import at_least_float32, without_autocast

RECONSTRUCTION_LOSSES: dict[str, Callable[..., Tensor]] = {"mse": F.mse_loss, "l1": F.l1_loss}
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
    with without_autocast(features):
        own, true = at_least_float32(reconstruction), at_least_float32(features)
        padded = torch.arange(features.shape[1], device=lengths.device) >= lengths[:, None]
        if _may_pad(lengths, features.shape[1]):
            # Zeros in the difference, before anything whose derivative is a product: garbage would be NaN times 0 there
            own = (own - true).masked_fill_(padded[..., None], 0.0)
            true = own.new_zeros(()).expand_as(own)
        count = (~padded).sum().clamp(min=1) * features.shape[2]
        return RECONSTRUCTION_LOSSES[loss](own, true, reduction="sum") / count


def _may_pad(lengths: Tensor, steps: int) -> bool:
    """Whether a step may be padding; where lengths are on another device, to look would wait for it."""
    known = lengths.device.type == "cpu" and not torch.compiler.is_compiling()
    return not known or min(lengths.tolist(), default=0) < steps

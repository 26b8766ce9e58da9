"""KL(q || N(0, I)) of diagonal Gaussian posteriors: the divergence of a variational autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor

from mfm.losses.precision import at_least_float32, without_autocast


def gaussian_kl(mean: Tensor, log_variance: Tensor, known: Tensor | None = None) -> Tensor:
    """KL(N(mean, diag(exp(log_variance))) || N(0, I)) in nats, summed over dimensions and averaged over samples.

        1/2 sum_d (mean_d^2 + exp(log_variance_d) - 1 - log_variance_d)

    (Kingma and Welling, ICLR 2014, appendix B.)

    Args:
        mean: (B, d).
        log_variance: (B, d), the same shape.
        known: (B,) bool, which samples were observed; all by default. The posterior of the others is the prior: they
            count as samples of divergence 0, whatever `mean` and `log_variance` hold there.

    Returns:
        Scalar >= 0, at least float32, autocast or not.

    Raises:
        ValueError: The shapes differ, which would broadcast silently.
    """
    if mean.shape != log_variance.shape:
        raise ValueError(f"mean {tuple(mean.shape)} and log_variance {tuple(log_variance.shape)} differ in shape")
    with without_autocast(mean):
        mean, log_variance = at_least_float32(mean), at_least_float32(log_variance)
        if (
            known is not None
        ):  # before exp: what is cut off after it may be infinite, and inf times 0 is NaN in backward
            mean = mean.masked_fill(~known[:, None], 0.0)
            log_variance = log_variance.masked_fill(~known[:, None], 0.0)
        # expm1(v) - v, not exp(v) - 1 - v: near the prior the latter is rounding alone
        each = 0.5 * (mean.square() + torch.expm1(log_variance) - log_variance)
        return each.sum(dim=1).mean()

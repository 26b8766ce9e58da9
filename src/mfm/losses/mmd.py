"""Maximum mean discrepancy between codes and draws from the prior."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mfm.errors import ConfigurationError, nearest
from mfm.losses.precision import at_least_float32, without_autocast

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Scales s of the multi-scale kernels; two draws from N(0, I) in d dimensions are 2 d apart, squared, on average."""


def _rbf(squared: Tensor, dim: int) -> Tensor:
    """Mean over s of exp(-||a-b||^2 / (2 s d)), the scales each twice the one before: one exponential, then squares."""
    power = torch.exp(squared * (-0.5 / (SCALES[-1] * dim)))
    total = power
    for _ in SCALES[1:]:
        power = power * power
        total = total + power
    return total / len(SCALES)


def _imq(squared: Tensor, dim: int) -> Tensor:
    """Mean over s of C / (C + ||a-b||^2) with C = 2 s d (Tolstikhin et al., ICLR 2018, there summed)."""
    total = torch.zeros_like(squared)
    for scale in SCALES:
        bandwidth = 2.0 * scale * dim
        total = total + bandwidth / (bandwidth + squared)
    return total / len(SCALES)


def _original(squared: Tensor, dim: int) -> Tensor:
    """The authors' exp(-||a-b||^2 / d^2), nearly flat for large d: it matches little more than the means."""
    return torch.exp(squared / -(dim * dim))


KERNELS: dict[str, Callable[[Tensor, int], Tensor]] = {"rbf": _rbf, "imq": _imq, "original": _original}
"""Kernels by name, functions of squared distances and the dimension d, with k(a, a) = 1:

* `rbf`: Gaussian, mean over the scales s of exp(-||a-b||^2 / (2 s d)); the default.
* `imq`: inverse multi-quadratic, mean over the scales s of C / (C + ||a-b||^2), C = 2 s d; heavier tails, so that
  codes far from the prior still feel it.
* `original`: exp(-||a-b||^2 / d^2), as the authors' code, for comparisons.
"""


def check_kernel(name: str) -> None:
    """Refuse an unknown kernel.

    Raises:
        ConfigurationError: No kernel of that name; the nearest one is named.
    """
    if name not in KERNELS:
        raise ConfigurationError(f"unknown MMD kernel {name!r}: {nearest(name, KERNELS)}")


def mmd(
    z: Tensor, prior: Tensor, *, kernel: str = "rbf", unbiased: bool = False, weights: Tensor | None = None
) -> Tensor:
    """Squared maximum mean discrepancy (Gretton et al., JMLR 2012) between codes z and draws p from the prior.

        MMD^2 = E k(z, z') - 2 E k(z, p) + E k(p, p')

    Biased: all pairs count, each with itself too (V-statistic, >= 0, as the authors'). Unbiased: pairs of one with
    itself are left out (U-statistic, may be negative, mean 0 where both distributions agree).
    Distances come from matrix products: memory N x N, never N x N x d.

    Args:
        z: (N, d) codes.
        prior: (P, d) draws from the prior.
        kernel: Name in `KERNELS`.
        unbiased: Which estimate.
        weights: (N,) weight >= 0 of each code, or bool: which codes take part. What the others hold
            has no influence. All take part alike by default.

    Returns:
        Scalar, float64 for float64 codes and float32 for all others, autocast or not; 0 (with zero gradients)
        where no code takes part, for `unbiased` where fewer than two do.

    Raises:
        ConfigurationError: Unknown kernel.
    """
    check_kernel(kernel)
    if z.ndim != 2 or prior.ndim != 2 or z.shape[1] != prior.shape[1]:
        raise ValueError(f"codes {tuple(z.shape)} and prior {tuple(prior.shape)} are not (N, d) and (P, d)")
    dim, similarity = z.shape[1], KERNELS[kernel]
    with without_autocast(z):
        z = at_least_float32(z)
        prior = prior.to(z.dtype)
        w = torch.ones_like(z[:, 0]) if weights is None else weights.to(z.dtype)
        z = z.masked_fill((w == 0)[:, None], 0.0)
        w = w / w.sum().clamp(min=torch.finfo(z.dtype).tiny)
        v = torch.full_like(prior[:, 0], 1.0 / max(len(prior), 1))
        within_z = _mean_within(similarity(_squared_distances(z, z), dim), w, unbiased)
        within_prior = _mean_within(similarity(_squared_distances(prior, prior), dim), v, unbiased)
        across = w @ similarity(_squared_distances(z, prior), dim) @ v
        estimate = within_z - 2.0 * across + within_prior
        # Effective number of codes, 1 / sum w^2: what one code alone, or none, says cannot be estimated
        enough = (w.square().sum() < 1.0 - 1e-6) if unbiased else w.sum() > 0
        enough = enough & (w.sum() > 0)
        if unbiased and len(prior) < 2:
            enough = torch.zeros_like(enough)
        return estimate.masked_fill(~enough, 0.0)


def _mean_within(similarities: Tensor, w: Tensor, unbiased: bool) -> Tensor:
    """Weighted mean of (N, N) similarities of one sample, without the diagonal (of ones) if unbiased."""
    everything = w @ similarities @ w
    if not unbiased:
        return everything
    alone = w.square().sum()  # the diagonal's share, k(a, a) = 1
    diagonal = (w.square() * similarities.diagonal()).sum()
    return (everything - diagonal) / (1.0 - alone).clamp(min=1e-6)


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """||a_i - b_j||^2, (N, P), as |a|^2 + |b|^2 - 2 a.b around the mean of a, where it cancels least."""
    origin = a.detach().mean(dim=0) if len(a) else a.new_zeros(a.shape[1])
    a, b = a - origin, b - origin
    squared = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1) - 2.0 * (a @ b.t())
    return squared.clamp(min=0.0)

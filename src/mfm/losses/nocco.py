"""Normalised cross-covariance: a measure of dependence that sees what hides in directions of little variance."""

from __future__ import annotations

import torch
from torch import Tensor

from mfm.errors import ConfigurationError
from mfm.losses.hsic import centred_pair
from mfm.losses.precision import without_autocast


def nocco(
    x: Tensor, y: Tensor, *, regularization: float = 0.01, weights: Tensor | None = None, kernel_x: str = "rbf"
) -> Tensor:
    """Normalised cross-covariance (NOCCO; Fukumizu et al., NIPS 2007, "Kernel measures of conditional dependence").

        tr(R_x R_y) / (||R_x||_F ||R_y||_F)      R = G (G + n e I)^-1      G = H K H

    HSIC weighs each direction of feature space by its variance, so that a dependence in a direction of little variance
    costs it almost nothing and stays. R has every eigenvalue g of G as g / (g + n e): directions with more than the
    share e of the n samples' variance all count alike. RBF kernels have the median heuristic's bandwidth.

    Args:
        x: (n, d) samples.
        y: (n, e) samples, row by row belonging to those of x.
        regularization: e, > 0; what is below that share of variance is taken for noise.
        weights: (n,) bool, which samples take part; what the others hold has no influence. All by default.
        kernel_x: Kernel of x: `rbf` or `linear`, which for classes, one-hot or probabilities, tells them apart as such.

    Returns:
        Scalar in [0, 1], float64 for float64 samples and float32 for all others, autocast or not; 0 (with zero
        gradients) where fewer than two samples take part, or x or y is constant. With few samples it is well above 0
        also for independent x and y. Memory n x n.

    Raises:
        ConfigurationError: A regularization that is not positive.
    """
    if not regularization > 0:
        raise ConfigurationError(f"the regularization of NOCCO is {regularization}, but must be a number > 0")
    g_x, g_y, count = centred_pair(x, y, (kernel_x, "rbf"), weights=weights)
    with without_autocast(x):
        r_x, r_y = (_spectrum_levelled(g, count * regularization) for g in (g_x, g_y))
        norms = r_x.square().sum() * r_y.square().sum()
        return (r_x * r_y).sum() / norms.clamp(min=torch.finfo(norms.dtype).tiny).sqrt()


def _spectrum_levelled(gram: Tensor, ridge: Tensor) -> Tensor:
    """G (G + r I)^-1 for a positive semi-definite G and r > 0."""
    shifted = gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor, _ = torch.linalg.cholesky_ex(
        shifted
    )  # unlike `cholesky`, it does not wait for the device to look for errors
    return torch.cholesky_solve(gram, factor)
